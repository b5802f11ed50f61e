"""Generated solids: distances and surfaces against what is known of them, and the three kinds of data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.shapes3d import grid, solids_of
from lowerbound.lab.data.solids import KINDS, Solids, first_hit, random_solids, signed_distance, surface
from lowerbound.noise import generator


def volumes(solids: Solids) -> Tensor:
    first, second, third = solids.size.unbind(1)
    every = torch.stack(
        [
            4 / 3 * torch.pi * first**3,
            8 * first * second * third,
            2 * torch.pi**2 * first * second**2,
            2 * torch.pi * first**2 * second,
        ]
    )
    return every[solids.kind, torch.arange(len(solids))]


def test_solids_lie_in_the_cube_and_have_their_volume() -> None:
    solids = random_solids(40, generator(0))
    assert set(solids.kind.tolist()) == set(range(len(KINDS)))
    torch.testing.assert_close(solids.turn @ solids.turn.mT, torch.eye(3).expand(40, 3, 3), atol=1e-5, rtol=0)
    points = grid(48).expand(40, -1, -1)
    share = (signed_distance(solids, points) <= 0).float().mean(1)
    torch.testing.assert_close(share, volumes(solids), rtol=0.06, atol=0)
    edge = grid(16)[grid(16).abs().amax(1) > 0.46]
    assert (signed_distance(solids, edge.expand(40, -1, -1)) > 0).all()


def test_distances_are_distances() -> None:
    """A true signed distance has slope 1 everywhere, and a step by it along the slope ends on the surface."""
    solids = random_solids(40, generator(1))
    points = (torch.rand(40, 200, 3, generator=generator(2)) - 0.5).double().requires_grad_()
    exact = Solids(solids.kind, solids.size.double(), solids.turn.double(), solids.place.double())
    distance = signed_distance(exact, points)
    (slope,) = torch.autograd.grad(distance.sum(), points)
    length = slope.norm(dim=2)
    torch.testing.assert_close(length, torch.ones_like(length), atol=1e-4, rtol=0)
    outside = distance.detach() > 0
    nearest = points.detach() - distance.detach()[..., None] * slope
    assert signed_distance(exact, nearest).abs()[outside].max() < 1e-4


def test_surfaces_are_on_the_surface_and_uniform_by_area() -> None:
    """Shares of area are known; with 4,000 points a share's standard error is 0.008, and 4.5 of them are allowed."""
    count, limit = 4000, 0.036
    sizes = torch.tensor([[0.3, 0, 0], [0.1, 0.2, 0.25], [0.3, 0.12, 0], [0.15, 0.3, 0]])
    solids = Solids(torch.arange(4), sizes, torch.eye(3).expand(4, 3, 3).contiguous(), torch.zeros(4, 3))
    points = surface(solids, count, generator(3))
    assert signed_distance(solids, points).abs().max() < 1e-5
    sphere, box, torus, cylinder = points
    assert abs(float((sphere[:, 2] > 0.15).float().mean()) - 0.25) < limit  # Archimedes
    faces = torch.tensor([0.2 * 0.25, 0.1 * 0.25, 0.1 * 0.2])
    found = torch.stack([(box[:, axis].abs() - sizes[1, axis]).abs() < 1e-5 for axis in range(3)]).float().mean(1)
    assert (found - faces / faces.sum()).abs().max() < limit
    outer = (torus[:, :2].norm(dim=1) > 0.3).float().mean()
    assert abs(float(outer) - (0.5 + 0.12 / (torch.pi * 0.3))) < limit  # Pappus
    flat = (cylinder[:, 2].abs() > 0.3 - 1e-5).float().mean()
    assert abs(float(flat) - 0.15 / (0.15 + 0.6)) < limit
    for own in points:
        assert own.mean(0).abs().max() < 4.5 * 0.3 / count**0.5


def test_rays_meet_a_sphere_where_they_should() -> None:
    ball = Solids(torch.tensor([0]), torch.tensor([[0.3, 0, 0]]), torch.eye(3)[None], torch.zeros(1, 3))
    origins = torch.tensor([[[0.0, 0.0, 1.0], [0.2, 0.0, 1.0], [0.31, 0.0, 1.0]]])
    points, hit = first_hit(ball, origins, torch.tensor([[0.0, 0.0, -1.0]]))
    assert hit.tolist() == [[True, True, False]]
    torch.testing.assert_close(points[0, :2, 2], torch.tensor([0.3, (0.09 - 0.04) ** 0.5]), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "event", "geometry"),
    [
        ("voxels", (1, 16, 16, 16), "grid"),
        ("points", (128, 3), "cloud"),
        ("occupancy", (256, 4), "queries"),
    ],
)
def test_data_are_the_same_at_every_call_and_the_same_solids_in_every_kind(
    kind: str, event: tuple[int, ...], geometry: str
) -> None:
    table = {"kind": f"shapes3d-{kind}", "count": 40}
    data = load_data(table)
    assert data.spec.event == event
    assert data.spec.geometry == geometry
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 5, 5)
    rows = data.train.take(torch.arange(40)).raw
    assert torch.equal(rows, load_data(table).train.take(torch.arange(40)).raw)
    assert not torch.equal(rows, load_data({**table, "seed": 1}).train.take(torch.arange(40)).raw)
    solids, _ = solids_of("train", 40, 0)
    assert torch.equal(data.train.labels, solids.kind)
    if kind == "points":
        assert signed_distance(solids, rows).abs().max() < 1e-5
    elif kind == "occupancy":
        assert torch.equal(signed_distance(solids, rows[..., :3]) <= 0, rows[..., 3] == 1)
    else:
        assert torch.equal(signed_distance(solids, grid(16).expand(40, -1, -1)) <= 0, rows.flatten(1) == 1)
    labelled = load_data({**table, "context": "label"})
    assert labelled.spec.context == len(KINDS)
    assert labelled.spec.geometry == geometry

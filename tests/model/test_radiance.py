"""Radiance fields against solids whose views are known."""

from __future__ import annotations

import pytest
import torch

from lowerbound.errors import ShapeError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.shapes3d import grid
from lowerbound.lab.data.solids import random_solids, signed_distance
from lowerbound.lab.data.views import render
from lowerbound.model.networks.network import Ports
from lowerbound.model.networks.radiance import RadianceField, camera
from lowerbound.noise import derive_seed, generator


def directions(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator(0)), dim=1)


def test_cameras_look_at_the_middle_from_their_direction() -> None:
    where = torch.cat([directions(5), torch.tensor([[0.0, 0.0, 1.0]])])
    start, way = camera(where, 4)
    torch.testing.assert_close(way, -where)
    torch.testing.assert_close(start.mean(1), 0.75**0.5 * where, atol=1e-6, rtol=0)
    offsets = start - start.mean(1, keepdim=True)
    torch.testing.assert_close(torch.einsum("nri,ni->nr", offsets, where), torch.zeros(6, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close((offsets[:, 1] - offsets[:, 0]).norm(dim=1), torch.full((6,), 0.25))
    torch.testing.assert_close((offsets[:, 4] - offsets[:, 0]).norm(dim=1), torch.full((6,), 0.25))
    assert (offsets[:5, 0, 2] > offsets[:5, 12, 2]).all()  # up is up


def test_a_field_that_is_a_solid_looks_like_it_from_everywhere() -> None:
    """Two ways to the same picture: sphere tracing of distances, and volume rendering of a grid of 48."""
    solids, where = random_solids(8, generator(1)), directions(8)
    for row in range(8):
        own = solids.select(slice(row, row + 1))
        field = RadianceField(Ports((3,), (3, 24, 24)), grid=48, samples=96)
        points = grid(48)
        distance = signed_distance(own, points[None])[0].reshape(1, 48, 48, 48)
        with torch.no_grad():
            field.density.copy_((-distance / 0.01).clamp(-12, 12))
            field.colour.copy_(torch.logit((points + 0.5).clamp(0.01, 0.99)).T.reshape(3, 48, 48, 48))
            made = field(where[row : row + 1], None)
        true = render(own, where[row : row + 1], 24).float() / 255
        inside, seen = true.sum(1) > 0, made.sum(1) > 0.3
        assert (inside & seen).sum() / (inside | seen).sum() > 0.75
        both = (inside & seen)[:, None].expand_as(made)
        assert (made - true)[both].abs().mean() < 0.06
        assert made.min() >= 0
        assert made.max() <= 1


def test_the_direction_is_that_of_the_context_where_there_is_one() -> None:
    where = directions(2)
    field = RadianceField(Ports((3,), (1, 6, 6), 4), grid=6, samples=8)
    flag = torch.ones(2, 1)
    made = field(torch.randn(2, 3), torch.cat([where, flag], 1))
    torch.testing.assert_close(made, field.render(where))
    torch.testing.assert_close(made, field.render(3 * where))


def test_what_is_no_view_is_refused() -> None:
    with pytest.raises(ShapeError, match="square images"):
        RadianceField(Ports((3,), (1, 6, 5)))
    with pytest.raises(ShapeError, match="direction"):
        RadianceField(Ports((2,), (1, 6, 6)))


def test_views_are_generated_with_what_they_are_given() -> None:
    table = {"kind": "shapes3d-views", "count": 40, "size": 12}
    plain = load_data(table)
    assert plain.spec.event == (3, 12, 12)
    assert plain.spec.context == 0
    told = load_data({**table, "context": "direction", "solids": 2})
    rows = told.train.take(torch.arange(40))
    assert rows.context is not None
    torch.testing.assert_close(rows.context.vector.norm(dim=1), torch.ones(40))
    assert told.train.labels is not None
    assert len(told.train.labels.unique()) <= 2
    given = load_data({**table, "context": "view"})
    context = given.train.take(torch.arange(40)).context
    assert context is not None
    assert given.spec.context == context.vector.shape[1] == 6 + 3 * 12 * 12
    assert torch.equal(given.train.take(torch.arange(40)).raw, plain.train.take(torch.arange(40)).raw)
    # The context holds another view of the same solid: from its own direction it is what is rendered there.
    known = context.vector[:, 6:].unflatten(1, (3, 12, 12))
    solids = random_solids(40, generator(derive_seed(0, "shapes3d", "train")))
    torch.testing.assert_close(render(solids, context.vector[:, 3:6], 12).float() / 255, known)

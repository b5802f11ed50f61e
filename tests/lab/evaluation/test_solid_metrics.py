"""What solids are compared by, on solids that are known."""

from __future__ import annotations

import pytest
import torch

from lowerbound.errors import NotSupportedError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.solids import Solids, signed_distance, surface
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.evaluation.quality import two_sample_test
from lowerbound.lab.evaluation.solids import chamfer, descriptors, overlap
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator

VOXELS = DataSpec((1, 16, 16, 16), levels=2)
QUERIES = DataSpec((400, 4), geometry="queries")
CLOUD = DataSpec((400, 3), geometry="cloud")


def balls(radius: float, count: int) -> Solids:
    size = torch.tensor([[radius, 0.0, 0.0]]).expand(count, -1)
    turn = torch.eye(3).expand(count, 3, 3)
    return Solids(torch.zeros(count, dtype=torch.long), size, turn, torch.tensor([[0.05, 0.0, 0.0]]).expand(count, -1))


def test_descriptors_of_a_ball_are_those_of_a_ball() -> None:
    source = generator(0)
    ball = balls(0.3, 8)
    where = torch.rand(8, 20_000, 3, generator=source) - 0.5
    asked = torch.cat([where, (signed_distance(ball, where) <= 0)[..., None].float()], 2)
    inside = descriptors(asked, QUERIES).mean(0)
    covariance = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]) * 0.3**2 / 5
    ranks = 0.3 * torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]) ** (1 / 3)
    expected = [torch.tensor([4 / 3 * torch.pi * 0.027, 0.05, 0.0, 0.0]), torch.full((3,), 0.6), covariance, ranks]
    torch.testing.assert_close(inside, torch.cat(expected), atol=0.02, rtol=0)
    on = descriptors(surface(ball, 20_000, source), CLOUD).mean(0)
    covariance, ranks = covariance * 5 / 3, torch.full((5,), 0.3)
    expected = [torch.tensor([0.05, 0.0, 0.0]), torch.full((3,), 0.6), covariance, ranks]
    torch.testing.assert_close(on, torch.cat(expected), atol=0.02, rtol=0)


def test_an_empty_solid_has_no_extent() -> None:
    assert descriptors(torch.zeros(2, 1, 16, 16, 16), VOXELS).abs().sum() == 0


def test_two_draws_of_one_kind_pass_and_another_size_does_not() -> None:
    """The test's own false-alarm rate at 0.01 is 0.01; the seeds are fixed."""
    one = load_data({"kind": "shapes3d-voxels", "count": 400})
    other = load_data({"kind": "shapes3d-voxels", "count": 400, "seed": 1})
    extractor = make_extractor("shape", one.spec)
    rows = [data.train.take(torch.arange(400)).raw for data in (one, other)]
    same = two_sample_test(*(extractor(raw) for raw in rows))
    assert same["two_sample_p_value"].value > 0.01
    smaller = rows[1] * (torch.rand(rows[1].shape, generator=generator(0)) < 0.8)
    assert two_sample_test(extractor(rows[0]), extractor(smaller))["two_sample_p_value"].value < 1e-6


def test_chamfer_and_overlap_against_sums_by_hand() -> None:
    one, other = torch.randn(3, 5, 2, generator=generator(0)), torch.randn(3, 4, 2, generator=generator(1))
    by_hand = []
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        table = [[sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for q in b] for p in a]
        by_hand.append(sum(map(min, table)) / 5 + sum(min(column) for column in zip(*table, strict=True)) / 4)
    torch.testing.assert_close(chamfer(one, other), torch.tensor(by_hand, dtype=torch.float64))
    assert chamfer(one, one).abs().max() < 1e-12
    first, second = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    first[0, 0, 0], second[0, 0, :, 0] = 1.0, 0.7
    assert overlap(first, second).item() == pytest.approx(2 / 6)


def test_what_has_no_shape_or_no_order_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="voxels"):
        make_extractor("shape", DataSpec((1, 8, 8), levels=2))(torch.zeros(60, 1, 8, 8))
    with pytest.raises(NotSupportedError, match="no order"):
        make_extractor("raw", CLOUD)

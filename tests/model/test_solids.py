"""Clouds and queries: densities that know no order, and the networks around them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily, Normal

from lowerbound.errors import DataError, ShapeError
from lowerbound.model.build import build_model
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.solids import MixtureCloud, OccupancyLikelihood, Queries
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.cloud import Cloud
from lowerbound.model.distributions.occupancy import Occupancy
from lowerbound.model.distributions.tree import diagonal_normal
from lowerbound.model.networks.mlp import ModulatedMLP
from lowerbound.model.networks.network import Ports
from lowerbound.model.networks.points import CONTRAST, PointEncoder, QueryEncoder
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise, generator

CLOUDS = DataSpec((6, 3), geometry="cloud")
QUERIES = DataSpec((6, 4), geometry="queries")


class Ball(torch.nn.Module):
    """Log odds of a ball whose radius is the feature: an implicit function that is known."""

    def forward(self, where: Tensor, h: Tensor) -> Tensor:
        return 50 * (h - where.norm(dim=1, keepdim=True))


def shuffled(rows: Tensor) -> Tensor:
    return rows[:, torch.randperm(rows.shape[1], generator=generator(0))]


def test_order_means_nothing_to_encoder_and_likelihoods() -> None:
    torch.manual_seed(0)
    rows = torch.rand(4, 6, 4) - 0.5
    rows[..., 3] = (rows[..., 3] > 0).float()
    for network in (PointEncoder(Ports((6, 4), (3,))), QueryEncoder(Ports((6, 4), (3,)))):
        torch.testing.assert_close(network(rows, None), network(shuffled(rows), None))
    cloud = MixtureCloud(Slot((6, 3), CLOUDS), components=3)
    px = cloud(torch.randn(4, *cloud.features_shape), None)
    torch.testing.assert_close(px.log_prob(rows[..., :3]), px.log_prob(shuffled(rows[..., :3])))
    implicit = OccupancyLikelihood(Slot((6, 4), QUERIES), features=2)
    px = implicit(torch.randn(4, 2), None)
    torch.testing.assert_close(px.log_prob(rows), px.log_prob(shuffled(rows)))


@pytest.mark.parametrize("kind", ["cloud-mixture", "cloud-flow", "occupancy"])
def test_the_code_of_a_row_does_not_depend_on_the_order_of_its_points(kind: str) -> None:
    data = QUERIES if kind == "occupancy" else CLOUDS
    encoder = {"kind": "queries" if kind == "occupancy" else "points"}
    table = {"kind": "vae", "latent": 2, "encoder": encoder, "likelihood": {"kind": kind}}
    model = build_model(table, data, 0).eval()
    rows = torch.rand(3, *data.event, generator=generator(1)).round(decimals=1) - 0.5
    rows = rows if kind != "occupancy" else torch.cat([rows[..., :3], (rows[..., 3:] > 0).float()], 2)
    torch.testing.assert_close(model.encode(rows)["z"], model.encode(shuffled(rows))["z"])


def test_a_cloud_is_the_product_of_its_points() -> None:
    each = diagonal_normal(torch.randn(2, 3), torch.randn(2, 3), 1)
    cloud, rows = Cloud(each, 5), torch.randn(4, 2, 5, 3)
    expected = torch.stack([each.log_prob(rows[:, :, place]) for place in range(5)]).sum(0)
    torch.testing.assert_close(cloud.log_prob(rows), expected)


def test_the_density_of_a_point_of_a_mixture_integrates_to_one() -> None:
    torch.manual_seed(0)
    part = MixtureCloud(Slot((1, 1), DataSpec((1, 1), geometry="cloud")), components=4).double()
    px = part(torch.randn(3, *part.features_shape, dtype=torch.float64), None)
    line = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    total = px.log_prob(line[:, None, None, None].expand(-1, 3, 1, 1)).exp().sum(0) * (line[1] - line[0])
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    inner = px.each
    assert isinstance(inner, MixtureSameFamily)
    assert isinstance(inner.component_distribution.base_dist, Normal)


def test_queries_have_a_density_that_sums_to_one_over_answers_and_space() -> None:
    px = Occupancy(torch.tensor([[0.3]]), Ball(), 1)
    where = torch.rand(2000, 1, 1, 3, generator=generator(0)) - 0.5  # uniform in a cube of volume 1
    both = [torch.cat([where, torch.full_like(where[..., :1], answer)], -1) for answer in (0.0, 1.0)]
    total = sum(px.log_prob(rows).exp() for rows in both)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert px.log_prob(torch.tensor([[[[0.6, 0.0, 0.0, 1.0]]]])).item() == -torch.inf


def test_an_implicit_function_is_asked_anywhere_and_drawn_as_it_says() -> None:
    radius = torch.tensor([[0.2], [0.4]])
    px = Occupancy(radius, Ball(), 4000)
    drawn, log_p = tree.draw(px, BatchNoise(0, 0, 2))
    torch.testing.assert_close(log_p, px.log_prob(drawn))
    volume = 4 / 3 * torch.pi * radius[:, 0] ** 3
    # The odds are soft over 1/50 of the side, which adds little; 4 standard errors of 4,000 queries are 0.028 at most.
    torch.testing.assert_close(drawn[0, ..., 3].mean(1), volume, atol=0.03, rtol=0)
    assert px.logits(torch.tensor([[[0.0, 0.0, 0.1], [0.0, 0.0, 0.3]]]).expand(2, -1, -1)).sign().tolist() == [
        [1, -1],
        [1, 1],
    ]


def test_an_encoder_of_queries_sees_waves_of_all_points_and_of_those_inside() -> None:
    where = torch.tensor([0.25, -0.125, 0.0])
    rows = torch.stack([torch.cat([where, torch.tensor([flag])]) for flag in (1.0, 0.0)])[None]
    seen = QueryEncoder(Ports((2, 4), (1,))).look(rows)[0]
    scaled = 2 * where
    phases = torch.stack([torch.pi * octave * scaled for octave in (1, 2, 4)], dim=1).flatten()
    expected = torch.cat([scaled, phases.sin(), phases.cos()])
    torch.testing.assert_close(seen[:, :21], expected.expand(2, -1))
    torch.testing.assert_close(seen[:, 21:42], torch.stack([CONTRAST * expected, torch.zeros(21)]))
    assert seen[:, 42].tolist() == [1, -1]


def test_modulation_scales_and_shifts_each_layer_and_says_nothing_where_it_is_zero() -> None:
    torch.manual_seed(0)
    network = ModulatedMLP(Ports((2,), (1,), 3), widths=[4])
    x, context = torch.randn(5, 2), torch.randn(5, 3)
    torch.nn.init.zeros_(network.tell[0].weight)
    with torch.no_grad():
        network.tell[0].bias.copy_(torch.tensor([1.0] * 4 + [0.5] * 4))
    expected = network.head(torch.nn.functional.silu(2 * network.layers[0](x) + 0.5))
    torch.testing.assert_close(network(x, context), expected)
    torch.nn.init.zeros_(network.tell[0].bias)
    torch.testing.assert_close(network(x, context), network(x, None))


def test_what_is_no_cloud_and_no_query_is_refused() -> None:
    with pytest.raises(ShapeError, match="clouds"):
        MixtureCloud(Slot((3,), DataSpec((3,))))
    with pytest.raises(ShapeError, match="queries"):
        OccupancyLikelihood(Slot((6, 4), DataSpec((6, 4))))
    with pytest.raises(ShapeError, match="coordinates"):
        PointEncoder(Ports((3,), (3,)))
    with pytest.raises(ShapeError, match="`points`"):
        QueryEncoder(Ports((6, 3), (3,)))
    with pytest.raises(DataError, match="unit cube"):
        Queries(QUERIES).check(torch.full((1, 6, 4), 0.7))

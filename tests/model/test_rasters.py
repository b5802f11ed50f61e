"""Densities over grids: what each place sees, that draws follow them, and what they refuse."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from tables import RASTERS, raster
from torch.utils import _pytree as pytree

from lowerbound.errors import DataError, ShapeError
from lowerbound.model.build import build_model
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.raster import Place, Raster
from lowerbound.model.families.density import Density
from lowerbound.model.networks.causal import CausalTransformer
from lowerbound.model.networks.pixelcnn import GatedPixelCNN
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import BatchNoise

each = pytest.mark.parametrize("name", RASTERS)
Facts = list[tuple[Place, list[torch.Tensor]]]


def rows(p: Raster, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, (4, *p.event_shape), generator=source).double()


def steps(p: Raster, x: torch.Tensor) -> Facts:
    """Place and parameters of each step of a walk over given rows."""
    shaped = x.reshape(-1, *p.network.shape)
    walk = p.network.unroll(shaped, p.features)
    return [(place, [leaf.clone() for leaf in pytree.tree_leaves(density)]) for place, density in walk]


@each
def test_a_place_sees_places_before_it_and_no_other(name: str) -> None:
    """For every place and channel: nothing before it moves, and what follows in its row does."""
    p = raster(name, 3, 4) if name == "pixelcnn-embedded" else raster(name, 2, 3, 4)
    x, shape = rows(p), p.network.shape
    before = steps(p, x)
    numbers = torch.zeros(shape, dtype=torch.long)
    for number, (place, _) in enumerate(before):
        numbers[place] = number
    for index in itertools.product(*(range(size) for size in shape)):
        changed = x.reshape(-1, *shape).clone()
        changed[(slice(None), *index)] = (changed[(slice(None), *index)] + 1) % 3
        own, last = int(numbers[index]), int(numbers[..., index[-2], :].max())
        for number, ((_, old), (_, new)) in enumerate(zip(before, steps(p, changed), strict=True)):
            moved = torch.stack([(one != other).flatten(1).any(dim=1) for one, other in zip(old, new, strict=True)])
            if number <= own:
                assert not moved.any(), (index, number)
            elif name == "transformer" or number == own + 1 <= last:
                assert moved.any(dim=0).all(), (index, number)


@each
def test_one_pass_over_all_places_says_what_the_walk_says(name: str) -> None:
    p = raster(name, 3, 4) if name == "pixelcnn-embedded" else raster(name, 2, 3, 4)
    x = rows(p).reshape(-1, *p.network.shape)
    total = torch.zeros(4, dtype=torch.float64)
    for place, density in p.network.unroll(x, p.features):
        total += density.log_prob(x[(slice(None), *place)])
    torch.testing.assert_close(p.log_prob(rows(p)), total, rtol=1e-10, atol=1e-10)


def test_a_pixelcnn_has_no_blind_spot() -> None:
    """The gradient of every pixel's features reaches exactly the pixels before it, in all channels."""
    torch.manual_seed(0)
    network = GatedPixelCNN(2, 3, 0, width=4, depth=6, kernel=3, dropout=0.0).double()
    planes = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    features = network(planes, None)
    for row, column in itertools.product(range(5), range(5)):
        (slope,) = torch.autograd.grad(features[0, :, row, column].sum(), planes, retain_graph=True)
        seen = (slope[0] != 0).flatten(1)
        before = torch.arange(25) < 5 * row + column
        assert torch.equal(seen, before.expand(2, -1)), (row, column)


def test_a_transformer_sees_the_tokens_before_and_no_other() -> None:
    torch.manual_seed(0)
    network = CausalTransformer(4, 7, 0, width=8, depth=2, heads=2, dropout=0.0).double()
    tokens = torch.randint(4, (3, 7))
    before = network(tokens, None)
    for place in range(7):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 4
        differs = (network(changed, None) != before).any(dim=2)
        assert torch.equal(differs, (torch.arange(7) > place).expand(3, -1))


@each
def test_draws_have_the_frequencies_that_the_density_says(name: str) -> None:
    """A chi-squared test over all 16 values of a tiny grid; by chance it fails with 1e-4."""
    event = (2, 2) if name == "pixelcnn-embedded" else (1, 2, 2)
    p = raster(name, *event, levels=2)
    samples = 4000
    z, _ = tree.draw(p, BatchNoise(3, 0, 4, dtype=torch.float64), samples)
    numbers = (z.flatten(2) * torch.tensor([8, 4, 2, 1])).sum(dim=2).long()
    values = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, 1, *event)
    expected = samples * p.log_prob(values.expand(-1, 4, *event)).detach().exp()
    counts = torch.stack([(numbers == number).sum(dim=0) for number in range(16)])
    statistic = float(((counts - expected).square() / expected).sum())  # 4 rows of 15 degrees of freedom
    assert statistic < 110.0


@each
def test_the_label_changes_what_is_drawn(name: str) -> None:
    p = raster(name, 2, 2) if name == "pixelcnn-embedded" else raster(name, 1, 2, 2)
    scores = p.log_prob(torch.zeros(4, *p.event_shape, dtype=torch.float64))
    assert len(scores.unique()) == 4


@pytest.mark.parametrize("name", ["pixelcnn", "transformer"])
def test_training_reaches_the_entropy_of_known_data(name: str) -> None:
    """Of two by two bits, the last is the first again: three bits of entropy."""
    table: dict[str, Any] = RASTERS[name] | {"width": 16}
    model = build_model({"kind": "density", "density": table}, DataSpec((1, 2, 2), 2), 0)
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    x = torch.cat([bits, bits[:, :1]], dim=1).reshape(8, 1, 2, 2)
    x = model.preparation.prepare(x, None)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimiser.zero_grad()
        loss = -model.evidence(x, None, BatchNoise(0, 0, 8)).elbo().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() / math.log(2) == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize(
    ("table", "data", "said"),
    [
        ({"kind": "pixelcnn"}, DataSpec((2,)), "real numbers"),
        ({"kind": "transformer"}, DataSpec((2,)), "real numbers"),
        ({"kind": "pixelcnn"}, DataSpec((16,), 8), 'use "transformer"'),
        ({"kind": "pixelcnn", "kernel": 4}, DataSpec((1, 4, 4), 8), "odd"),
        ({"kind": "transformer", "width": 10, "heads": 4}, DataSpec((4,), 8), "divisor"),
        ({"kind": "pixelcnn", "likelihood": {"kind": "categorical-pixel"}}, DataSpec((4,), 8), "shape"),
    ],
)
def test_what_has_no_density_over_a_grid_is_refused(table: dict[str, Any], data: DataSpec, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        build_model({"kind": "density", "density": table}, data, 0)


def test_a_prior_of_whole_numbers_is_refused_for_real_latents() -> None:
    with pytest.raises(ShapeError, match="whole numbers"):
        build_model({"kind": "vae", "latent": 4, "prior": {"kind": "transformer"}}, DataSpec((1, 8, 8), 17), 0)


def test_levels_that_do_not_exist_are_refused() -> None:
    model = build_model({"kind": "density", "density": RASTERS["transformer"]}, DataSpec((4,), 8), 0)
    with pytest.raises(DataError, match="from 0 to 7"):
        model.check(torch.tensor([[0, 1, 2, 8]]))


def test_a_conditional_density_needs_its_context() -> None:
    model = build_model({"kind": "density", "density": RASTERS["transformer"]}, DataSpec((4,), 8, 3), 0)
    assert isinstance(model, Density)
    with pytest.raises(ShapeError, match="conditional"):
        model.density(None, None)
    assert model.density(None, Context.labels(torch.arange(3), 3)).batch_shape == (3,)

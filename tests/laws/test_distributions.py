"""Laws of every density in use."""

from __future__ import annotations

import itertools

import pytest
import torch
from tables import DISTRIBUTIONS, RASTERS
from torch.distributions import Normal

from lowerbound.model.distributions import tree
from lowerbound.noise import BatchNoise, RowNoise

ROWS = 4
# Statistical tests use fixed seeds; a limit of 4.5 standard errors on some 60 numbers fails by chance with 4e-4.
LIMIT = 4.5

each = pytest.mark.parametrize("name", DISTRIBUTIONS)


def noise(seed: int = 0) -> BatchNoise:
    return BatchNoise(seed, 0, ROWS, dtype=torch.float64)


@each
def test_draws_have_samples_rows_and_event(name: str) -> None:
    distribution = DISTRIBUTIONS[name].make()
    z, log_q = tree.draw(distribution, noise(), 3)
    assert z.shape == (3, ROWS, *distribution.event_shape)
    assert log_q.shape == (3, ROWS)


@each
def test_log_density_of_a_draw_is_that_of_the_distribution(name: str) -> None:
    row = DISTRIBUTIONS[name]
    if not row.exact:
        pytest.skip("has no exact density")
    distribution = row.make()
    z, log_q = tree.draw(distribution, noise(), 3)
    torch.testing.assert_close(log_q.double(), distribution.log_prob(z).double(), rtol=1e-9, atol=1e-9)


@each
def test_same_noise_same_draw_and_other_noise_another(name: str) -> None:
    distribution = DISTRIBUTIONS[name].make()
    first, _ = tree.draw(distribution, noise(), 3)
    assert torch.equal(first, tree.draw(distribution, noise(), 3)[0])
    if name not in ("codes", "delta"):
        assert not torch.equal(first, tree.draw(distribution, noise(1), 3)[0])


@each
def test_a_draw_does_not_depend_on_its_batch_mates(name: str) -> None:
    row = DISTRIBUTIONS[name]
    distribution = row.make()
    seeds = [11, 12, 13, 14]
    together, _ = tree.draw(distribution, RowNoise(seeds, dtype=torch.float64), 2)
    alone = tree.map_rows(distribution, lambda tensor, axis: tensor.narrow(axis, 2, 1))
    single, _ = tree.draw(alone, RowNoise(seeds[2:3], dtype=torch.float64), 2)
    torch.testing.assert_close(together[:, 2:3], single, rtol=1e-12, atol=1e-12)


@each
def test_moments_of_draws(name: str) -> None:
    row = DISTRIBUTIONS[name]
    if not row.moments:
        pytest.skip("its moments are not known in closed form")
    distribution, samples = row.make(), 20_000
    z, _ = tree.draw(distribution, noise(), samples)
    error = (z.mean(dim=0) - distribution.mean).abs() / (distribution.variance / samples).sqrt()
    assert error.max() < LIMIT
    squares = (z - distribution.mean).square()
    spread = (squares.mean(dim=0) - distribution.variance).abs() / (squares.var(dim=0) / samples).sqrt()
    assert spread.nan_to_num(0.0).max() < LIMIT


@each
def test_point_has_the_shape_of_a_row(name: str) -> None:
    distribution = DISTRIBUTIONS[name].make()
    if name in ("diffusion", "uniform-sphere", "ring", "ring-in-space"):
        pytest.skip("it has no point")
    assert tree.point(distribution).shape == (*distribution.batch_shape, *distribution.event_shape)


@each
def test_detach_cuts_the_graph_and_keeps_the_density(name: str) -> None:
    distribution = DISTRIBUTIONS[name].make()
    live = tree.map_rows(distribution, lambda t, axis: t.clone().requires_grad_() if t.is_floating_point() else t)
    leaves = torch.utils._pytree.tree_leaves(tree.detach(live))
    assert not any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves)
    if DISTRIBUTIONS[name].exact:
        z, _ = tree.draw(distribution, noise())
        torch.testing.assert_close(tree.detach(live).log_prob(z), distribution.log_prob(z))


@each
def test_rows_can_be_selected(name: str) -> None:
    row = DISTRIBUTIONS[name]
    distribution = row.make()
    chosen = tree.map_rows(distribution, lambda tensor, axis: tensor.index_select(axis, torch.tensor([3, 1])))
    assert chosen.batch_shape == (torch.Size([]) if row.shared else torch.Size([2]))
    if row.exact:
        z, _ = tree.draw(distribution, noise())
        expected = distribution.log_prob(z)[:, [3, 1]]
        torch.testing.assert_close(chosen.log_prob(z[:, [3, 1]]), expected)


def test_discrete_densities_sum_to_one() -> None:
    for name, values in {
        "bernoulli": itertools.product([0.0, 1.0], repeat=3),
        "categorical": itertools.product(range(5), repeat=3),
        "tokens": itertools.product(range(3), repeat=3),
        "logistic-mixture": itertools.product(range(5), repeat=3),
        "logistic-mixture-pixel": itertools.product(range(3), repeat=4),
        "categorical-pixel": itertools.product(range(3), repeat=4),
        **{name: itertools.product(range(3), repeat=4) for name in RASTERS},
    }.items():
        distribution = DISTRIBUTIONS[name].make()
        event = distribution.event_shape
        every = torch.tensor(list(values)).reshape(-1, 1, *event).expand(-1, ROWS, *event)
        total = distribution.log_prob(every).exp().sum(dim=0)
        torch.testing.assert_close(total.double(), torch.ones(ROWS, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_continuous_densities_integrate_to_one() -> None:
    grid = torch.linspace(-200, 200, 40_001, dtype=torch.float64)
    step = grid[1] - grid[0]
    for name in ("normal", "mixture", "mixture-per-pixel"):
        distribution = DISTRIBUTIONS[name].make()
        inner = distribution.base_dist if name != "mixture" else distribution
        if name == "mixture":
            component = inner.component_distribution.base_dist
            one = torch.distributions.MixtureSameFamily(
                inner.mixture_distribution, Normal(component.loc[:, 0], component.scale[:, 0])
            )
            total = one.log_prob(grid).exp().sum() * step
        else:
            total = inner.log_prob(grid[:, None, None].expand(-1, *inner.batch_shape)).exp().sum(0) * step
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-8, atol=1e-8)


def test_sampler_is_exact_where_sigma_is_below_the_resolution_of_z() -> None:
    mu = torch.tensor([[3.0, -5.0]]).expand(ROWS, -1)
    tiny = tree.diagonal_normal(mu, torch.full_like(mu, -30.0), 1)
    z, log_q = tree.draw(tiny, BatchNoise(0, 0, ROWS), 100)
    assert (z - mu).abs().max() < 1e-4
    eps = BatchNoise(0, 0, ROWS).normal(100, (2,))
    expected = (-0.5 * eps.double().square() + 15 - 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(-1)
    torch.testing.assert_close(log_q.double(), expected, rtol=1e-5, atol=1e-4)


def test_tokens_depend_on_earlier_tokens_only() -> None:
    distribution = DISTRIBUTIONS["tokens"].make()
    tokens = torch.zeros(ROWS, 3, dtype=torch.long)
    before = distribution.logits(tokens)
    for place in range(3):
        changed = tokens.clone()
        changed[:, place] = 2
        after = distribution.logits(changed)
        assert torch.equal(before[:, : place + 1], after[:, : place + 1])
        if place < 2:
            assert not torch.allclose(before[:, place + 1], after[:, place + 1])

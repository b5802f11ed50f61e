"""Generators and critics: what each game is worth at its best critic, on densities known in closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lowerbound.errors import NotABoundError, NotSupportedError, ShapeError
from lowerbound.kinds import Part
from lowerbound.model.build import build_model
from lowerbound.model.networks.minibatch import Minibatch
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Ports
from lowerbound.model.networks.style import ModulatedConvolution, StyleUp
from lowerbound.model.objectives.adversarial_samples import reach
from lowerbound.model.objectives.games import Game, Hinge, NonSaturating, Saturating, Wasserstein
from lowerbound.model.objectives.growing import Growing
from lowerbound.model.objectives.slopes import (
    ClippedWeights,
    GradientPenalty,
    NoPenalty,
    RealGradientPenalty,
    SpectralWeights,
    slopes,
)
from lowerbound.model.spec import DataSpec, Settings
from lowerbound.noise import BatchNoise, generator

AXIS = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
DX = float(AXIS[1] - AXIS[0])


def normal(mean: float, sigma: float) -> Tensor:
    return torch.exp(-0.5 * ((AXIS - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def expected(density: Tensor, values: Tensor) -> Tensor:
    return (density * values).sum() * DX


def jensen_shannon(p: Tensor, g: Tensor) -> Tensor:
    middle = 0.5 * (p + g)
    return 0.5 * (expected(p, (p / middle).log()) + expected(g, (g / middle).log()))


class Weighted(Saturating):
    """The minimax game with expectations over densities in place of means over rows."""

    def __init__(self, p: Tensor, g: Tensor) -> None:
        self.p, self.g = p, g

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return expected(self.p, softplus(-real)) + expected(self.g, softplus(fake))


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (1.0, 1.0), (2.0, 0.7), (6.0, 1.5)])
def test_the_best_critic_is_the_log_ratio_and_its_loss_is_log_4_less_twice_the_jensen_shannon_divergence(
    mean: float, sigma: float
) -> None:
    """Goodfellow et al. 2014, proposition 1 and theorem 1."""
    p, g = normal(0, 1), normal(mean, sigma)
    best = (p.log() - g.log()).nan_to_num(0.0).clamp(-700, 700)
    game = Weighted(p, g)
    value = game.critic(best, best)
    torch.testing.assert_close(-value, 2 * jensen_shannon(p, g).nan_to_num(0.0) - math.log(4), rtol=1e-6, atol=1e-6)
    for bend in (0.1 * AXIS.sin(), 0.2 * torch.ones_like(AXIS), -0.05 * AXIS):  # nothing near it is better
        assert game.critic(best + bend, best + bend) > value


def test_a_saturated_generator_has_no_gradient_where_the_other_game_has_one() -> None:
    """Far-off rows that the critic is sure of: the slope of log(1 - D) dies, that of -log D does not."""
    found: dict[str, float] = {}
    for game in (Saturating(), NonSaturating(), Wasserstein(), Hinge()):
        fake = torch.full((8,), -20.0, requires_grad=True)
        (slope,) = torch.autograd.grad(game.generator(fake), fake)
        found[type(game).__name__] = float(slope.abs().sum())
    assert found["Saturating"] < 1e-8
    assert all(found[name] == pytest.approx(1.0, rel=1e-5) for name in ("NonSaturating", "Wasserstein", "Hinge"))


def test_the_dual_of_the_wasserstein_distance_is_reached_by_a_slope_of_one() -> None:
    """In one dimension W1 is the area between the distribution functions; its critic has slopes of 1 (Villani 2009)."""
    p, g = normal(0, 1), normal(1.5, 0.5)
    gap = (p.cumsum(0) - g.cumsum(0)) * DX
    distance = gap.abs().sum() * DX
    best = -(gap.sign() * DX).cumsum(0)
    value = expected(g, best) - expected(p, best)
    torch.testing.assert_close(-value, distance, rtol=1e-3, atol=1e-3)
    for other in (AXIS, -AXIS, AXIS.sin(), 0.5 * best):
        assert abs(float(expected(p, other) - expected(g, other))) <= float(distance) + 1e-6
    game: Game = Wasserstein()
    rows = torch.randn(1000, generator=generator(0))
    torch.testing.assert_close(game.critic(rows, rows + 2), torch.tensor(2.0))


def linear_critic(slope: float) -> nn.Module:
    made = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        made.weight.fill_(slope / math.sqrt(3))
    return made


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_penalties_are_those_of_a_critic_of_known_slope(slope: float) -> None:
    critic = linear_critic(slope)
    real, fake = torch.randn(6, 3), torch.randn(6, 3)
    noise = BatchNoise(0, 0, 6)

    def score(rows: Tensor) -> Tensor:
        return critic(rows)[:, 0]

    torch.testing.assert_close(slopes(score, real), torch.full((6,), slope**2))
    found = GradientPenalty(weight=10.0)(score, real, fake, noise)
    torch.testing.assert_close(found, torch.tensor(10 * (slope - 1) ** 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(RealGradientPenalty(weight=4.0)(score, real, fake, noise), torch.tensor(2 * slope**2))


def test_a_penalised_critic_ends_with_slopes_near_one_and_r1_lowers_them() -> None:
    """Two clouds that are d apart: a slope s earns s d and costs 10 (s - 1)^2, so the best is 1 + d / 20."""
    torch.manual_seed(0)
    ends: dict[str, float] = {}
    penalties = {"gradient": GradientPenalty(), "r1": RealGradientPenalty(weight=20.0), "none": NoPenalty()}
    for name, penalty in penalties.items():
        critic = MLP(Ports((2,), (1,)), widths=[32, 32], activation="silu")
        optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)

        def score(rows: Tensor, critic: MLP = critic) -> Tensor:
            return critic(rows, None)[:, 0]

        for step in range(300):
            noise = BatchNoise(0, step, 128)
            real = noise.child("real").normal(1, (2,))[0]
            fake = noise.child("fake").normal(1, (2,))[0] + 4
            loss = Wasserstein().critic(score(real), score(fake)) + penalty(score, real, fake, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends[name] = float(slopes(score, real).sqrt().mean().detach())
    assert ends["gradient"] == pytest.approx(1 + math.hypot(4, 4) / 20, abs=0.1)
    assert 10 * ends["r1"] < ends["none"]


def test_spectral_weights_make_a_critic_whose_slope_is_at_most_one_and_clipping_holds_the_box() -> None:
    torch.manual_seed(0)
    critic = MLP(Ports((3,), (1,)), widths=[16, 16], activation="leaky_relu")
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(5)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    weights = SpectralWeights(critic)
    for _ in range(50):
        weights.absorb(critic, weights.apply_to(critic, torch.randn(4, 3), None)[1])
    rows = 3 * torch.randn(500, 3)
    held = slopes(lambda some: weights.apply_to(critic, some, None)[0][:, 0], rows).sqrt()
    free = slopes(lambda some: critic(some, None)[:, 0], rows).sqrt()
    assert held.max() <= 1.001
    assert free.max() > 5
    assert all(torch.equal(before[name], value) for name, value in critic.state_dict().items())
    ClippedWeights(critic, limit=0.02).absorb(critic, {})
    assert max(float(parameter.detach().abs().max()) for parameter in critic.parameters()) <= 0.02


def test_comparing_a_batch_tells_rows_that_are_all_alike() -> None:
    torch.manual_seed(0)
    network = Minibatch(Ports((2,), (1,)), network=Part(MLP, widths=[8]), features=4, kernels=3, width=2)
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, 4:]))
    network(torch.zeros(10, 2), None)
    network(torch.randn(10, 2, generator=generator(0)) * 100, None)
    torch.testing.assert_close(seen[0], torch.full((10, 3), 9.0))
    assert seen[1].mean() < 4


def test_a_generator_says_what_it_has_not() -> None:
    model = build_model(
        {"kind": "generator", "latent": 2, "network": {"kind": "mlp", "widths": [4]}}, DataSpec((3,), examples=10), 0
    )
    x = torch.zeros(2, 3)
    evidence = model.evidence(x, None, BatchNoise(0, 0, 2))
    with pytest.raises(NotABoundError, match="implicit"):
        evidence.elbo()
    with pytest.raises(NotSupportedError, match="no way back"):
        model.encode(x)
    made = model.decode({"z": torch.zeros(2, 2)})
    with pytest.raises(NotABoundError):
        made.log_prob(x)


def test_the_best_critic_of_far_data_leaves_a_saturated_generator_without_gradient() -> None:
    """One unit that moves all rows: at the best critic log(1 - D) has a slope that dies as they are farther from data.

    For N(0, 1) against N(m, 1) the best critic is a(x) = m^2 / 2 - m x. By the chain rule the generator's slope is
    m E sigmoid(a) at rows around m: with m = 8 below e^-8. That of -log D is nearly m.
    """
    slopes_of: dict[str, list[float]] = {"Saturating": [], "NonSaturating": []}
    for mean in (2.0, 8.0):
        for game in (Saturating(), NonSaturating()):
            move = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
            rows = move + torch.randn(4000, dtype=torch.float64, generator=generator(0))
            score = mean**2 / 2 - mean * rows
            (slope,) = torch.autograd.grad(game.generator(score), move)
            slopes_of[type(game).__name__].append(abs(float(slope)))
    near, far = slopes_of["Saturating"]
    assert near > 0.1
    assert far < 8 * math.exp(-8)
    assert slopes_of["NonSaturating"][1] == pytest.approx(8, rel=0.01)


def style_network() -> StyleUp:
    torch.manual_seed(0)
    made = StyleUp(Ports((100,), (1, 8, 8)), widths=[8, 6], mapping=[16], style=8)
    with torch.no_grad():
        made.strengths.fill_(1.0)
    return made.eval()


def test_the_last_units_of_a_style_based_generator_move_single_pixels_and_the_first_the_whole() -> None:
    """There are 16 places at the first size and 64 at the last; a noise of the last size reaches its own pixel only."""
    network, z = style_network(), torch.randn(1, 100, generator=generator(0))
    before = network(z, None)

    def moved(unit: int) -> int:
        other = z.clone()
        other[0, unit] += 1
        return int((~torch.isclose(network(other, None), before, atol=1e-7)).sum())

    assert moved(0) == 64
    assert moved(99) == 1
    assert 1 < moved(20) <= 36  # a place of the first size: four pixels, and what a convolution of width 3 adds
    silent = z.clone()
    silent[0, 20:] = 0
    torch.testing.assert_close(network(silent, None), network(2 * silent, None))  # only the direction of a style counts


def test_held_convolutions_keep_their_size_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConvolution(16, 400, 3, 4)
    with torch.no_grad():
        layer.scales.weight.mul_(3)
    hidden = torch.randn(2, 16, 30, 30)
    for size in (0.1, 1.0, 10.0):
        spread = layer(hidden, size * torch.ones(2, 4)).std()
        assert float(spread.detach()) == pytest.approx(1.0, abs=0.1)


def test_modulated_activations_are_modulated_weights() -> None:
    """Karras et al. 2020, eq. 1-3, literally: a kernel for each row."""
    torch.manual_seed(0)
    layer = ModulatedConvolution(5, 4, 3, 6)
    hidden, style = torch.randn(3, 5, 7, 6), torch.randn(3, 6)
    for row in range(3):
        weight = layer.weight * layer.scales(style[row])[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        literal = torch.nn.functional.conv2d(hidden[row : row + 1], weight, layer.bias, padding=1)
        torch.testing.assert_close(layer(hidden, style)[row : row + 1], literal, rtol=1e-4, atol=1e-5)


def test_a_style_based_generator_needs_noise_for_each_place() -> None:
    with pytest.raises(ShapeError, match="more than 80 units"):
        StyleUp(Ports((80,), (1, 8, 8)), widths=[8, 6])


def test_growing_images_show_one_size_after_the_other_without_a_jump() -> None:
    settings = Settings(DataSpec((1, 8, 8), levels=17), {"z": (2,)}, ("decoder",), lambda x: x)
    objective = Growing(settings, doublings=2, steps=10)
    rows = torch.randn(3, 1, 8, 8, generator=generator(0))
    whole = rows.mean(dim=(2, 3))

    def sizes(seen: Tensor) -> int:
        """The side of the smallest image that says all of it."""
        for side in (1, 2, 4, 8):
            small = torch.nn.functional.adaptive_avg_pool2d(seen, side)
            if torch.allclose(torch.nn.functional.interpolate(small, (8, 8)), seen, atol=1e-6):
                return side
        return 0

    assert [sizes(objective.seen(rows, step)) for step in (0, 5, 6, 10, 15, 16, 20, 1000)] == [2, 2, 4, 4, 4, 8, 8, 8]
    assert torch.equal(objective.seen(rows, 20), rows)
    every = [objective.seen(rows, step) for step in range(25)]
    assert max(float((one - other).abs().max()) for one, other in itertools.pairwise(every)) < 0.25 * float(
        rows.abs().max()
    )
    assert all(torch.allclose(seen.mean(dim=(2, 3)), whole, atol=1e-6) for seen in every)


def test_made_rows_reach_few_real_ones_when_they_are_all_alike() -> None:
    real = torch.randn(500, 2, generator=generator(0))
    assert float(reach(torch.zeros(500, 2), real)) < 0.01
    assert float(reach(torch.randn(500, 2, generator=generator(1)), real)) == pytest.approx(0.9, abs=0.12)
    wide = float(reach(3 * torch.randn(500, 2, generator=generator(1)), real))
    assert 0.2 < wide < 0.8  # spread too wide is no collapse

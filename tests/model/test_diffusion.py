"""Diffusion on Gaussian data, where the denoiser is known in closed form: every part against the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

import lowerbound
from lowerbound.errors import NotABoundError, NotSupportedError, RecipeError, ShapeError, UsageError
from lowerbound.kinds import resolve
from lowerbound.model.build import PARTS, build_model, build_objective
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.diffusing import bounds, predictions, samplers, schedules, spacings, weightings
from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.distributions.diffusion import DiffusionDensity, Process
from lowerbound.model.families.stack import Stack
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import BatchNoise, RowNoise

SPREAD, MEAN, EVENT = 0.6, 0.7, torch.Size([3])
# Means of 4,000 numbers within 4.5 standard errors: some 40 numbers, false alarms 3e-4.
ROWS, LIMIT = 4000, 4.5

SCHEDULES = PARTS[schedules.NoiseSchedule]
PREDICTIONS = PARTS[predictions.Prediction]


def every(group: type, **settings: Any) -> dict[str, Any]:
    return {name: make(**settings) for name, make in PARTS[group].items()}


def noise(seed: int, rows: int = ROWS) -> BatchNoise:
    return BatchNoise(seed, 0, rows, dtype=torch.float64)


def truth(z: Tensor, level: Level) -> Guess:
    """What is expected of N(MEAN, SPREAD^2) data."""
    total = (level.alpha * SPREAD) ** 2 + level.sigma**2
    eps = level.sigma * (z - level.alpha * MEAN) / total
    return Guess((z * level.alpha * SPREAD**2 + level.sigma**2 * MEAN) / total, eps)


def exact(z: Tensor, features: Tensor | None, context: Tensor | None, level: Level) -> Guess:
    return truth(z, level)


def density(denoiser: Callable[..., Guess] = exact, **process: Any) -> DiffusionDensity:
    return DiffusionDensity(None, None, denoiser, Process(EVENT, **process))


def levels_of(schedule: schedules.NoiseSchedule, count: int) -> list[Level]:
    return [schedule.level(t) for t in torch.linspace(1, 0, count + 1, dtype=torch.float64)]


# ----------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_falls_has_its_slope_and_can_be_inverted(name: str) -> None:
    schedule = SCHEDULES[name]()
    t = torch.linspace(0.0005, 0.9995, 200, dtype=torch.float64, requires_grad=True)
    ratio = schedule.log_snr(t)
    (slope,) = torch.autograd.grad(ratio.sum(), t)
    torch.testing.assert_close(schedule.slope(t), slope, rtol=1e-9, atol=0)
    assert bool((slope < 0).all())
    torch.testing.assert_close(schedule.time(ratio), t, rtol=0, atol=1e-9)
    level = schedule.level(t)
    torch.testing.assert_close(level.log_snr, ratio, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.at(ratio).alpha, level.alpha)


def test_schedules_keep_what_they_are_named_for() -> None:
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    for name in ("log-snr", "cosine", "linear-beta"):
        torch.testing.assert_close(SCHEDULES[name]().level(t).norm, torch.ones_like(t))
    straight, exploding = (SCHEDULES[name]().level(t) for name in ("straight", "exploding"))
    torch.testing.assert_close(straight.alpha + straight.sigma, torch.ones_like(t))
    torch.testing.assert_close(straight.sigma, 1e-3 + t * (1 - 2e-3))
    assert bool((exploding.alpha == 1).all())
    assert float(exploding.sigma[0]) == pytest.approx(0.002)
    assert float(exploding.sigma[-1]) == pytest.approx(80.0)


def test_the_linear_schedule_is_that_of_a_thousand_small_steps() -> None:
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    level = schedules.LinearBeta().level(torch.linspace(0, 1, 1000, dtype=torch.float64))
    torch.testing.assert_close(level.alpha.square(), kept, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", PARTS[spacings.Spacing])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_spacing_goes_from_the_one_end_to_the_other(name: str, schedule: str) -> None:
    made = SCHEDULES[schedule]()
    times = torch.stack([level.t for level in PARTS[spacings.Spacing][name]()(made, 7)])
    last = 1 / 7 if name == "trailing" else 0.0  # from where the last step is as long as the others
    torch.testing.assert_close(times[[0, -1]], torch.tensor([1.0, last]).double(), rtol=0, atol=1e-7)
    assert bool((times.diff() < 0).all())
    assert float(PARTS[spacings.Spacing][name]()(made, 1)[0].t) == pytest.approx(1)


# --------------------------------------------------------------------------------------------------- predictions


def target(prediction: predictions.Prediction, x: Tensor, eps: Tensor, level: Level) -> Tensor:
    """The output that says just this row and this noise: guesses are linear in the output."""
    z = level.noised(x, eps)
    zero, one = (prediction.guess(torch.full_like(z, value), z, level).eps for value in (0.0, 1.0))
    return (eps - zero) / (one - zero)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_prediction_is_a_row_a_noise_and_a_score(name: str, schedule: str) -> None:
    prediction, level = PREDICTIONS[name](), SCHEDULES[schedule]().level(torch.rand(50).double()).over(1)
    x, eps, output = (torch.randn(50, 3, dtype=torch.float64) for _ in range(3))
    z = level.noised(x, eps)
    guess = prediction.guess(output, z, level)
    torch.testing.assert_close(level.noised(guess.x, guess.eps), z)
    torch.testing.assert_close(guess.score(level), -guess.eps / level.sigma)
    right = prediction.guess(target(prediction, x, eps, level), z, level)
    torch.testing.assert_close(right.x, x, rtol=1e-6, atol=1e-6)
    # The error of an output is `sharpness` times that of the noise.
    moved = (guess.eps - right.eps).square() * prediction.sharpness(level)
    torch.testing.assert_close(moved, (output - target(prediction, x, eps, level)).square(), rtol=1e-6, atol=1e-8)


def test_predictions_are_what_they_are_named_for() -> None:
    x, eps = torch.randn(9, 2, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    level = schedules.Cosine().level(torch.linspace(0.1, 0.9, 9).double()).over(1)
    says = {"noise": eps, "row": x, "v": level.alpha * eps - level.sigma * x, "velocity": eps - x}
    for name, expected in says.items():
        torch.testing.assert_close(target(PREDICTIONS[name](), x, eps, level), expected)
    # Karras et al. 2022, table 1, in their own variables.
    ratio, row = level.ratio, level.noised(x, eps) / level.alpha
    skip, out = 0.25 / (ratio**2 + 0.25), 0.5 * ratio / (ratio**2 + 0.25).sqrt()
    made = predictions.Preconditioned(data=0.5)
    torch.testing.assert_close(target(made, x, eps, level), (x - skip * row) / out)
    torch.testing.assert_close(made.inputs(level.noised(x, eps), level), row / (ratio**2 + 0.25).sqrt())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_score_is_the_gradient_of_the_noisy_density(schedule: str) -> None:
    level = SCHEDULES[schedule]().level(torch.linspace(0, 1, 5, dtype=torch.float64)).over(1)
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    spread = ((level.alpha * SPREAD) ** 2 + level.sigma**2).sqrt()
    (score,) = torch.autograd.grad(Normal(level.alpha * MEAN, spread).log_prob(z).sum(), z)
    torch.testing.assert_close(truth(z.detach(), level).score(level), score)


# -------------------------------------------------------------------------------------------------------- bounds


def mean_bound(p: Distribution, x: Tensor, seed: int = 0) -> tuple[float, float]:
    """The mean of the estimates of log p(x) for one row, and its standard error."""
    estimates = tree.attach(p, noise(seed)).log_prob(x.expand(ROWS, -1))
    return float(estimates.mean()), float(estimates.std() / math.sqrt(ROWS))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_bound_is_the_density_for_every_prediction_and_schedule(name: str, schedule: str) -> None:
    """The output that says the truth, read by the prediction, gives log p(x) itself, up to the two ends."""
    prediction, made = PREDICTIONS[name](), SCHEDULES[schedule]()

    def denoiser(z: Tensor, features: Tensor | None, context: Tensor | None, level: Level) -> Guess:
        known = truth(z, level)
        return prediction.guess(target(prediction, known.x, known.eps, level), z, level)

    x = torch.tensor([0.3, 0.2, 1.4], dtype=torch.float64)
    found, error = mean_bound(density(denoiser, schedule=made), x)
    ends = 2e-3 + 1.5 * float(made.ends()[1].log_snr.exp())  # what the prior misses of the mean
    assert abs(found - float(Normal(MEAN, SPREAD).log_prob(x).sum())) < LIMIT * error + ends


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_a_discrete_bound_lies_below_the_density_and_rises_with_the_steps(variance: bounds.Variance) -> None:
    x, before = torch.tensor([0.3, 0.2, 1.4], dtype=torch.float64), -math.inf
    for steps in (5, 20, 1000):
        found, error = mean_bound(density(bound=bounds.DiscreteTime(steps=steps, variance=variance)), x)
        assert found < float(Normal(MEAN, SPREAD).log_prob(x).sum()) + LIMIT * error + 1e-3
        assert found > before
        before = found
    assert found > float(Normal(MEAN, SPREAD).log_prob(x).sum()) - LIMIT * error - 0.05


def test_a_learned_variance_is_between_and_its_best_is_better_than_both_ends() -> None:
    """The true variance of a step of Gaussian data is known; said by the model, it beats either end of the range."""
    schedule, steps = schedules.LogLinear(), 10

    def denoiser(z: Tensor, features: Tensor | None, context: Tensor | None, level: Level) -> Guess:
        guess, after = truth(z, level), schedule.level(level.t - 1 / steps).over(1)
        lost = bounds.lost_share(level, after)
        spread = SPREAD**2 * level.sigma**2 / ((level.alpha * SPREAD) ** 2 + level.sigma**2)  # of x given z
        variance = after.sigma**2 * lost + (after.alpha * lost) ** 2 * spread
        low, high = (after.sigma**2 * lost).log(), (level.sigma**2 * lost).log()
        return Guess(guess.x, guess.eps, ((variance.log() - low) / (high - low)).expand_as(z))

    mu, logvar = (torch.full(EVENT, value, dtype=torch.float64) for value in (MEAN, 2 * math.log(SPREAD)))
    x, _ = tree.draw(tree.diagonal_normal(mu, logvar, 1), noise(3))
    found = {}
    for variance in get_args(bounds.Variance):
        bound = bounds.DiscreteTime(steps=steps, variance=variance)
        found[variance] = float(tree.attach(density(denoiser, bound=bound), noise(4)).log_prob(x[0]).mean())
    assert found["learned"] > max(found["posterior"], found["forward"])


def test_the_lesson_of_the_variance_does_not_move_the_mean() -> None:
    table = {"kind": "diffusion", "bound": {"kind": "discrete", "steps": 50}, "network": {"kind": "mlp", "widths": [8]}}
    model = build_model(table, DataSpec((3,)), 0)
    evidence = model.evidence(torch.randn(6, 3), None, BatchNoise(0, 0, 6))
    evidence.penalties["variance"].mean().backward()
    grown = model.density.denoiser.network.layers[-1].weight.grad.abs().sum(dim=1)
    assert bool((grown[:3] == 0).all())
    assert bool((grown[3:] > 0).all())
    torch.testing.assert_close(evidence.penalties["variance"], evidence.reconstruction() - ends_of(model, evidence.x))


def ends_of(model: Any, x: Tensor) -> Tensor:
    first, last = model.density.process.schedule.ends()
    return (bounds.prior_nats(x, last) + bounds.decoding_nats(x, first))[None]


def test_times_of_the_samples_of_a_row_are_spread() -> None:
    p = tree.attach(density(), noise(0, 50))
    assert isinstance(p, DiffusionDensity)
    t = p.trial(torch.zeros(8, 50, 3, dtype=torch.float64)).level.t.reshape(8, 50).sort(dim=0).values
    torch.testing.assert_close(t.diff(dim=0), torch.full((7, 50), 1 / 8, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------- weightings


def test_weightings_are_what_they_are_named_for() -> None:
    schedule = schedules.Cosine()
    t = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)
    level, slope = schedule.level(t), schedule.slope(t)
    ratio = level.log_snr.exp()
    made = every(weightings.Weighting)
    noisy, v, pre = predictions.PredictNoise(), predictions.PredictV(), predictions.Preconditioned()
    torch.testing.assert_close(made["bound"](level, slope, noisy), -slope / 2)
    assert bool((made["simple"](level, slope, noisy) == 1).all())
    assert bool((made["target"](level, slope, noisy) == 1).all())
    torch.testing.assert_close(made["target"](level, slope, v), 1 + 1 / ratio)
    torch.testing.assert_close(made["min-snr"](level, slope, noisy), ratio.clamp(max=5) / ratio)
    # A log-normal noise level at unit weight of the output: the weights of the output's error integrate to 1.
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    exploding = schedules.Exploding()
    level, slope = exploding.level(t), exploding.slope(t)
    each = made["log-normal"](level, slope, pre) / pre.sharpness(level)
    assert float(torch.trapezoid(each, t)) == pytest.approx(1, abs=1e-4)


def test_training_is_weighted_and_the_bound_is_not() -> None:
    tables = [{"kind": "diffusion", "weighting": {"kind": kind}} for kind in ("bound", "simple", "min-snr")]
    models = [build_model(table, DataSpec((3,)), 0) for table in tables]
    found = [model.evidence(torch.full((6, 3), 0.5), None, BatchNoise(0, 0, 6)) for model in models]
    for one in found[1:]:
        assert torch.equal(one.elbo(), found[0].elbo())
        assert not torch.allclose(one.penalties["denoising"], found[0].penalties["denoising"])
    with pytest.raises(NotABoundError, match="estimate"):
        found[0].importance_bound()


# ------------------------------------------------------------------------------------------------------- samplers


def way(schedule: schedules.NoiseSchedule, z: Tensor, to: Level) -> Tensor:
    """Where the exact deterministic flow of Gaussian data leads from noise z at time 1."""
    start = schedule.ends()[1]
    spread = [((level.alpha * SPREAD) ** 2 + level.sigma**2).sqrt() for level in (start, to)]
    return to.alpha * MEAN + spread[1] / spread[0] * (z - start.alpha * MEAN)


ORDERS = {
    "ddim": (samplers.DDIM, 1),
    "dpm-solver": (samplers.DPMSolver, 2),
    "edm-heun": (samplers.EDMHeun, 2),
    "euler": (samplers.Euler, 1),
    "heun": (samplers.Heun, 2),
}


@pytest.mark.parametrize("schedule", [schedules.LogLinear(start=4.0, end=-4.0), schedules.Straight(margin=0.05)])
@pytest.mark.parametrize("name", ORDERS)
def test_a_sampler_converges_with_its_order(name: str, schedule: schedules.NoiseSchedule) -> None:
    make, order = ORDERS[name]
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].expand(-1, 3)
    tools = samplers.Tools(truth, schedule, lambda name: torch.zeros_like(z))
    errors = []
    for steps in (64, 128, 256):
        levels = levels_of(schedule, steps)
        errors.append(float((make().walk(z, levels, tools) - way(schedule, z, levels[-1])).abs().max()))
    rates = [math.log2(one / other) for one, other in zip(errors, errors[1:], strict=False)]
    assert rates[-1] == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("name", [*PARTS[samplers.Sampler]])
def test_draws_have_the_moments_of_the_data(name: str) -> None:
    if name == "renoise":
        pytest.skip("it is for models that expect the end of a way, not the mean")
    sampler = PARTS[samplers.Sampler][name]()
    steps = {"ancestral": 400, "langevin": 400}.get(name, 60)
    z, log_q = tree.draw(density(sampler=sampler, steps=steps), noise(3, 1), ROWS)
    assert bool(log_q.isnan().all())
    error = LIMIT * SPREAD / math.sqrt(ROWS)
    assert bool(((z.mean(dim=(0, 1)) - MEAN).abs() < error + 0.02).all())
    assert bool(((z.std(dim=(0, 1)) / SPREAD - 1).abs() < 0.07).all())


def test_churn_keeps_the_moments_and_changes_the_draw() -> None:
    p, churned = (density(sampler=samplers.EDMHeun(churn=churn), steps=60) for churn in (0.0, 0.3))
    (one, _), (other, _) = (tree.draw(each, noise(5, 1), ROWS) for each in (p, churned))
    assert not torch.allclose(one, other)
    assert float(other.std()) == pytest.approx(SPREAD, rel=0.05)


def test_the_ancestral_sampler_is_ddim_with_all_of_its_noise() -> None:
    ancestral, ddim = (density(sampler=s, steps=12) for s in (samplers.Ancestral(), samplers.DDIM(eta=1.0)))
    (one, _), (other, _) = (tree.draw(p, noise(5, 4), 3) for p in (ancestral, ddim))
    torch.testing.assert_close(one, other)


def test_euler_for_rows_that_keep_their_scale_is_ddim() -> None:
    schedule = schedules.LogLinear()
    z = torch.randn(5, 3, dtype=torch.float64)
    tools = samplers.Tools(truth, schedule, lambda name: torch.zeros_like(z))
    now, after = levels_of(schedule, 7)[2:4]
    row = z / now.alpha + (after.ratio - now.ratio) * truth(z, now).eps
    found = samplers.DDIM().step(samplers.Place(0, z, now), after, tools).z
    torch.testing.assert_close(found, after.alpha * row)


def test_all_end_with_what_is_expected() -> None:
    schedule = schedules.Cosine()
    z = torch.randn(5, 3, dtype=torch.float64)
    tools = samplers.Tools(truth, schedule, lambda name: torch.randn_like(z))
    last = schedule.ends()[0]
    for name, sampler in every(samplers.Sampler).items():
        found = sampler.walk(z, [last, samplers.CLEAN], tools)
        torch.testing.assert_close(found, truth(z, last).x, msg=name)


def test_a_model_with_a_learned_variance_draws_with_it() -> None:
    def denoiser(share: float) -> Callable[..., Guess]:
        return lambda z, h, c, level: Guess(truth(z, level).x, truth(z, level).eps, torch.full_like(z, share))

    ends = {0.0: "posterior", 1.0: "forward"}
    for share, kind in ends.items():
        learned = density(denoiser(share), steps=9)
        fixed = density(sampler=samplers.Ancestral(variance=kind), steps=9)  # type: ignore[arg-type]
        torch.testing.assert_close(tree.draw(learned, noise(1, 4))[0], tree.draw(fixed, noise(1, 4))[0])


# ------------------------------------------------------------------------------------------------------- guidance


def guided(scale: float, context: Tensor | None) -> DiffusionDensity:
    """N(c, SPREAD^2) given a context c with a flag, and N(0, SPREAD^2) without."""

    def denoiser(z: Tensor, features: Tensor | None, known: Tensor | None, level: Level) -> Guess:
        mean = 0.0 if known is None else (known[:, :1] * known[:, 1:]).expand_as(z)
        total = (level.alpha * SPREAD) ** 2 + level.sigma**2
        eps = level.sigma * (z - level.alpha * mean) / total
        return Guess((z - level.sigma * eps) / level.alpha, eps)

    return DiffusionDensity(None, context, denoiser, Process(EVENT, sampler=samplers.DDIM(), steps=80, guidance=scale))


def test_guidance_moves_the_mean_past_the_context_and_one_is_none() -> None:
    context = torch.tensor([[0.5, 1.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    draws = {scale: tree.draw(guided(scale, context), noise(2, 3), 500)[0] for scale in (0.0, 1.0, 3.0)}
    means = {scale: z.mean(dim=(0, 2)) for scale, z in draws.items()}
    c = torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)  # the last row's context is absent
    for scale, found in means.items():
        torch.testing.assert_close(found, scale * c, rtol=0, atol=0.08)
    calls = 0

    def counted(z: Tensor, features: Tensor | None, known: Tensor | None, level: Level) -> Guess:
        nonlocal calls
        calls += 1
        return truth(z, level)

    tree.draw(DiffusionDensity(None, context, counted, Process(EVENT, steps=5)), noise(2, 3))
    assert calls == 5, "a guidance of 1 costs nothing"


def test_guidance_without_a_context_is_refused() -> None:
    with pytest.raises(ShapeError, match="these data have none"):
        build_model({"kind": "diffusion", "guidance": 3.0}, DataSpec((3,)), 0)
    build_model({"kind": "diffusion", "guidance": 3.0}, DataSpec((3,), context=4), 0)


# --------------------------------------------------------------------------------------------------------- family


def test_each_row_sees_its_own_context_whatever_the_samples() -> None:
    table = {"kind": "diffusion", "network": {"kind": "mlp", "widths": [8]}}
    model = build_model(table, DataSpec((3,), context=4), 0)
    x, context = torch.randn(6, 3), Context.labels(torch.arange(6) % 4, 4)
    every_row = model.evidence(x, context, BatchNoise(0, 0, 6), 5).distortion
    other = model.evidence(x, Context.labels((torch.arange(6) + 1) % 4, 4), BatchNoise(0, 0, 6), 5).distortion
    assert every_row is not None
    assert other is not None
    assert every_row.shape == (5, 6)
    assert bool((every_row != other).all())
    with pytest.raises(ShapeError, match="conditional"):
        model.sample(RowNoise([1, 2]))


def test_the_scale_of_the_data_is_learned_and_kept_with_the_weights() -> None:
    model = build_model({"kind": "diffusion"}, DataSpec((2, 4, 4)), 0)
    raw = torch.randn(500, 2, 4, 4) * torch.tensor([3.0, 0.1])[:, None, None] + 5
    model.preparation.fit(raw)
    x = model.preparation.prepare(raw, None)
    assert bool((x.mean(dim=(0, 2, 3)).abs() < 1e-4).all())
    assert bool(((x.std(dim=(0, 2, 3)) - 1).abs() < 1e-3).all())
    assert {"scaling.mean", "scaling.scale"} <= model.state_dict().keys()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match="must fall"):
        schedules.LogLinear(start=-1.0, end=1.0)
    with pytest.raises(RecipeError, match="does not exist"):
        build_model({"kind": "diffusion", "sampler": {"kind": "ddmi"}}, DataSpec((3,)), 0)
    with pytest.raises(ShapeError, match="keeps the size"):
        resolve({"kind": "unet"}, PARTS[Network], "network", PARTS)[0](Ports((1, 8, 8), (1, 4, 4)))
    with pytest.raises(NotSupportedError, match="nothing"):
        build_objective({"kind": "penalties"}, build_model({"kind": "vae"}, DataSpec((1, 8, 8), 17), 0), 0)


def test_a_stack_counts_the_scale_that_its_second_stage_learned() -> None:
    """Codes that are 1,000 times as large have a density that is 1,000 times as small, for each of them."""
    first = build_model({"kind": "vae", "latent": 4}, DataSpec((1, 8, 8), 17), 0)
    for scale in (1.0, 1000.0):
        second = build_model({"kind": "diffusion"}, DataSpec((4,)), 0)
        second.preparation.scale.fill_(scale)  # type: ignore[operator, union-attr]
        second.preparation.mean.zero_()  # type: ignore[operator, union-attr]
        stack = Stack(first, second)
        x = stack.preparation.prepare(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), BatchNoise(0, 0, 6))
        evidence = stack.evidence(x, None, BatchNoise(0, 0, 6))
        z = evidence.latents["z"].z[0] / scale
        own = second.evidence(z, None, BatchNoise(0, 0, 6).child("second")).reconstruction()
        below = first.evidence(x, None, BatchNoise(0, 0, 6).child("first")).reconstruction()
        torch.testing.assert_close(evidence.reconstruction(), below + own + 4 * math.log(scale))


def test_a_second_stage_may_have_a_context_that_the_first_does_not_see() -> None:
    first = build_model({"kind": "vae", "latent": 4}, DataSpec((1, 8, 8), 17), 0)
    stack = Stack(first, build_model({"kind": "diffusion", "steps": 2}, DataSpec((4,), context=3), 0))
    context = Context.labels(torch.arange(3), 3)
    assert stack.data.context == 3
    assert tree.point(stack.sample(RowNoise([1, 2, 3]), context)).shape == (3, 1, 8, 8)
    one, other = (tree.point(stack.sample(RowNoise([1]), context.select(slice(k, k + 1)))) for k in (0, 1))
    assert not torch.allclose(one, other)


# ------------------------------------------------------------------------------------------------------------ use


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lowerbound.Run:
    """A run of labelled digits; nobody changes it."""
    settings = ["training.steps=2", "training.batch_size=8", "training.warmup_steps=0", "model.network.width=8"]
    recipe = lowerbound.read_recipe("digits-diffusion-conditional", settings)
    return lowerbound.train(recipe, tmp_path_factory.mktemp("run") / "run")


def test_how_a_model_is_used_can_be_chosen_when_it_is_used(run: lowerbound.Run) -> None:
    model = lowerbound.load(run.path, use=["sampler.kind=ddim", "sampler.eta=0.5", "steps=3", "guidance=1"])
    process = model.density.process  # type: ignore[union-attr]
    assert isinstance(process.sampler, samplers.DDIM)  # type: ignore[union-attr]
    assert (process.sampler.eta, process.steps, process.guidance) == (0.5, 3, 1)  # type: ignore[union-attr]
    for name, value in run.model().state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    known = Context.labels(torch.arange(2), 10)
    draws = [lowerbound.sample(lowerbound.load(run.path, use=[f"guidance={k}"]), 2, 0, known) for k in (1, 4)]
    assert not torch.equal(*draws)


def test_what_was_trained_cannot_be_set_in_use(run: lowerbound.Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"schedule.*only sampler, steps, guidance"):
        lowerbound.load(run.path, use=["schedule.kind=straight"])
    with pytest.raises(RecipeError, match="does not exist"):
        lowerbound.load(run.path, use=["sampler.kind=dim"])
    vae = lowerbound.train(lowerbound.read_recipe("digits", ["training.steps=2"]), tmp_path / "vae")
    with pytest.raises(UsageError, match="has none"):
        lowerbound.load(vae.path, use=["latent=3"])


def test_a_stack_is_used_as_its_second_stage_is(tmp_path: Path) -> None:
    vae = lowerbound.train(lowerbound.read_recipe("digits", ["training.steps=2"]), tmp_path / "vae")
    settings = ["training.steps=2", "training.batch_size=8", "training.warmup_steps=0", "model.steps=2"]
    recipe = lowerbound.read_recipe("digits-diffusion", [*settings, f'data={{kind="latents", run="{vae.path}"}}'])
    second = lowerbound.train(recipe, tmp_path / "second")
    assert lowerbound.sample(second.model(), 3).shape == (3, 16)
    both = lowerbound.stack_runs(second, tmp_path / "both")
    draws = [lowerbound.sample(lowerbound.load(both.path, use=[f"second.steps={steps}"]), 3) for steps in (2, 4)]
    assert draws[0].shape == (3, 1, 8, 8)
    assert not torch.equal(*draws)
    with pytest.raises(UsageError, match=r"only second\.sampler, second\.steps, second\.guidance"):
        lowerbound.load(both.path, use=["first.latent=3"])


def test_draws_of_whole_levels_are_whole() -> None:
    model = build_model({"kind": "diffusion", "steps": 2}, DataSpec((1, 4, 4), 17), 0)
    model.preparation.fit(torch.randint(17, (50, 1, 4, 4), dtype=torch.uint8))
    raw = torch.randint(17, (20, 1, 4, 4), dtype=torch.uint8)
    x = model.preparation.prepare(raw, BatchNoise(0, 0, 20))
    torch.testing.assert_close(model.preparation.restore(model.preparation.settle(x)), raw.float(), rtol=0, atol=1e-4)
    made = lowerbound.sample(model, 5)
    torch.testing.assert_close(made, made.round(), rtol=0, atol=1e-4)

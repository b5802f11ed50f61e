"""Samplers beside those of diffusers: the same network, levels and noise lead to the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lowerbound.model.distributions.diffusing import samplers, schedules
from lowerbound.model.distributions.diffusing.levels import CLEAN, Guess, Level
from lowerbound.model.distributions.diffusing.predictions import PredictNoise, PredictVelocity
from lowerbound.model.distributions.diffusing.spacings import EvenTime
from lowerbound.noise import generator

diffusers = pytest.importorskip("diffusers")
# Its schedulers make arrays in a way that NumPy 2 is to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, ROWS, UNITS = 28, 16, 5  # 27 divides 999, so that these times are whole numbers of Ho's thousand
TIMES = list(range(999, -1, -37))
STEEP = schedules.LinearBeta()


@pytest.fixture
def network() -> Callable[[Tensor, Tensor], Tensor]:
    """A fixed function of a noisy row at unit scale and of the time in [0, 1]."""
    source = generator(5)
    one, other = torch.randn(UNITS + 1, 32, generator=source), torch.randn(32, UNITS, generator=source) / 6

    def apply(z: Tensor, t: Tensor) -> Tensor:
        made: Tensor = torch.tanh(torch.cat([z.float(), t.float().expand(len(z))[:, None]], 1) @ one) @ other
        return made

    return apply


def draws(seed: int) -> Callable[[], Tensor]:
    source = generator(seed)
    return lambda: torch.randn(ROWS, UNITS, generator=source)


START = draws(0)()


def ours(
    sampler: samplers.Sampler,
    network: Callable[[Tensor, Tensor], Tensor],
    schedule: schedules.NoiseSchedule = STEEP,
    prediction: Any = PredictNoise(),
) -> Tensor:
    """Rows from the same start; `prediction` reads the network's output."""

    def denoise(z: Tensor, level: Level) -> Guess:
        found: Guess = prediction.guess(network(z, level.t), z, level)
        return found

    fresh = draws(7)
    levels = [*EvenTime()(schedule, STEPS), CLEAN]
    start = START if isinstance(schedule, schedules.Straight) else levels[0].norm.float() * START
    return sampler.walk(start, levels, samplers.Tools(denoise, schedule, lambda name: fresh()))


def theirs(scheduler: Any, network: Callable[[Tensor, Tensor], Tensor], last: int = 999, **settings: Any) -> Tensor:
    """Rows by a scheduler whose timesteps are set."""
    z = START.clone() * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(z, t), torch.as_tensor(t) / last)
        z = scheduler.step(output, t, z, return_dict=False, **settings)[0]
    return z


def assert_equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one.float(), other.float(), rtol=1e-4, atol=1e-4)


def fewer_steps() -> np.ndarray:
    """Variances of 28 steps that end at the same levels."""
    kept = EvenTime()(STEEP, STEPS)
    alphas = torch.stack([level.alpha for level in kept]).flip(0).square()
    return (1 - alphas / torch.cat([torch.ones(1), alphas[:-1]])).numpy()


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_ancestral_is_ddpm(network: Callable[[Tensor, Tensor], Tensor], variance: Any) -> None:
    kind = {"posterior": "fixed_small", "forward": "fixed_large"}[variance]
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type=kind)
    scheduler.set_timesteps(timesteps=TIMES)
    expected = theirs(scheduler, network, generator=generator(7))
    assert_equal(ours(samplers.Ancestral(variance=variance), network), expected)


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_is_ddim(network: Callable[[Tensor, Tensor], Tensor], eta: float) -> None:
    scheduler = diffusers.DDIMScheduler(STEPS, trained_betas=fewer_steps(), clip_sample=False)
    scheduler.set_timesteps(STEPS)
    expected = theirs(scheduler, network, STEPS - 1, eta=eta, generator=generator(7))
    assert_equal(ours(samplers.DDIM(eta=eta), network), expected)


def test_dpm_solver_is_dpm_solver_plus_plus_2m(network: Callable[[Tensor, Tensor], Tensor]) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler()
    scheduler.set_timesteps(timesteps=TIMES)
    assert_equal(ours(samplers.DPMSolver(), network), theirs(scheduler, network))


def test_edm_heun_is_heun(network: Callable[[Tensor, Tensor], Tensor]) -> None:
    scheduler = diffusers.HeunDiscreteScheduler(beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(STEPS)
    first = STEEP.ends()[1]
    z = START * float(first.norm / first.alpha)
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(z, t), torch.as_tensor(t) / 999)
        z = scheduler.step(output, t, z, return_dict=False)[0]
    assert_equal(ours(samplers.EDMHeun(spacing=EvenTime()), network), z)


def test_euler_is_the_flow_matching_scheduler(network: Callable[[Tensor, Tensor], Tensor]) -> None:
    schedule = schedules.Straight()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=[float(level.sigma) for level in EvenTime()(schedule, STEPS)])
    z = START.clone()
    for level, t in zip(EvenTime()(schedule, STEPS), scheduler.timesteps, strict=True):
        z = scheduler.step(network(z, level.t), t, z, return_dict=False)[0]
    assert_equal(ours(samplers.Euler(), network, schedule, PredictVelocity()), z)

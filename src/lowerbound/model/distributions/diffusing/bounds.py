"""The bound of a diffusion model on log p(x), estimated at a random time: in continuous time, or of so many steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from lowerbound.errors import RecipeError
from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.distributions.diffusing.schedules import NoiseSchedule
from lowerbound.model.spec import Count

Variance = Literal["posterior", "forward", "learned"]


@dataclass(frozen=True)
class Trial:
    """One attempt to denoise each of N rows.

    Attributes:
        x, eps: the rows and the standard noise put in, (N, *event).
        level: of the noise, one for each row.
        guess: what the denoiser says.
    """

    x: Tensor
    eps: Tensor
    level: Level
    guess: Guess

    def error(self) -> Tensor:
        """||eps - eps_hat||^2 of each row, (N,)."""
        return (self.eps - self.guess.eps).square().flatten(1).sum(1)


class Bound(ABC):
    """What all steps of the way back cost together, estimated from one of them; the two ends are the same for all.

    Attributes:
        channels: outputs of the network for each channel of a row.
    """

    channels: int = 1

    def times(self, uniform: Tensor) -> Tensor:
        """Times to try at, of numbers uniform in [0, 1)."""
        return uniform

    @abstractmethod
    def steps_nats(self, trial: Trial, schedule: NoiseSchedule) -> Tensor:
        """An unbiased estimate of the cost of all steps, (N,), nats."""

    def penalties(self, trial: Trial, schedule: NoiseSchedule) -> dict[str, Tensor]:
        """What is to be learned beside the denoising, by name, (N,); nothing for most."""
        return {}


@final
class ContinuousTime(Bound):
    """Infinitely many steps: 1/2 E[-dlogSNR/dt ||eps - eps_hat||^2] (Kingma et al. 2021, eq. 17)."""

    def steps_nats(self, trial: Trial, schedule: NoiseSchedule) -> Tensor:
        return -0.5 * schedule.slope(trial.level.t) * trial.error()


@final
class DiscreteTime(Bound):
    """So many Gaussian steps (Ho et al. 2020, eq. 5), of a fixed variance or of a learned one.

    The variance of a step lies between that of q(z_s|z_t, x) and that of q(z_t|z_s). A learned one is an interpolation
    of their logarithms, learned from the bound with the mean held fixed (Nichol & Dhariwal 2021, eq. 15-16), which is
    the penalty `variance`; they weigh it with 0.001.

    Args:
        steps: how many.
        variance: "posterior" and "forward" are the two ends, "learned" doubles the network's outputs.
    """

    def __init__(self, *, steps: Count = 1000, variance: Variance = "learned") -> None:
        if steps < 2:
            raise RecipeError("a diffusion model has two steps at least; give more.")
        self.steps, self.variance = steps, variance
        self.channels = 2 if variance == "learned" else 1

    def times(self, uniform: Tensor) -> Tensor:
        return ((uniform * self.steps).floor() + 1) / self.steps

    def steps_nats(self, trial: Trial, schedule: NoiseSchedule) -> Tensor:
        now = trial.level
        after = schedule.level(now.t - 1 / self.steps).over(trial.x.ndim - 1)
        lost = lost_share(now, after)
        exact = (after.sigma.square() * lost).log()
        chosen = log_variance(now, after, lost, self.variance, trial.guess.blend)
        shift = after.alpha * lost * (trial.x - trial.guess.x)
        gap = chosen - exact
        costs = 0.5 * (gap + torch.expm1(-gap) + shift.square() * (-chosen).exp())
        return self.steps * costs.flatten(1).sum(1)

    def penalties(self, trial: Trial, schedule: NoiseSchedule) -> dict[str, Tensor]:
        if self.variance != "learned":
            return {}
        held = replace(trial.guess, x=trial.guess.x.detach(), eps=trial.guess.eps.detach())
        return {"variance": self.steps_nats(replace(trial, guess=held), schedule)}


def lost_share(now: Level, after: Level) -> Tensor:
    """Share of the precision about x that a step from `after` (less noise) to `now` loses: 1 - SNR_now / SNR_after."""
    return -torch.expm1(now.log_snr - after.log_snr)


def log_variance(now: Level, after: Level, lost: Tensor, kind: Variance, blend: Tensor | None) -> Tensor:
    """Log variance of the step from `now` to `after`; a learned one is `blend` of the way from posterior to forward."""
    low, high = (after.sigma.square() * lost).log(), (now.sigma.square() * lost).log()
    if kind == "learned":
        assert blend is not None
        return low + blend * (high - low)
    return low if kind == "posterior" else high


def prior_nats(x: Tensor, last: Level) -> Tensor:
    """KL(q(z_1|x), N(0, alpha^2 + sigma^2)) of rows (N, *event), (N,), nats."""
    alpha2, sigma2 = float(last.alpha) ** 2, float(last.sigma) ** 2
    total = alpha2 + sigma2
    each = 0.5 * ((alpha2 * x.square() + sigma2) / total - 1 - math.log(sigma2 / total))
    return each.flatten(1).sum(1)


def decoding_nats(x: Tensor, first: Level) -> Tensor:
    """-E log N(x; z_0 / alpha_0, (sigma_0 / alpha_0)^2), the entropy of the noise left at t = 0, (N,), nats."""
    each = 0.5 * (1 + math.log(2 * math.pi) - float(first.log_snr))
    return x.new_full((x.shape[0],), each * (x[0].numel() if len(x) else 0))

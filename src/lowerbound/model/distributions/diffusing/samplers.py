"""Samplers: ways from noise to a row, given a denoiser. Each is one step; the walk over levels is the same for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lowerbound.model.distributions.diffusing.bounds import Variance, log_variance, lost_share
from lowerbound.model.distributions.diffusing.levels import CLEAN, Guess, Level
from lowerbound.model.distributions.diffusing.schedules import NoiseSchedule
from lowerbound.model.distributions.diffusing.spacings import EvenRatio, EvenTime, Polynomial, Spacing, Trailing
from lowerbound.model.spec import Count, Fraction, Positive, Share

Denoise = Callable[[Tensor, Level], Guess]


@dataclass(frozen=True)
class Tools:
    """What a sampler may use.

    Attributes:
        denoise: what the model says of noisy rows (N, *event) at a level.
        schedule: of the noise.
        normal: standard noise of the shape of the rows, by the name of a draw.
    """

    denoise: Denoise
    schedule: NoiseSchedule
    normal: Callable[[str], Tensor]


@dataclass(frozen=True)
class Place:
    """Where a walk stands.

    Attributes:
        number: steps taken.
        z: noisy rows, (N, *event).
        level: of their noise.
        before: the level before and the clean rows that were expected there; None at the start.
    """

    number: int
    z: Tensor
    level: Level
    before: tuple[Level, Tensor] | None = None

    def to(self, z: Tensor, level: Level, expected: Tensor | None = None) -> Place:
        """One step on, with what was expected here."""
        return Place(self.number + 1, z, level, None if expected is None else (self.level, expected))


class Sampler(ABC):
    """A way from noise at time 1 to a row: one step from a level to the next, and where the levels lie.

    The last step leads from the least noise to none; there, all samplers return what the denoiser expects.

    Attributes:
        calls: of the denoiser for a step.
    """

    calls: int = 1

    def __init__(self, spacing: Spacing) -> None:
        self.spacing = spacing

    @abstractmethod
    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        """From a level to one with less noise."""

    def walk(self, z: Tensor, levels: Sequence[Level], tools: Tools) -> Tensor:
        """Noisy rows z at the first level to the last one."""
        place = Place(0, z, levels[0])
        for after in levels[1:]:
            place = self.step(place, after, tools)
        return place.z

    def __call__(self, z: Tensor, steps: int, tools: Tools) -> Tensor:
        """Noise at time 1, (N, *event), to rows, in so many steps."""
        return self.walk(z, [*self.spacing(tools.schedule, steps), CLEAN], tools)


@final
class Ancestral(Sampler):
    """Draws from p(z_s|z_t), step by step (Ho et al. 2020, algorithm 2; Kingma et al. 2021, eq. 32-34).

    A variance that the model learned is used; `variance` is for models that learned none.

    Args:
        variance: that of q(z_s|z_t, x), "posterior", or of q(z_t|z_s), "forward".
        spacing: of the steps.
    """

    def __init__(self, *, variance: Variance = "posterior", spacing: Spacing = EvenTime()) -> None:
        super().__init__(spacing)
        self.variance = variance

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        now, guess = place.level, tools.denoise(place.z, place.level)
        if not after.sigma:
            return place.to(guess.x, after)
        lost = lost_share(now, after)
        kept = after.alpha / now.alpha * (1 - lost)
        mean = kept * place.z + after.alpha * lost * guess.x
        kind: Variance = self.variance if guess.blend is None else "learned"
        spread = (0.5 * log_variance(now, after, lost, kind, guess.blend)).exp()
        return place.to(mean + spread * tools.normal(f"step{place.number}"), after)


@final
class DDIM(Sampler):
    """A deterministic way with the same levels (Song et al. 2021, "Denoising diffusion implicit models", eq. 12).

    Args:
        eta: share of the ancestral sampler's noise; 1 is that sampler.
        spacing: of the steps.
    """

    def __init__(self, *, eta: Fraction = 0.0, spacing: Spacing = EvenTime()) -> None:
        super().__init__(spacing)
        self.eta = eta

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        guess = tools.denoise(place.z, place.level)
        fresh2 = self.eta**2 * after.sigma.square() * lost_share(place.level, after)
        z = after.alpha * guess.x + (after.sigma.square() - fresh2).clamp(min=0).sqrt() * guess.eps
        if self.eta and after.sigma:
            z = z + fresh2.sqrt() * tools.normal(f"step{place.number}")
        return place.to(z, after)


@final
class DPMSolver(Sampler):
    """DPM-Solver++(2M): second order from one call a step (Lu et al. 2022, "DPM-Solver++", algorithm 2).

    The first step and the last are of first order.

    Args:
        spacing: of the steps.
    """

    def __init__(self, *, spacing: Spacing = EvenRatio()) -> None:
        super().__init__(spacing)

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        now, x = place.level, tools.denoise(place.z, place.level).x
        expected = x
        if place.before is not None and after.sigma:
            earlier, x_before = place.before
            share = (after.log_snr - now.log_snr) / (now.log_snr - earlier.log_snr)
            expected = x + 0.5 * share * (x - x_before)
        shrunk = after.sigma / now.sigma
        gain = after.alpha - shrunk * now.alpha
        return place.to(shrunk * place.z + gain * expected, after, x)


@final
class EDMHeun(Sampler):
    """Heun's method for z / alpha over sigma / alpha, with churn (Karras et al. 2022, algorithms 1 and 2).

    Args:
        churn: share by which the noise level is raised before a step, by fresh noise; 0 is deterministic. Karras et
            al. write S_churn / N for it and allow 0.414 at most.
        low, high: noise levels sigma / alpha between which there is churn.
        swell: factor of the standard deviation of the fresh noise.
        spacing: of the steps.
    """

    calls = 2

    def __init__(
        self,
        *,
        churn: Share = 0.0,
        low: float = 0.0,
        high: float = 1e9,
        swell: Positive = 1.0,
        spacing: Spacing = Polynomial(),
    ) -> None:
        super().__init__(spacing)
        self.churn, self.low, self.high, self.swell = churn, low, high, swell

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        z, now = self._churned(place, tools)
        eps = tools.denoise(z, now).eps
        row, move = z / now.alpha, after.ratio - now.ratio
        reached = after.alpha * (row + move * eps)
        if after.sigma:
            eps = 0.5 * (eps + tools.denoise(reached, after).eps)
            reached = after.alpha * (row + move * eps)
        return place.to(reached, after)

    def _churned(self, place: Place, tools: Tools) -> tuple[Tensor, Level]:
        """The place with fresh noise, no more than there is at time 1."""
        now = place.level
        most = tools.schedule.ends()[1].ratio if self.churn else now.ratio
        ratio = torch.minimum((1 + self.churn) * now.ratio, most)
        if not (self.churn and self.low <= now.ratio <= self.high and ratio > now.ratio):
            return place.z, now
        noisier = tools.schedule.at(-2 * ratio.log())
        fresh = self.swell * (ratio.square() - now.ratio.square()).sqrt() * tools.normal(f"step{place.number}")
        return noisier.alpha * (place.z / now.alpha + fresh), noisier


@final
class Euler(Sampler):
    """Euler's method for the flow along straight ways, from noise to rows (Liu et al. 2023, section 2.2).

    Args:
        spacing: of the steps.
    """

    def __init__(self, *, spacing: Spacing = EvenTime()) -> None:
        super().__init__(spacing)

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        guess = tools.denoise(place.z, place.level)
        return place.to(_straight(place, after, guess.eps - guess.x), after)


@final
class Heun(Sampler):
    """Heun's method for the flow along straight ways: two calls a step, second order.

    Args:
        spacing: of the steps.
    """

    calls = 2

    def __init__(self, *, spacing: Spacing = EvenTime()) -> None:
        super().__init__(spacing)

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        first = tools.denoise(place.z, place.level)
        velocity = first.eps - first.x
        reached = _straight(place, after, velocity)
        if after.sigma:
            second = tools.denoise(reached, after)
            reached = _straight(place, after, 0.5 * (velocity + second.eps - second.x))
        return place.to(reached, after)


def _straight(place: Place, after: Level, velocity: Tensor) -> Tensor:
    """A step along the straight way: any schedule's z / (alpha + sigma) is a mixture of row and noise in proportion."""
    now = place.level
    (total, share), (total_after, share_after) = ((each.alpha + each.sigma, _share(each)) for each in (now, after))
    return total_after * (place.z / total + (share_after - share) * velocity)


def _share(level: Level) -> Tensor:
    return level.sigma / (level.alpha + level.sigma)


@final
class Langevin(Sampler):
    """Annealed Langevin dynamics: walks along the score at each level of noise (Song & Ermon 2019, algorithm 1).

    It needs many levels: the noise must fall by little from one to the next.

    Args:
        moves: at each level.
        pace: of a move, in variances of the level's noise.
        spacing: of the levels.
    """

    def __init__(self, *, moves: Count = 5, pace: Positive = 0.1, spacing: Spacing = EvenRatio()) -> None:
        super().__init__(spacing)
        self.moves, self.pace, self.calls = moves, pace, moves

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        z, level = place.z, place.level
        if not after.sigma:
            return place.to(tools.denoise(z, level).x, after)
        reach = self.pace * level.sigma.square()
        for move in range(self.moves):
            score = tools.denoise(z, level).score(level)
            z = z + reach * score + (2 * reach).sqrt() * tools.normal(f"step{place.number}-{move}")
        return place.to(after.alpha / level.alpha * z, after)


@final
class Renoise(Sampler):
    """Expects a row and puts fresh noise of the next level into it: for consistency models (Song et al. 2023, alg. 1).

    Args:
        spacing: of the levels.
    """

    def __init__(self, *, spacing: Spacing = Trailing()) -> None:
        super().__init__(spacing)

    def step(self, place: Place, after: Level, tools: Tools) -> Place:
        x = tools.denoise(place.z, place.level).x
        if not after.sigma:
            return place.to(x, after)
        return place.to(after.noised(x, tools.normal(f"step{place.number}")), after)

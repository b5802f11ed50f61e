"""What a diffusion model that needs many steps teaches one that shall need few."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lowerbound.model.distributions.diffusing.levels import CLEAN, Guess, Level
from lowerbound.model.distributions.diffusing.samplers import DDIM, Denoise, Renoise, Sampler
from lowerbound.model.distributions.diffusing.schedules import NoiseSchedule
from lowerbound.model.distributions.diffusing.spacings import EvenRatio, Spacing, Trailing
from lowerbound.model.spec import Count


@dataclass(frozen=True)
class Class:
    """Who is taught what.

    Attributes:
        x, eps: rows and standard noise, (N, *event).
        uniform: a uniform number for each row, (N,).
        student, teacher: what they say of noisy rows.
        schedule: of the noise.
    """

    x: Tensor
    eps: Tensor
    uniform: Tensor
    student: Denoise
    teacher: Denoise
    schedule: NoiseSchedule

    def some(self, levels: list[Level], stride: int = 1) -> list[Level]:
        """For each row a run of 1 + `stride` levels of a list, from a place that is a multiple of `stride`."""
        tables = [
            torch.stack([getattr(level, name).double() for level in levels]).to(self.x)
            for name in ("t", "alpha", "sigma")
        ]
        start = stride * (self.uniform * ((len(levels) - 1) // stride)).long()
        runs = ([table[start + number] for table in tables] for number in range(1 + stride))
        return [Level(*values).over(self.x.ndim - 1) for values in runs]


class Lesson(ABC):
    """An error of the student, and how rows are drawn from it.

    Attributes:
        sampler, steps: of the student.
    """

    sampler: Sampler
    steps: int

    @abstractmethod
    def error(self, given: Class) -> Tensor:
        """How far the student is from what the teacher says, (N,)."""


@final
class Progressive(Lesson):
    """One step of the student is two of the teacher (Salimans & Ho 2022, algorithm 2), by DDIM.

    A chain of runs, each started from the one before, leads from many steps to few: 16, 8, 4.

    Args:
        steps: of the student; the teacher takes twice as many.
    """

    def __init__(self, *, steps: Count = 8) -> None:
        self.steps, self.sampler = steps, DDIM(spacing=Trailing())

    def error(self, given: Class) -> Tensor:
        levels = [*Trailing()(given.schedule, 2 * self.steps), CLEAN]
        now, between, after = given.some(levels, stride=2)
        z = now.noised(given.x, given.eps)
        with torch.no_grad():
            halfway = _jump(given.teacher(z, now), between)
            reached = _jump(given.teacher(halfway, between), after)
            shrunk = after.sigma / now.sigma
            aim = (reached - shrunk * z) / (after.alpha - shrunk * now.alpha)
        weight = now.ratio.square().reciprocal().clamp(min=1.0)  # (Salimans & Ho 2022, eq. 9)
        return (weight * (given.student(z, now).x - aim).square()).flatten(1).sum(1)


@final
class Consistency(Lesson):
    """The student expects the same row at two neighbouring levels of the teacher's way (Song et al. 2023, algorithm 2).

    The error is a pseudo-Huber distance of the two, and what is expected at the lower level is held fixed (Song &
    Dhariwal 2024, section 3). A row without noise is expected to be itself.

    Args:
        levels: of the way: more are closer to it, and take longer to learn.
        spacing: of the levels.
        steps: of the student when it draws: one, or a few with fresh noise between.
    """

    def __init__(self, *, levels: Count = 40, spacing: Spacing = EvenRatio(), steps: Count = 1) -> None:
        self.levels, self.spacing, self.steps, self.sampler = levels, spacing, steps, Renoise()

    def error(self, given: Class) -> Tensor:
        now, after = given.some([*self.spacing(given.schedule, self.levels), CLEAN])
        z = now.noised(given.x, given.eps)
        with torch.no_grad():
            reached = _jump(given.teacher(z, now), after)
            expected = given.student(reached, after).x
            aim = torch.where(after.sigma > 0, expected, reached)
        scale = 0.00054 * math.sqrt(z[0].numel())
        squares = (given.student(z, now).x - aim).square().flatten(1).sum(1)
        return (squares + scale**2).sqrt() - scale


def _jump(guess: Guess, after: Level) -> Tensor:
    """Where a step of DDIM leads."""
    return after.noised(guess.x, guess.eps)

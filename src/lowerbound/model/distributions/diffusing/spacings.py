"""Where the steps of a sampler lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch

from lowerbound.model.distributions.diffusing.levels import Level
from lowerbound.model.distributions.diffusing.schedules import NoiseSchedule
from lowerbound.model.spec import Positive


class Spacing(ABC):
    """The levels of noise that a sampler visits, from time 1 to time 0."""

    @abstractmethod
    def times(self, schedule: NoiseSchedule, shares: torch.Tensor) -> torch.Tensor:
        """Times at shares of the way, both in [0, 1]."""

    def __call__(self, schedule: NoiseSchedule, steps: int) -> list[Level]:
        """`steps` levels, each with numbers in double precision; one alone is that of time 1."""
        shares = torch.linspace(0, 1, steps, dtype=torch.float64)
        times = self.times(schedule, shares).clamp(0, 1)
        return [schedule.level(t) for t in times]


@final
class EvenTime(Spacing):
    """As the schedule has it."""

    def times(self, schedule: NoiseSchedule, shares: torch.Tensor) -> torch.Tensor:
        return 1 - shares


@final
class EvenRatio(Spacing):
    """Even in the log signal-to-noise ratio (Lu et al. 2022, section 5)."""

    def times(self, schedule: NoiseSchedule, shares: torch.Tensor) -> torch.Tensor:
        first, last = schedule.ends()
        return schedule.time(last.log_snr + shares * (first.log_snr - last.log_snr))


@final
class Polynomial(Spacing):
    """(sigma / alpha)^(1 / rho) falls evenly: more steps where there is little noise (Karras et al. 2022, eq. 5).

    Args:
        rho: 1 is even in sigma / alpha.
    """

    def __init__(self, *, rho: Positive = 7.0) -> None:
        self.rho = rho

    def times(self, schedule: NoiseSchedule, shares: torch.Tensor) -> torch.Tensor:
        first, last = schedule.ends()
        low, high = first.ratio ** (1 / self.rho), last.ratio ** (1 / self.rho)
        return schedule.time(-2 * self.rho * (high + shares * (low - high)).log())


@final
class Trailing(Spacing):
    """1, 1 - 1/N, ..., 1/N: the last step is as long as the others. For few steps (Salimans & Ho 2022, algorithm 2)."""

    def times(self, schedule: NoiseSchedule, shares: torch.Tensor) -> torch.Tensor:
        return 1 - shares * (len(shares) - 1) / len(shares)

"""Noise schedules: how much noise there is at a time between 0 (almost none) and 1 (almost nothing else)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from lowerbound.errors import RecipeError
from lowerbound.model.distributions.diffusing.levels import Level
from lowerbound.model.spec import Count, Positive


class NoiseSchedule(ABC):
    """The log signal-to-noise ratio at each time, and the scales of a row and of its noise at such a ratio.

    The bound of a diffusion model depends on the ratios at the two ends only (Kingma et al. 2021, section 5.1), so
    that schedules differ in what is learned first, in the variance of the estimate, and in how samplers step.
    """

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times in [0, 1], of the same shape; falling."""

    @abstractmethod
    def slope(self, t: Tensor) -> Tensor:
        """Derivative of `log_snr` by the time, of the same shape; negative."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time of a log signal-to-noise ratio: the inverse of `log_snr`."""

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at a log signal-to-noise ratio; here alpha^2 + sigma^2 = 1: the variance is preserved."""
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()

    def level(self, t: Tensor) -> Level:
        """The levels of noise at times."""
        return Level(t, *self.scales(self.log_snr(t)))

    def at(self, log_snr: Tensor) -> Level:
        """The levels of noise at log signal-to-noise ratios."""
        return Level(self.time(log_snr), *self.scales(log_snr))

    def ends(self) -> tuple[Level, Level]:
        """The levels at times 0 and 1, in double precision."""
        start, end = (self.level(torch.tensor(t, dtype=torch.float64)) for t in (0.0, 1.0))
        return start, end


def _falling(start: float, end: float) -> None:
    """Refuse ends between which the signal-to-noise ratio does not fall."""
    if not start > end:
        raise RecipeError(
            f"a noise schedule goes from log signal-to-noise ratio {start:g} at time 0 to {end:g} at time 1, but it "
            "must fall; give a start above its end."
        )


@final
class LogLinear(NoiseSchedule):
    """The log signal-to-noise ratio falls linearly (Kingma et al. 2021), the variance is preserved.

    Args:
        start, end: log signal-to-noise ratio at t = 0 and t = 1.
    """

    def __init__(self, *, start: float = 10.0, end: float = -10.0) -> None:
        _falling(start, end)
        self.start, self.end = start, end

    def log_snr(self, t: Tensor) -> Tensor:
        return self.start + t * (self.end - self.start)

    def slope(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.end - self.start)

    def time(self, log_snr: Tensor) -> Tensor:
        return (log_snr - self.start) / (self.end - self.start)


@final
class Cosine(NoiseSchedule):
    """alpha = cos a, sigma = sin a with a linear in time (Nichol & Dhariwal 2021, eq. 17, cut at two ratios instead).

    Args:
        start, end: log signal-to-noise ratio at t = 0 and t = 1.
    """

    def __init__(self, *, start: float = 10.0, end: float = -10.0) -> None:
        _falling(start, end)
        self.first, self.last = (math.atan(math.exp(-0.5 * ratio)) for ratio in (start, end))

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * self._angle(t).tan().log()

    def slope(self, t: Tensor) -> Tensor:
        return -4 * (self.last - self.first) / (2 * self._angle(t)).sin()

    def time(self, log_snr: Tensor) -> Tensor:
        return ((-0.5 * log_snr).exp().atan() - self.first) / (self.last - self.first)

    def _angle(self, t: Tensor) -> Tensor:
        return self.first + t * (self.last - self.first)


@final
class LinearBeta(NoiseSchedule):
    """The schedule of Ho et al. 2020: variances of `steps` small steps that grow linearly, joined to a continuous one.

    At time i / (steps - 1) the ratio is that after step i + 1; between, its logarithm is linear.

    Args:
        first, last: variance of the first and the last step.
        steps: how many.
    """

    def __init__(self, *, first: Positive = 1e-4, last: Positive = 0.02, steps: Count = 1000) -> None:
        if steps < 2 or not first < 1 or not last < 1:
            raise RecipeError(
                f"the noise schedule has {steps} steps with variances from {first:g} to {last:g}; give at least two "
                "steps, with variances below 1."
            )
        kept = torch.log1p(-torch.linspace(first, last, steps, dtype=torch.float64)).cumsum(0)
        self.table = kept - (-torch.expm1(kept)).log()

    def log_snr(self, t: Tensor) -> Tensor:
        place, table = t * (len(self.table) - 1), self.table.to(t)
        below = self._below(place)
        return table[below] + (place - below) * (table[below + 1] - table[below])

    def slope(self, t: Tensor) -> Tensor:
        last, table = len(self.table) - 1, self.table.to(t)
        below = self._below(t * last)
        return (table[below + 1] - table[below]) * last

    def time(self, log_snr: Tensor) -> Tensor:
        table = self.table.to(log_snr)
        above = torch.searchsorted(-table, -log_snr.contiguous()).clamp(1, len(table) - 1)
        share = (log_snr - table[above - 1]) / (table[above] - table[above - 1])
        return (above - 1 + share) / (len(table) - 1)

    def _below(self, place: Tensor) -> Tensor:
        return place.detach().floor().long().clamp(0, len(self.table) - 2)


@final
class Exploding(NoiseSchedule):
    """Rows keep their scale, and the noise grows geometrically: alpha = 1 (Song & Ermon 2019; Karras et al. 2022).

    Args:
        smallest, largest: standard deviation of the noise at t = 0 and t = 1, where that of the data is about 1.
    """

    def __init__(self, *, smallest: Positive = 0.002, largest: Positive = 80.0) -> None:
        _falling(-2 * math.log(smallest), -2 * math.log(largest))
        self.start, self.end = -2 * math.log(smallest), -2 * math.log(largest)

    def log_snr(self, t: Tensor) -> Tensor:
        return self.start + t * (self.end - self.start)

    def slope(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.end - self.start)

    def time(self, log_snr: Tensor) -> Tensor:
        return (log_snr - self.start) / (self.end - self.start)

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), (-0.5 * log_snr).exp()


@final
class Straight(NoiseSchedule):
    """Rows and noise are mixed in proportion to time: alpha + sigma = 1 (Liu et al. 2023; Lipman et al. 2023).

    Args:
        margin: share of the noise at t = 0, and of the row at t = 1.
    """

    def __init__(self, *, margin: Positive = 1e-3) -> None:
        _falling(1 - margin, margin)
        self.margin = margin

    def log_snr(self, t: Tensor) -> Tensor:
        share = self._share(t)
        return 2 * (torch.log1p(-share) - share.log())

    def slope(self, t: Tensor) -> Tensor:
        share = self._share(t)
        return -2 * (1 - 2 * self.margin) / (share * (1 - share))

    def time(self, log_snr: Tensor) -> Tensor:
        return (torch.sigmoid(-0.5 * log_snr) - self.margin) / (1 - 2 * self.margin)

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(0.5 * log_snr), torch.sigmoid(-0.5 * log_snr)

    def _share(self, t: Tensor) -> Tensor:
        return self.margin + t * (1 - 2 * self.margin)

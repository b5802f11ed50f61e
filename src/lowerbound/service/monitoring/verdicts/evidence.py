"""Evidence about a mean that one may look at after every value.

Evidence against "the mean is at most m" is the wealth of a gambler who bets against it: under that hypothesis it
exceeds 1 / alpha with a probability of at most alpha, ever (Ville's inequality). All logarithms are natural.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr

from lowerbound.errors import DataError

Array = NDArray[Any]

# Shares of the largest bet that cannot lose everything. Bets of all sizes are held side by side, so that none must be
# chosen before the data are seen.
SHARES = 0.9 * 2.0 ** (-0.75 * np.arange(12))
POINTS = 129  # of the grid on which the confidence sequence is drawn
BEND = 5.0  # the grid is denser near the margin by about this factor
HORIZON = 300  # values at which the normal mixture is tightest
LEAST = 100  # values below which the normal mixture says nothing: it holds asymptotically


@dataclass(frozen=True)
class Standing:
    """What a stream of values says about its mean so far.

    Attributes:
        n: values.
        mean: of the values, NaN without any.
        lower, upper: confidence sequence: each holds for all times with its own error.
        worse: log evidence that the mean is above the margin, the most there ever was.
        fine: log evidence that it is below.
        needs_worse, needs_fine: values until the evidence is enough if all goes on as it did; None if it never is.
    """

    n: int
    mean: float
    lower: float
    upper: float
    worse: float
    fine: float
    needs_worse: int | None
    needs_fine: int | None


class Evidence(ABC):
    """A stream of values in [-bound, bound] and what it says about its mean; larger is worse.

    Args:
        margin: that the mean is compared with.
        bound: values beyond it are clipped.
        level_worse: probability of ever claiming that the mean is above the margin, where it is not.
        level_fine: probability of ever claiming that it is below, where it is not.
    """

    def __init__(self, margin: float, bound: float, level_worse: float, level_fine: float) -> None:
        self.margin, self.bound = margin, bound
        self._enough = (math.log(1 / level_worse), math.log(1 / level_fine))
        self._n, self._total = 0, 0.0
        self._limits = (-bound, bound)
        self._most = (0.0, 0.0)

    def add(self, values: Array) -> None:
        """Take values, in order; between calls one may look.

        Raises:
            DataError: a value is NaN.
        """
        values = np.atleast_1d(np.asarray(values, np.float64))
        if np.isnan(values).any():
            raise DataError("a value is not a number; count it as the worst or leave its request out.")
        values = np.clip(values, -self.bound, self.bound)
        self._n, self._total = self._n + len(values), self._total + float(values.sum())
        self._bet(values)
        evidence = self._at_margin()
        self._most = (max(self._most[0], evidence[0]), max(self._most[1], evidence[1]))
        lower, upper = self._interval()
        self._limits = (max(self._limits[0], lower), min(self._limits[1], upper))

    @property
    def worse(self) -> bool:
        """Whether there was ever enough evidence that the mean is above the margin."""
        return self._most[0] >= self._enough[0]

    @property
    def fine(self) -> bool:
        """Whether there was ever enough evidence that the mean is below the margin."""
        return self._most[1] >= self._enough[1]

    def standing(self) -> Standing:
        """What the values say so far."""
        mean = self._total / self._n if self._n else math.nan
        reached = [most >= enough for most, enough in zip(self._most, self._enough, strict=True)]
        needs = [0 if done else more for done, more in zip(reached, self._more(), strict=True)]
        return Standing(self._n, mean, *self._limits, *self._most, *needs)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""
        return {"n": self._n, "total": self._total, "limits": [*self._limits], "most": [*self._most], **self._state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, with the same settings."""
        self._n, self._total = int(state["n"]), float(state["total"])
        self._limits, self._most = tuple(state["limits"]), tuple(state["most"])
        self._restore(state)

    @abstractmethod
    def _bet(self, values: Array) -> None:
        """Take clipped values."""

    @abstractmethod
    def _at_margin(self) -> tuple[float, float]:
        """Log evidence that the mean is above the margin, and that it is below."""

    @abstractmethod
    def _interval(self) -> tuple[float, float]:
        """Limits of the mean now."""

    @abstractmethod
    def _more(self) -> tuple[int | None, int | None]:
        """Values that are missing to both conclusions."""

    @abstractmethod
    def _state(self) -> dict[str, Any]: ...

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None: ...


class Betting(Evidence):
    """Capital of bets (Waudby-Smith & Ramdas 2024, section 4), averaged over fixed sizes of bets.

    Holds at every n and for every distribution of the clipped values, dependent ones included, as long as each one's
    mean given those before is on the hypothesis's side of the margin. Needs no variance, hence no floor of it.
    """

    def __init__(self, margin: float, bound: float, level_worse: float, level_fine: float) -> None:
        super().__init__(margin, bound, level_worse, level_fine)
        steps = np.sinh(BEND * np.linspace(-1, 1, POINTS)) / math.sinh(BEND) * (bound + abs(margin))
        self._grid = steps[np.abs(steps + margin) < 0.99 * bound] + margin
        self._centre = int(np.argmin(np.abs(self._grid - margin)))
        self._grid[self._centre] = margin
        self._bets = np.stack([SHARES / (self._grid + bound)[:, None], -SHARES / (bound - self._grid)[:, None]])
        self._wealth = np.zeros_like(self._bets)  # (2, grid, sizes): logarithm of each bet's capital
        self._capital = np.zeros(self._bets.shape[:2])  # of all sizes together

    def _bet(self, values: Array) -> None:
        for part in np.split(values, range(256, len(values), 256)):
            self._wealth += np.log1p(self._bets * (part[:, None, None, None] - self._grid[:, None])).sum(axis=0)
        best = self._wealth.max(axis=-1, keepdims=True)
        self._capital = best[..., 0] + np.log(np.exp(self._wealth - best).mean(axis=-1))

    def _at_margin(self) -> tuple[float, float]:
        above, below = self._capital[:, self._centre]
        return float(above), float(below)

    def _interval(self) -> tuple[float, float]:
        above, below = self._capital
        low, high = self._grid[above >= self._enough[0]], self._grid[below >= self._enough[1]]
        return float(low.max(initial=-self.bound)), float(high.min(initial=self.bound))

    def _more(self) -> tuple[int | None, int | None]:
        if not self._n:
            return None, None
        best = self._wealth[:, self._centre].max(axis=1)  # of the size of bets that did best
        missing = np.array(self._enough) + math.log(len(SHARES)) - best
        more = [
            math.ceil(max(1.0, gap * self._n / own)) if own > 0 else None
            for gap, own in zip(missing, best, strict=True)
        ]
        return more[0], more[1]

    def _state(self) -> dict[str, Any]:
        return {"wealth": self._wealth.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._wealth = np.array(state["wealth"])
        self._bet(np.zeros(0))


class NormalMixture(Evidence):
    """Half-normal mixture over effects (Robbins 1970; Waudby-Smith et al. 2024, theorem 2.2), with a least variance.

    Asymptotic: says nothing before 100 values. The variance is that of the values so far, and at least `floor`², so
    that identical outputs do not give an interval without width.

    Args:
        floor: standard deviation.
    """

    def __init__(
        self, margin: float, bound: float, level_worse: float, level_fine: float, *, floor: float = 0.01
    ) -> None:
        super().__init__(margin, bound, level_worse, level_fine)
        self._floor = floor
        self._squares = 0.0

    def _bet(self, values: Array) -> None:
        self._squares += float((values**2).sum())

    def _deviation(self) -> float:
        mean = self._total / self._n
        return math.sqrt(max(self._squares / self._n - mean**2, self._floor**2))

    def _at_margin(self) -> tuple[float, float]:
        if self._n < LEAST:
            return 0.0, 0.0
        gap = (self._total - self._n * self.margin) / self._deviation()
        return _mixture(gap, self._n, self._enough[0]), _mixture(-gap, self._n, self._enough[1])

    def _interval(self) -> tuple[float, float]:
        if self._n < LEAST:
            return -self.bound, self.bound
        mean, scale = self._total / self._n, self._deviation() / self._n
        low, high = (
            brentq(lambda gap, enough=enough: _mixture(gap, self._n, enough) - enough, 0, 50 * self._n)
            for enough in self._enough
        )
        return mean - low * scale, mean + high * scale

    def _more(self) -> tuple[int | None, int | None]:
        if self._n < LEAST:
            return None, None
        effect = (self._total / self._n - self.margin) / self._deviation()
        return self._until(effect, self._enough[0]), self._until(-effect, self._enough[1])

    def _until(self, effect: float, enough: float) -> int | None:
        if effect <= 0:
            return None
        n = float(self._n)
        while _mixture(effect * n, n, enough) < enough:
            n *= 1.05
        return max(1, math.ceil(n - self._n))

    def _state(self) -> dict[str, Any]:
        return {"squares": self._squares}

    def _restore(self, state: dict[str, Any]) -> None:
        self._squares = float(state["squares"])


def _mixture(gap: Any, n: Any, enough: float) -> Any:
    """Log evidence of a sum of n standardised values, for a prior that is best after `HORIZON` values at this level."""
    variance = (2 * enough + math.log(2 * enough) + 1) / HORIZON
    spread = 1 + variance * n
    exponent = variance * gap**2 / (2 * spread)
    return math.log(2) - np.log(spread) / 2 + exponent + log_ndtr(math.sqrt(variance) * gap / spread**0.5)


def betting_paths(values: Array, margin: float, bound: float) -> tuple[Array, Array]:
    """`Betting`'s log evidence above and below the margin after each value, along the last axis; for many streams."""
    values = np.clip(values, -bound, bound) - margin
    paths = []
    for sign, edge in ((1, margin + bound), (-1, bound - margin)):
        joined = np.full(values.shape, -np.inf)
        for share in SHARES:
            np.logaddexp(joined, np.cumsum(np.log1p(sign * share / edge * values), axis=-1), out=joined)
        paths.append(joined - math.log(len(SHARES)))
    return paths[0], paths[1]


def mixture_paths(
    values: Array, margin: float, bound: float, levels: tuple[float, float], floor: float = 0.01
) -> tuple[Array, Array]:
    """`NormalMixture`'s log evidence after each value, along the last axis; for many streams."""
    values = np.clip(values, -bound, bound)
    n = np.arange(1, values.shape[-1] + 1)
    mean = np.cumsum(values, axis=-1) / n
    deviation = np.sqrt(np.maximum(np.cumsum(values**2, axis=-1) / n - mean**2, floor**2))
    gap = n * (mean - margin) / deviation
    paths = [_mixture(sign * gap, n, math.log(1 / level)) for sign, level in zip((1, -1), levels, strict=True)]
    return np.where(n < LEAST, 0.0, paths[0]), np.where(n < LEAST, 0.0, paths[1])

"""What the latent reference of a version says of rows, in arrays: norms, p-values, limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lowerbound.errors import DataError, UsageError
from lowerbound.lab.reference import Limit, Reference, side_of
from lowerbound.service.serving.payload import Array, Arrays

SCORES = ("error", "rate", "norm")
FLAT = 0.01  # variance of the values of a picture on [0, 1], below which it is flat
HALVES = 10  # random halvings of the reference by which false rejects are measured


@dataclass(frozen=True)
class Check:
    """One check of the gate, for people.

    Attributes:
        code: of the refusal.
        score: that it looks at.
        limit: conformal, or None where the reference is too small for the level (the check is off) or it is fixed.
        rate: share of ordinary rows that it refused, measured on reference rows that its limit was not made of.
        note: what a person should know.
    """

    code: str
    score: str
    limit: Limit | None
    rate: float
    note: str

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        ends = (
            None if self.limit is None else {"low": self.limit.low, "high": self.limit.high, "level": self.limit.level}
        )
        return {
            "code": self.code,
            "score": self.score,
            "limit": ends,
            "measured_false_rejects": self.rate,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class _Colour:
    """The limits of one statistic of one channel."""

    score: str
    of_variance: bool
    channel: int
    low: float
    high: float

    @staticmethod
    def of(check: Check) -> _Colour:
        """Those of a check that is on."""
        assert check.limit is not None
        low = -math.inf if check.limit.low is None else check.limit.low
        high = math.inf if check.limit.high is None else check.limit.high
        kind, channel = check.score.rsplit("_", 1)
        return _Colour(check.score, kind == "pixel_variance", int(channel), low, high)


class Judge:
    """Scores of rows against a reference. It gives what `Reference` gives, at the cost of a few lookups.

    Args:
        reference: of the version.
        level: share of ordinary rows that each check may refuse.
        pictures: whether rows are pictures.
    """

    def __init__(self, reference: Reference, level: float, pictures: bool) -> None:
        self._groups = [name for name in reference.groups if name not in reference.discrete]
        self._mean = reference.mean.double().numpy()
        self._precision = reference.precision.double().numpy()
        self._scores = {name: values.double().numpy() for name, values in reference.scores.items()}
        self._has_norm = "norm" in self._scores
        self._channels = sum(name.startswith("pixel_mean_") for name in self._scores)
        self._scale = 1.0 if reference.levels is None else 1.0 / (reference.levels - 1)
        self.flat = FLAT if pictures else -1.0
        self.checks = [*self._flat_checks(), *self._limited(reference, level)]
        self._colours = [
            _Colour.of(check) for check in self.checks if check.code == "colour" and check.limit is not None
        ]
        norms = [check.limit for check in self.checks if check.code == "latent-norm"]
        self.norm_limit = next((limit.high for limit in norms if limit is not None), None)

    def observe(self, outputs: Arrays) -> None:
        """Add the norm of codes and the p-values of scores, (B,) each, to the facts of rows."""
        rows = len(next(iter(outputs.values())))
        if self._has_norm and all(name in outputs for name in self._groups):
            codes = [outputs[name].reshape(rows, -1) for name in self._groups]
            outputs["norm"] = self._norm(codes[0] if len(codes) == 1 else np.concatenate(codes, axis=1))
        found = [self._p_value(name, outputs[name]) for name in SCORES if name in outputs and name in self._scores]
        if found:
            outputs["p_value"] = np.minimum(1.0, len(found) * np.minimum.reduce(found))

    def statistics(self, row: Array) -> tuple[list[float], list[float]]:
        """Mean and variance of each channel of a row (C, ...), on the scale of the reference."""
        means, variances = [], []
        for channel in row.reshape(row.shape[0], -1):  # products of two vectors: the cheapest sums there are
            scale = self._scale / channel.size
            mean = float(channel @ _ones(channel.size)) * scale
            means.append(mean)
            variances.append(max(0.0, float(channel @ channel) * scale * self._scale - mean * mean))
        return means, variances

    def unlike(self, means: list[float], variances: list[float]) -> str | None:
        """Which statistic of the colours of a row lies beyond its limit, if one does."""
        for colour in self._colours:
            value = (variances if colour.of_variance else means)[colour.channel]
            if not colour.low <= value <= colour.high:
                return colour.score
        return None

    def _norm(self, codes: Array) -> Array:
        apart = codes.astype(np.float64) - self._mean
        if self._precision.ndim == 1:
            squares = (apart**2) @ self._precision
        else:
            squares = np.einsum("bd,bd->b", apart @ self._precision, apart)
        return np.sqrt(np.maximum(squares, 0))

    def _p_value(self, name: str, values: Array) -> Array:
        known = self._scores[name]
        count = len(known) + 1
        upper = (1 + len(known) - np.searchsorted(known, values, side="left")) / count
        if side_of(name) == "upper":
            return upper
        lower = (1 + np.searchsorted(known, values, side="right")) / count
        return lower if side_of(name) == "lower" else np.minimum(1.0, 2 * np.minimum(upper, lower))

    def _flat_checks(self) -> list[Check]:
        variances = [values for name, values in self._scores.items() if name.startswith("pixel_variance_")]
        if self.flat < 0 or not variances:
            return []
        means = [values for name, values in self._scores.items() if name.startswith("pixel_mean_")]
        flat = min(float((values < self.flat).mean()) for values in variances)
        black = min(float((values <= 0).mean()) for values in means)
        note = "at most this share of the reference" if len(variances) > 1 else "this share of the reference"
        return [
            Check("black", "all values 0", None, black, note),
            Check("flat", f"variance of every channel below {self.flat:g}", None, flat, note),
        ]

    def _limited(self, reference: Reference, level: float) -> list[Check]:
        found = []
        for name, values in self._scores.items():
            colour = name.startswith("pixel_") and self.flat >= 0
            if not colour and name != "norm":
                continue
            code = "colour" if colour else "latent-norm"
            try:
                limit = reference.limit(name, level)
            except (DataError, UsageError) as error:
                found.append(Check(code, name, None, 0.0, f"off: {error}"))
                continue
            found.append(Check(code, name, limit, _measured(values, level, side_of(name) == "both"), limit.validity))
        return found


@lru_cache(maxsize=16)
def _ones(count: int) -> Array:
    return np.ones(count, np.float32)


def _measured(values: Array, level: float, both: bool) -> float:
    """Share of ordinary rows beyond a limit that was made of other ordinary rows, over random halves of them.

    Half as many rows as the limit in use has may be too few for its level: then the smallest that they allow is used,
    and the figure is the larger for it.
    """
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(HALVES):
        order = rng.permutation(len(values))
        known, new = np.sort(values[order[: len(values) // 2]]), values[order[len(values) // 2 :]]
        each = max(level / 2 if both else level, 1 / (len(known) + 1))
        allowed = int(each * (len(known) + 1) + 1e-9) - 1
        beyond = new > known[len(known) - 1 - allowed]
        shares.append(float((beyond | (new < known[allowed]) if both else beyond).mean()))
    return float(np.mean(shares))

"""A number that says what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

Kind = Literal["exact", "lower_bound", "upper_bound", "estimate"]


@dataclass(frozen=True)
class Result:
    """One entry of `evaluation.json`; its unit is in its name.

    Attributes:
        value: a number, or a list of them.
        kind: what it is to the quantity that it is named after.
        n: how many examples it is from.
        stderr: its standard error over examples; None where it has none.
    """

    value: float | list[float]
    kind: Kind
    n: int
    stderr: float | None = None

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def mean_result(values: Tensor, kind: Kind, factor: float = 1.0) -> Result:
    """The mean of one number per example, times a factor, with its standard error."""
    n = len(values)
    spread = float(values.double().std()) if n > 1 else math.nan
    stderr = abs(factor) * spread / math.sqrt(n) if n > 1 else None
    return Result(factor * float(values.double().mean()), kind, n, stderr)


def number(value: Tensor | float, kind: Kind, n: int) -> Result:
    """A number without a standard error."""
    listed = value.tolist() if isinstance(value, Tensor) else value
    return Result(listed, kind, n)


def jackknife(left_out: Sequence[float]) -> float | None:
    """The standard error of a number, from its values with one of the groups of rows left out each time.

    Efron & Stein 1981, eq. 1.4. None without groups.
    """
    groups = len(left_out)
    return float(np.sqrt((groups - 1) * np.var(left_out))) if groups else None

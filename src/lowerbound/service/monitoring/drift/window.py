"""What is known of some requests, in the order of their times: a window of a stream, or the reference itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowerbound.errors import DataError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Window:
    """N requests in the order of their times; a fact that a verb did not compute is None.

    Attributes:
        points: points of q, all continuous groups side by side, (N, D).
        variances: of each unit's posterior, sigma^2, (N, D).
        rates: of each unit, nats, (N, D).
        errors: of the reconstruction, (N,).
        inputs: statistics of the inputs, such as the mean and the variance of the pixels of each channel, (N, C).
        indices: of discrete codes, (N, P), integers.
    """

    points: Array | None = None
    variances: Array | None = None
    rates: Array | None = None
    errors: Array | None = None
    inputs: Array | None = None
    indices: Array | None = None

    def __post_init__(self) -> None:
        """Check.

        Raises:
            DataError: there are no facts, their numbers of requests or of axes differ, or one is not a number.
        """
        if not self.facts:
            raise DataError("a window without facts cannot be looked at; give at least one array of them.")
        for name, values in self.facts.items():
            axes = 1 if name == "errors" else 2
            if values.ndim != axes or len(values) != self.size:
                raise DataError(
                    f"`{name}` has shape {list(values.shape)}; it needs {axes} axes, and as many requests as the "
                    f"first fact, {self.size}."
                )
            if not bool(np.isfinite(values).all()):
                raise DataError(f"a value of `{name}` is NaN or an infinity; leave such requests out, and count them.")

    @property
    def facts(self) -> dict[str, Array]:
        """Those that are known, by name."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: values for name, values in every.items() if values is not None}

    @property
    def size(self) -> int:
        """N."""
        return len(next(iter(self.facts.values())))

    def fact(self, name: str) -> Array:
        """One of them.

        Raises:
            DataError: it is not known.
        """
        if name not in self.facts:
            raise DataError(f"a window without `{name}` was given to what needs it; it has {', '.join(self.facts)}.")
        return self.facts[name]

    def select(self, rows: slice | Array) -> Window:
        """Some of the requests."""
        return Window(**{name: values[rows] for name, values in self.facts.items()})

"""From facts of two versions to pairs of errors on the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowerbound.service.monitoring.telemetry.fact import IDLE
from lowerbound.service.monitoring.verdicts.pairing import Array

MOST_WAITING = 2000  # rows of each version that wait for the other's; then the oldest go
Key = tuple[str, int]


@dataclass(frozen=True)
class Side:
    """What the facts of one version say of themselves."""

    alias: str
    version: str


class Halves:
    """Joins the facts of two versions by request and row; each pair is given once.

    Args:
        candidate, stable: whose facts are joined.
    """

    def __init__(self, candidate: Side, stable: Side) -> None:
        self._sides = (candidate, stable)
        self._waiting: tuple[dict[Key, float], dict[Key, float]] = ({}, {})

    def add(self, facts: Iterable[Mapping[str, Any]]) -> tuple[Array, Array]:
        """Take facts in order; errors of the candidate and of the stable version on rows that both scored now, (N,).

        An error is NaN where a version failed at a row that it was to score.
        """
        pairs = [pair for fact in facts for pair in self._one(fact)]
        values = np.array(pairs, np.float64).reshape(-1, 2)
        return values[:, 0], values[:, 1]

    def _one(self, fact: Mapping[str, Any]) -> list[tuple[float, float]]:
        error = fact["error"]
        if error is None and (fact["verb"] != IDLE or fact["status"] < 400):
            return []
        for place, side in enumerate(self._sides):
            if (fact["alias"], fact["version"]) == (side.alias, side.version):
                return self._met(place, (fact["request"], fact["row"]), np.nan if error is None else float(error))
        return []

    def _met(self, place: int, key: Key, error: float) -> list[tuple[float, float]]:
        own, other = self._waiting[place], self._waiting[1 - place]
        if key in other:
            met = other.pop(key)
            return [(error, met) if place == 0 else (met, error)]
        own[key] = error
        if len(own) > MOST_WAITING:
            del own[next(iter(own))]
        return []

    def state(self) -> list[list[list[Any]]]:
        """All that `restore` needs, as JSON."""
        return [
            [[request, row, None if np.isnan(error) else error] for (request, row), error in waiting.items()]
            for waiting in self._waiting
        ]

    def restore(self, state: list[list[list[Any]]]) -> None:
        """Go on where `state` was taken."""
        for waiting, entries in zip(self._waiting, state, strict=True):
            waiting.update({(request, row): np.nan if error is None else error for request, row, error in entries})

"""A stretch of telemetry: the requests of one encoder, as arrays that detectors take, and what became of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lowerbound.errors import DataError
from lowerbound.service.monitoring.drift import window as drift
from lowerbound.service.monitoring.telemetry import history as telemetry
from lowerbound.service.monitoring.telemetry.fact import IDLE
from lowerbound.service.monitoring.telemetry.history import Choice, History

Array = drift.Array
PASSED = ("", "passed")  # what the gate says of a row that it lets through, or was not asked about
PROBE = "probe-"  # how ids of requests begin that are no traffic
COMMON = 0.5  # of the coded rows: a fact that fewer have is not looked at


@dataclass(frozen=True, eq=False)
class Stretch:
    """N rows whose facts are known, in the order of their times, and M that the gate refused.

    Attributes:
        window: facts of the known rows, None where there are none.
        id: of each in the store, (N,).
        time: seconds since 1970, (N,).
        request: ids, (N,) of strings.
        refused: reason of the gate of each row that it refused, (M,) of strings.
        refused_time: seconds since 1970, (M,).
        incomplete: rows that passed and lack one of the facts.
    """

    window: drift.Window | None
    id: Array
    time: Array
    request: Array
    refused: Array
    refused_time: Array
    incomplete: int

    def __len__(self) -> int:
        return len(self.id)

    @property
    def asked(self) -> int:
        """Rows that the gate looked at and whose facts are known, or that it refused."""
        return len(self.id) + len(self.refused)

    @property
    def span(self) -> tuple[float, float]:
        """Times of the first and the last of these rows; zeros without any."""
        times = np.concatenate([self.time, self.refused_time])
        return (float(times.min()), float(times.max())) if len(times) else (0.0, 0.0)

    @property
    def reasons(self) -> dict[str, int]:
        """Refused rows by the gate's reason, the most frequent first."""
        return dict(Counter(self.refused.tolist()).most_common())

    def known(self, count: int) -> Stretch:
        """The last rows whose facts are known, and what was refused since the first of them."""
        start = len(self) - min(count, len(self))
        return self._since(start, self.time[start] if count and len(self) else -np.inf)

    def recent(self, count: int) -> Stretch:
        """The last rows of all, refused ones among them."""
        times = np.sort(np.concatenate([self.time, self.refused_time]))
        since = times[len(times) - min(count, len(times))] if len(times) else -np.inf
        return self._since(int(np.searchsorted(self.time, since)), since)

    def first(self, count: int) -> Stretch:
        """The first rows whose facts are known, and what was refused until the last of them."""
        last = min(count, len(self))
        return self._select(slice(0, last), self.refused_time <= (self.time[last - 1] if last else -np.inf))

    def cut(self, count: int) -> list[Stretch]:
        """Consecutive stretches of so many known rows, each with what was refused since the one before."""
        found, before = [], -np.inf
        for start in range(0, len(self) - count + 1, count):
            last = self.time[start + count - 1]
            meanwhile = (self.refused_time > before) & (self.refused_time <= last)
            found.append(self._select(slice(start, start + count), meanwhile))
            before = last
        return found

    def _since(self, start: int, since: float) -> Stretch:
        return self._select(slice(start, None), self.refused_time >= since)

    def _select(self, rows: slice, refused: Array) -> Stretch:
        some = self.window is not None and len(self.id[rows]) > 0
        return replace(
            self,
            window=self.window.select(rows) if some and self.window is not None else None,
            id=self.id[rows],
            time=self.time[rows],
            request=self.request[rows],
            refused=self.refused[refused],
            refused_time=self.refused_time[refused],
        )


def read_stretch(
    history: History, choice: Choice, versions: Sequence[str], wanted: Sequence[str], widths: dict[str, int]
) -> Stretch:
    """The rows of some versions that have the same encoder.

    Codes of several groups lie side by side; real ones are points, integers are indices. Facts that fewer than half of
    the rows have are not looked at; rows without one of the others are counted.

    Args:
        history: of the store.
        choice: of rows; its version does not matter.
        versions: hashes.
        wanted: names of facts, those of a reference.
        widths: of vectors in the reference, by name; others cannot be compared.

    Raises:
        DataError: codes, or statistics of inputs, have another length than the reference's.
    """
    parts = [history.window(replace(choice, version=version)) for version in versions]
    rows = _joined([part for part in parts if len(part)], choice.newest)
    if rows is None:
        none, words = np.zeros(0), np.zeros(0, np.str_)
        return Stretch(None, none.astype(np.int64), none, words, words, none, 0)
    refused = ~np.isin(rows["gate"], PASSED)
    coded = ~refused & (_there(rows["code"]) | _there(rows["error"]))
    found = {name: values for name, values in _facts(rows).items() if name in wanted}
    shares = {name: _there(values)[coded].mean() if coded.any() else 0.0 for name, values in found.items()}
    used = [name for name in found if shares[name] >= COMMON]
    whole = coded & np.logical_and.reduce([_there(found[name]) for name in used]) if used else np.zeros_like(coded)
    facts = {name: found[name][whole] for name in used}
    for name, values in facts.items():
        if values.ndim > 1 and values.shape[1] != widths.get(name, values.shape[1]):
            raise DataError(
                f"`{name}` of these requests has {values.shape[1]} numbers a row and that of the reference "
                f"{widths[name]}: they are of different models; look at one version."
            )
    return Stretch(
        drift.Window(**facts) if facts and whole.any() else None,
        rows["id"][whole],
        rows["time"][whole],
        rows["request"][whole],
        rows["gate"][refused],
        rows["time"][refused],
        int((~refused & ~whole & np.isin(rows["verb"], CODED)).sum()),
    )


CODED = ("encode", "reconstruct", "score")  # verbs of rows, which the reference is of


def _joined(parts: list[telemetry.Window], newest: int | None) -> dict[str, Array] | None:
    """Rows of several windows in the order of their times; no probes."""
    if not parts:
        return None
    names = [field.name for field in fields(telemetry.Window)]
    found: dict[str, Array] = {}
    for name in names:
        columns = [getattr(part, name) for part in parts]
        wide = max((column.shape[1] for column in columns if column.ndim > 1), default=0)
        columns = [_widened(column, wide) for column in columns]
        found[name] = np.concatenate(columns)
    order = np.lexsort((found["id"], found["time"]))
    order = order[~np.char.startswith(found["request"][order].astype(np.str_), PROBE) & ~_twice(found)[order]]
    order = order[len(order) - min(newest, len(order)) :] if newest is not None else order
    return {name: values[order] for name, values in found.items()} if len(order) else None


def _twice(rows: dict[str, Array]) -> Array:
    """Which rows were scored in an idle moment as well, whose facts say more, (N,)."""
    idle = rows["verb"] == IDLE
    if not idle.any():
        return np.zeros(len(idle), bool)
    named = np.char.add(np.char.add(rows["request"].astype(np.str_), "/"), rows["row"].astype(np.str_))
    return ~idle & np.isin(named, named[idle])


def _widened(column: Array, wide: int) -> Array:
    """Vectors that no row of a window has, as many as another window's."""
    return np.full((len(column), wide), np.nan, np.float32) if column.ndim > 1 and not column.shape[1] else column


def _facts(rows: dict[str, Array]) -> dict[str, Array]:
    """By the names of detectors."""
    codes = rows["code"]
    found = {"rates": rows["rates"], "errors": rows["error"], "variances": rows["variances"], "inputs": rows["pixels"]}
    found["indices" if codes.dtype.kind == "i" else "points"] = codes
    return {name: values for name, values in found.items() if values.ndim == 1 or values.shape[1]}


def _there(values: Array) -> Any:
    """Which rows have a fact, (N,)."""
    known = values >= 0 if values.dtype.kind == "i" else np.isfinite(values)
    return known.all(axis=1) & (values.shape[1] > 0) if values.ndim > 1 else known

"""Questions to the store: windows of rows as arrays, roll-ups, totals and losses."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import DataError, TamperedError
from lowerbound.files import sha256
from lowerbound.service.monitoring.telemetry.database import LABELS, NUMBERS, ROLLED, VECTORS, connect_to_read
from lowerbound.service.monitoring.telemetry.fact import IDLE, Array
from lowerbound.service.monitoring.telemetry.rollups import EDGES
from lowerbound.service.monitoring.telemetry.segments import FOLDER, read_segment
from lowerbound.service.monitoring.telemetry.vectors import pack, unpack, unpack_input

ATTEMPTS = 3  # at a window whose files expire while it is read


@dataclass(frozen=True)
class Choice:
    """Which rows are asked for; what is None or empty does not matter.

    Attributes:
        since, until: times, [since, until), seconds since 1970.
        model, version, alias, verb, gate: exactly these.
        answered: only rows with a status below 400 (True) or from there (False).
        coded: only rows with a code.
        newest: only the last so many rows.
        idle: whether rows that a version scored for comparison only are wanted as well; they repeat rows of requests.
    """

    since: float = 0.0
    until: float = np.inf
    model: str | None = None
    version: str | None = None
    alias: str | None = None
    verb: str | None = None
    gate: str | None = None
    answered: bool | None = None
    coded: bool = False
    newest: int | None = None
    idle: bool = False


@dataclass(frozen=True)
class Window:
    """Rows in the order of their times; N of them.

    Attributes:
        id: of each row in the store, (N,).
        time: seconds since 1970, (N,).
        request: ids, (N,) of strings.
        row: number within the request, (N,).
        model, version, alias, verb, status, reason, gate: labels, (N,).
        error, rate, norm, p_value, queue_s, compute_s, total_s: (N,), NaN where not computed.
        code: (N, D), float32 with rows of NaN where there is none; of a codebook int64, with rows of -1.
        rates, variances: per unit, (N, D), NaN where there are none.
        pixels: statistics of the inputs, (N, C).
    """

    id: Array
    time: Array
    request: Array
    row: Array
    model: Array
    version: Array
    alias: Array
    verb: Array
    status: Array
    reason: Array
    gate: Array
    error: Array
    rate: Array
    norm: Array
    p_value: Array
    queue_s: Array
    compute_s: Array
    total_s: Array
    code: Array
    rates: Array
    variances: Array
    pixels: Array

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Minutes:
    """Roll-ups of minutes that have rows, oldest first; M of them.

    Attributes:
        minute: since 1970, (M,).
        rows, requests, failed: rows; requests; rows with a status from 400, (M,); of those that were asked for.
        n: finite numbers of each kind, by name, (M,), of rows that were scored for comparison only, too; the names are
            error, rate, norm, queue_s, compute_s, total_s.
        mean: of each kind, by name, (M,), NaN where there is none.
        log_mean, log_variance: of the logarithms (of 1e-12 at least), by name, (M,).
        highest: of each kind, by name, (M,).
    """

    minute: Array
    rows: Array
    requests: Array
    failed: Array
    n: dict[str, Array]
    mean: dict[str, Array]
    log_mean: dict[str, Array]
    log_variance: dict[str, Array]
    highest: dict[str, Array]


@dataclass(frozen=True)
class Total:
    """All rows there ever were with the same labels.

    Attributes:
        labels: model, version, alias, verb, status, reason and gate, by name.
        rows, requests: how many.
        n, total: of the finite numbers of each kind, by name.
        buckets: how many were at most each edge, by name; the last is of all.
    """

    labels: dict[str, str]
    rows: int
    requests: int
    n: dict[str, int]
    total: dict[str, float]
    buckets: dict[str, tuple[int, ...]]


class History:
    """A reader of a store; another process may write to it meanwhile.

    Args:
        folder: of the store.

    Raises:
        DataError: there is no such store.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        connect_to_read(self._folder).close()

    def window(self, choice: Choice | None = None) -> Window:
        """The rows that are chosen, from SQLite and Parquet.

        Raises:
            DataError: their codes have several lengths or kinds.
            UsageError: there is history in Parquet and pyarrow is not installed.
        """
        choice = choice or Choice()
        columns = self._columns(choice, ("id", "time", "request", "row", *LABELS, *NUMBERS, *VECTORS))
        chosen = np.lexsort((columns["id"], columns["time"]))
        if choice.newest is not None:
            chosen = chosen[len(chosen) - min(choice.newest, len(chosen)) :]
        arrays = {name: values[chosen] for name, values in columns.items() if name not in VECTORS}
        for name in VECTORS:
            arrays[name] = unpack([columns[name][place] for place in chosen], name)
        return Window(**arrays)

    def inputs(self, choice: Choice | None = None) -> tuple[Array, Array]:
        """Ids (N,) and raw inputs (N, *event) of the chosen rows whose inputs were kept, oldest first.

        Raises:
            DataError: inputs of several shapes or types.
        """
        choice = choice or Choice()
        columns = self._columns(choice, ("id", "time", *LABELS, "input"))
        there = [place for place in np.lexsort((columns["id"], columns["time"])) if columns["input"][place] is not None]
        there = there[-choice.newest :] if choice.newest else there
        rows = [unpack_input(columns["input"][place]) for place in there]
        if len({(row.shape, row.dtype.str) for row in rows}) > 1:
            raise DataError("the inputs have several shapes or types; ask for one model at a time.")
        return columns["id"][there], np.stack(rows) if rows else np.zeros((0,))

    def minutes(self, choice: Choice | None = None, width: int = 1, names: Sequence[str] = ROLLED) -> Minutes:
        """Roll-ups by so many minutes, of which the first is named; `coded`, `newest` and `idle` do not matter here.

        Args:
            choice: of rows.
            width: of a span, minutes.
            names: of the numbers that are wanted; the others are as if there were none.
        """
        choice = replace(choice or Choice(), idle=True)
        with self._reading() as connection:
            series = self._series(connection, choice)
            wanted = f"series IN ({_listed(series)})"
            kinds = _listed([ROLLED.index(name) for name in names])
            minutes = _spans(connection, "minutes", wanted, choice, width, "series", COUNTS)
            wanted += f" AND name IN ({kinds})"
            numbers = _spans(connection, "minute_numbers", wanted, choice, width, "series, name", SUMS)
        return _rolled(minutes, numbers, series)

    def counts(self, choice: Choice | None = None, width: int = 1) -> list[tuple[dict[str, Any], Array, Array]]:
        """Of each combination of labels the spans of so many minutes that have rows, and how many rows, (M,) each."""
        choice = choice or Choice()
        with self._reading() as connection:
            series = self._series(connection, choice)
            found = _spans(
                connection, "minutes", f"series IN ({_listed(series)})", choice, width, "series", COUNTS
            ).astype(np.int64)
        return [
            (dict(zip(LABELS, series[number], strict=True)), *found[found[:, 1] == number][:, [0, 2]].T)
            for number in np.unique(found[:, 1]).tolist()
        ]

    def last_time(self, choice: Choice | None = None) -> float | None:
        """The time of the newest row that is chosen, to the second where it is still in SQLite, else to the minute."""
        with self._reading() as connection:
            wanted = _listed(self._series(connection, choice or Choice()))
            last = connection.execute(
                f"SELECT minute FROM minutes WHERE series IN ({wanted}) ORDER BY minute DESC LIMIT 1"
            ).fetchone()
            if last is None:
                return None
            since, until = 60 * last[0], 60 * last[0] + 60
            query = f"SELECT max(time) FROM facts WHERE time >= ? AND time < ? AND series IN ({wanted})"
            exact = connection.execute(query, (since, until)).fetchone()[0]
        return float(since if exact is None else exact)

    def times(self, choice: Choice, spans: int, most: int) -> dict[str, Array]:
        """How long requests took: the newest of each span that were timed and are still in SQLite.

        Args:
            choice: of rows, with a `since` and an `until`, between which there are the spans.
            spans: how many, of equal length.
            most: requests of each.

        Returns:
            "span" (N,), increasing, and "queue_s", "compute_s", "total_s", (N,), NaN where not known.
        """
        names = ("queue_s", "compute_s", "total_s")
        edges = np.linspace(choice.since, choice.until, spans + 1).tolist()
        found: list[tuple[Any, ...]] = []
        with self._reading() as connection:
            wanted = _listed(self._series(connection, choice))
            query = f"""SELECT ?, {", ".join(names)} FROM facts WHERE time >= ? AND time < ? AND row = 0
                AND total_s IS NOT NULL
                AND series IN ({wanted}) ORDER BY time DESC LIMIT ?"""
            for span, (since, until) in enumerate(pairwise(edges)):
                found += connection.execute(query, (span, since, until, most)).fetchall()
        columns = np.array(found, np.float64).reshape(-1, 1 + len(names)).T
        return {"span": columns[0].astype(int), **dict(zip(names, columns[1:], strict=True))}

    def totals(self) -> list[Total]:
        """Everything since the store was made, retention or not, by labels."""
        with self._reading() as connection:
            labels = connection.execute(f"SELECT id, {', '.join(LABELS)} FROM series ORDER BY id").fetchall()
            rows = {number: counts for number, *counts in connection.execute("SELECT * FROM totals")}
            numbers = connection.execute("SELECT * FROM total_numbers").fetchall()
            buckets = connection.execute("SELECT * FROM buckets").fetchall()
        found: dict[int, Total] = {}
        for number, *names in labels:
            if number in rows:
                named = {name: str(value) for name, value in zip(LABELS, names, strict=True)}
                found[number] = Total(named, rows[number][0], rows[number][1], {}, {}, {})
        for series, kind, n, total in numbers:
            name = ROLLED[kind]
            found[series].n[name], found[series].total[name] = n, total
            counts = np.zeros(len(EDGES[name]) + 1, np.int64)
            for _, _, bucket, count in (row for row in buckets if row[:2] == (series, kind)):
                counts[bucket] = count
            found[series].buckets[name] = tuple(counts.cumsum().tolist())
        return list(found.values())

    def losses(self, since: float = 0.0) -> dict[str, int]:
        """Rows that were lost since a time, by cause: full, bad, disk; `inputs` were kept without their input."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT cause, sum(rows) FROM losses WHERE minute >= ? GROUP BY cause", (since // 60,)
            )
            return dict(found.fetchall())

    def made(self) -> float:
        """When the store was made, seconds since 1970."""
        with self._reading() as connection:
            return float(connection.execute("SELECT value FROM meta WHERE key = 'made'").fetchone()[0])

    def models(self) -> list[tuple[str, str]]:
        """Names and versions that rows were written for."""
        with self._reading() as connection:
            return connection.execute("SELECT DISTINCT model, version FROM series ORDER BY model, version").fetchall()

    def verify(self) -> int:
        """Check every file of history against the hash that was taken when it was written; how many there are.

        Raises:
            TamperedError: one is missing or has another content.
        """
        with self._reading() as connection:
            files = connection.execute("SELECT file, sha256 FROM segments ORDER BY first").fetchall()
        for file, wanted in files:
            path = self._folder / FOLDER / file
            if not path.is_file() or sha256(path) != wanted:
                raise TamperedError(f"{path} is not what was written; restore it from a copy.")
        return len(files)

    def newest(self) -> int:
        """The id of the newest row; 0 where there was none."""
        with self._reading() as connection:
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'facts'").fetchone()
            return 0 if found is None else int(found[0])

    def after(self, last: int, most: int) -> list[dict[str, Any]]:
        """The next rows after an id, without vectors, as dictionaries; what was moved to Parquet is left out."""
        names = ("id", "time", "request", "row", *LABELS, *NUMBERS)
        columns = ", ".join(f"s.{name}" if name in LABELS else f"f.{name}" for name in names)
        with self._reading() as connection:
            found = connection.execute(
                f"SELECT {columns} FROM facts f JOIN series s ON s.id = f.series WHERE f.id > ? ORDER BY f.id LIMIT ?",
                (last, most),
            )
            return [dict(zip(names, row, strict=True)) for row in found]

    # ------------------------------------------------------------------------------------------------- the reading

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the store, whatever is written meanwhile."""
        with contextlib.closing(connect_to_read(self._folder)) as connection:
            connection.execute("BEGIN")
            yield connection

    def _columns(self, choice: Choice, names: Sequence[str]) -> dict[str, Any]:
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt(choice, names)
            except FileNotFoundError:
                if attempt == ATTEMPTS - 1:
                    raise DataError(
                        f"{self._folder / FOLDER} lacks files that it should have; restore them or move the store away."
                    ) from None
        raise AssertionError

    def _attempt(self, choice: Choice, names: Sequence[str]) -> dict[str, Any]:
        with self._reading() as connection:
            series = self._series(connection, choice)
            parts = [self._hot(connection, choice, series, names)]
            files = connection.execute(
                "SELECT file, until FROM segments WHERE until >= ? AND since < ? ORDER BY until DESC",
                (choice.since, choice.until),
            ).fetchall()
        for file, until in files:
            later = sum(time > until for part in parts for time in part["time"])
            if choice.newest is not None and later >= choice.newest:
                break
            columns = read_segment(self._folder / FOLDER / file, choice.since, choice.until, names)
            parts.append(_chosen(columns, choice))
        out: dict[str, Any] = {}
        for name in names:
            joined = [value for part in parts for value in part[name]]
            out[name] = joined if name in (*VECTORS, "input") else np.array(joined, _type_of(name))
        return out

    def _series(self, connection: sqlite3.Connection, choice: Choice) -> dict[int, tuple[Any, ...]]:
        """Labels of the series that are asked for, by number."""
        found = connection.execute(f"SELECT id, {', '.join(LABELS)} FROM series")
        return {
            number: tuple(names) for number, *names in found if _wanted(dict(zip(LABELS, names, strict=True)), choice)
        }

    def _hot(
        self, connection: sqlite3.Connection, choice: Choice, series: dict[int, tuple[Any, ...]], names: Sequence[str]
    ) -> dict[str, list[Any]]:
        stored = [name for name in names if name not in LABELS]
        columns = ", ".join("i.content" if name == "input" else f"f.{name}" for name in stored)
        found = connection.execute(
            f"""SELECT f.series, {columns} FROM facts f {"JOIN inputs i ON i.fact = f.id" if "input" in names else ""}
            WHERE f.time >= ? AND f.time < ? AND f.id >= (SELECT value FROM meta WHERE key = 'hot')
            {"AND f.code IS NOT NULL" if choice.coded else ""} ORDER BY f.time DESC, f.id DESC""",
            (choice.since, choice.until),
        )
        rows = []
        for row in found:
            if row[0] in series:
                rows.append(row)
                if len(rows) == choice.newest:
                    break
        numbers, *rest = zip(*rows, strict=True) if rows else [()] * (len(stored) + 1)
        out = {name: list(column) for name, column in zip(stored, rest, strict=True)}
        for place, name in enumerate(LABELS):
            out[name] = [series[number][place] for number in numbers]
        return out


def _chosen(columns: dict[str, list[Any]], choice: Choice) -> dict[str, list[Any]]:
    """The rows of a file that are asked for, with vectors as bytes."""
    count = len(columns["time"])
    labels = [dict(zip(LABELS, names, strict=True)) for names in zip(*(columns[name] for name in LABELS), strict=True)]
    codes = columns.get("code", [None] * count)
    kept = [
        place
        for place in range(count)
        if _wanted(labels[place], choice) and not (choice.coded and codes[place] is None)
    ]
    out = {name: [values[place] for place in kept] for name, values in columns.items()}
    return out | {name: pack(out[name]) for name in VECTORS if name in out}


def _wanted(labels: dict[str, Any], choice: Choice) -> bool:
    for name in ("model", "version", "alias", "verb", "gate"):
        if getattr(choice, name) is not None and labels[name] != getattr(choice, name):
            return False
    if labels["verb"] == IDLE and not choice.idle and choice.verb != IDLE:
        return False
    return choice.answered is None or (labels["status"] < 400) == choice.answered


def _type_of(name: str) -> Any:
    return {"id": np.int64, "row": np.int64, "status": np.int64}.get(
        name, np.float64 if name in ("time", *NUMBERS) else np.str_
    )


COUNTS = "sum(rows), sum(requests)"
SUMS = "sum(n), sum(total), sum(log_total), sum(log_squares), max(highest)"


def _spans(
    connection: sqlite3.Connection, table: str, where: str, choice: Choice, width: int, keys: str, sums: str
) -> Array:
    """Roll-ups by so many minutes: the first minute, the keys, and the sums."""
    return _rows(
        connection,
        f"""SELECT minute / {width} * {width} AS span, {keys}, {sums} FROM {table}
        WHERE minute >= ? AND minute < ? AND {where} GROUP BY span, {keys}""",
        _minutes_of(choice),
    )


def _listed(numbers: Iterable[int]) -> str:
    """Numbers for `IN (...)`; without any, what nothing is in."""
    return ", ".join(map(str, numbers)) or "NULL"


def _rows(connection: sqlite3.Connection, query: str, values: tuple[float, ...]) -> Array:
    found = connection.execute(query, values)
    return np.array(found.fetchall(), np.float64).reshape(-1, len(found.description))


def _minutes_of(choice: Choice) -> tuple[float, float]:
    return choice.since // 60, np.ceil(choice.until / 60) if np.isfinite(choice.until) else 1e18


Named = dict[str, Array]


def _rolled(minutes: Array, numbers: Array, series: dict[int, tuple[Any, ...]]) -> Minutes:
    """Sums over series, by the minute."""
    minutes = minutes[np.isin(minutes[:, 1], list(series))]
    numbers = numbers[np.isin(numbers[:, 1], list(series))]
    when, places = np.unique(minutes[:, 0], return_inverse=True)
    status, verb = LABELS.index("status"), LABELS.index("verb")
    failed = np.array([series[int(number)][status] >= 400 for number in minutes[:, 1]], bool)
    asked = np.array([series[int(number)][verb] != IDLE for number in minutes[:, 1]], bool)
    rows, requests, lost = (
        np.bincount(places, weights * asked, len(when)).astype(np.int64)
        for weights in (minutes[:, 2], minutes[:, 3], minutes[:, 2] * failed)
    )
    n, mean, log_mean, log_variance, highest = Named(), Named(), Named(), Named(), Named()
    for kind, name in enumerate(ROLLED):
        part = numbers[numbers[:, 2] == kind]
        where = np.searchsorted(when, part[:, 0])
        count, total, logs, squares = (np.bincount(where, part[:, column], len(when)) for column in range(3, 7))
        top = np.full(len(when), np.nan)
        np.fmax.at(top, where, part[:, 7])
        with np.errstate(invalid="ignore", divide="ignore"):
            n[name], mean[name], log_mean[name] = count.astype(np.int64), total / count, logs / count
            log_variance[name] = np.maximum(squares / count - (logs / count) ** 2, 0.0)
        highest[name] = top
    return Minutes(when.astype(np.int64), rows, requests, lost, n, mean, log_mean, log_variance, highest)

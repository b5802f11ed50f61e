"""Retention: old rows move from SQLite to Parquet, and what is too old or too much goes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from lowerbound.errors import RunError, UsageError
from lowerbound.files import clear_drafts, exclusive
from lowerbound.service.monitoring.telemetry.database import connect
from lowerbound.service.monitoring.telemetry.periodic import Periodic
from lowerbound.service.monitoring.telemetry.segments import FOLDER, Segment, write_segment

LOCK = "house.lock"
DAY_S = 86400.0
AT_A_TIME = 2000  # rows deleted in one transaction, so that the writer does not wait for long
PAUSE_S = 0.02  # between two of them


@dataclass(frozen=True)
class Retention:
    """How much is kept.

    Attributes:
        days: raw rows are kept at most this long.
        bytes: that raw rows may take, SQLite and Parquet together.
        hot_hours: rows older than that are moved to Parquet, where pyarrow is installed.
        segment_rows: rows of one file, at most.
        minute_days: roll-ups are kept this long; totals for ever.
    """

    days: float = 14.0
    bytes: int = 5 * 10**9
    hot_hours: float = 24.0
    segment_rows: int = 100_000
    minute_days: float = 396.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise UsageError(f"a retention with {name} = {value} was given; it must be positive.")


@dataclass(frozen=True)
class Tidied:
    """What one round of housekeeping did.

    Attributes:
        moved: rows from SQLite to Parquet.
        expired: rows that went because they were too old or took too much room.
        minutes: roll-ups that went.
        bytes: that raw rows and roll-ups take now.
    """

    moved: int = 0
    expired: int = 0
    minutes: int = 0
    bytes: int = 0


def tidy(folder: Path, retention: Retention, now: float | None = None) -> Tidied | None:
    """One round of housekeeping, which a kill -9 may end anywhere; None if another process is at it.

    A row is visible in SQLite or in a file, never in both and never in none.

    Args:
        folder: of the store.
        retention: what to keep.
        now: seconds since 1970; the clock's if None.

    Raises:
        NotSavedError: the disk is full or failed.
        DataError: the folder holds another kind of store.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(folder / LOCK, "the housekeeping of telemetry"))
        except RunError:
            return None
        connection = held.enter_context(contextlib.closing(connect(folder)))
        return _House(folder, retention, time.time() if now is None else now, connection).tidy()


class _House:
    """The steps of one round, by the only one who does them."""

    def __init__(self, folder: Path, retention: Retention, now: float, connection: sqlite3.Connection) -> None:
        self._folder, self._retention, self._now, self._connection = folder, retention, now, connection

    def tidy(self) -> Tidied:
        self._remove_orphans()
        moved = self._move() if find_spec("pyarrow") else 0
        expired = self._expire_by_age() + self._expire_by_size()
        self._delete_moved()
        gone = self._connection.execute(
            "DELETE FROM minutes WHERE minute < ?", (self._before(self._retention.minute_days) // 60,)
        ).rowcount
        self._connection.execute(
            "DELETE FROM minute_numbers WHERE minute < ?", (self._before(self._retention.minute_days) // 60,)
        )
        self._connection.execute("PRAGMA incremental_vacuum(4096)").fetchall()
        return Tidied(moved, expired, gone, self._hot_bytes() + sum(segment.bytes for segment in self._segments()))

    def _before(self, days: float) -> float:
        return self._now - days * DAY_S

    def _segments(self) -> list[Segment]:
        return [Segment(*row) for row in self._connection.execute("SELECT * FROM segments ORDER BY first")]

    def _hot(self) -> int:
        """The id below which rows of SQLite are invisible."""
        return self._connection.execute("SELECT value FROM meta WHERE key = 'hot'").fetchone()[0]

    def _hot_bytes(self) -> int:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def _remove_orphans(self) -> None:
        """Files of a round that was killed before they counted, or after they did not."""
        known = {segment.file for segment in self._segments()}
        for path in (self._folder / FOLDER).glob("*.parquet"):
            if path.name not in known:
                clear_drafts(path)
                path.unlink()

    def _move(self) -> int:
        moved = 0
        while True:
            hot = self._hot()
            last = self._last_before(self._now - self._retention.hot_hours * 3600)
            if last < hot:
                return moved
            last = self._connection.execute(
                "SELECT max(id) FROM (SELECT id FROM facts WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?)",
                (hot, last, self._retention.segment_rows),
            ).fetchone()[0]
            if last is None:
                return moved
            segment = write_segment(self._connection, self._folder, hot, last)
            assert segment is not None
            self._connection.execute("BEGIN IMMEDIATE")
            values = tuple(asdict(segment).values())
            self._connection.execute(f"INSERT INTO segments VALUES ({', '.join('?' * len(values))})", values)
            self._hide(last)
            self._connection.execute("COMMIT")
            self._delete_moved()
            moved += segment.rows

    def _last_before(self, moment: float) -> int:
        """The last row that is older, in the order of ids; -1 if there is none."""
        found = self._connection.execute("SELECT max(id) FROM facts WHERE time < ?", (moment,)).fetchone()[0]
        return -1 if found is None else found

    def _hide(self, last: int) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'hot'", (last + 1,))

    def _delete_moved(self) -> None:
        hot = self._hot()
        while True:
            upto = self._connection.execute(
                "SELECT max(id) FROM (SELECT id FROM facts WHERE id < ? ORDER BY id LIMIT ?)", (hot, AT_A_TIME)
            ).fetchone()[0]
            if upto is None:
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM inputs WHERE fact <= ?", (upto,))
            self._connection.execute("DELETE FROM facts WHERE id <= ?", (upto,))
            self._connection.execute("COMMIT")
            time.sleep(PAUSE_S)

    def _expire_by_age(self) -> int:
        oldest = self._before(self._retention.days)
        gone = sum(self._drop(segment) for segment in self._segments() if segment.until < oldest)
        return gone + self._drop_hot(self._last_before(oldest))

    def _expire_by_size(self) -> int:
        """The oldest files first, then the oldest rows."""
        gone = 0
        segments = self._segments()
        excess = self._hot_bytes() + sum(segment.bytes for segment in segments) - self._retention.bytes
        for segment in segments:
            if excess <= 0:
                return gone
            gone += self._drop(segment)
            excess -= segment.bytes
        rows, first = self._connection.execute("SELECT count(*), min(id) FROM facts").fetchone()
        if excess > 0 and rows:
            share = min(1.0, excess / self._hot_bytes())
            gone += self._drop_hot(first - 1 + int(share * rows + 1))
        return gone

    def _drop(self, segment: Segment) -> int:
        self._connection.execute("DELETE FROM segments WHERE file = ?", (segment.file,))
        (self._folder / FOLDER / segment.file).unlink(missing_ok=True)
        return segment.rows

    def _drop_hot(self, last: int) -> int:
        hot = self._hot()
        if last < hot:
            return 0
        gone = self._connection.execute("SELECT count(*) FROM facts WHERE id BETWEEN ? AND ?", (hot, last)).fetchone()[
            0
        ]
        self._hide(last)
        self._delete_moved()
        return gone


def keep_house(folder: Path | str, retention: Retention | None = None, every_s: float = 60.0) -> Periodic:
    """A thread that tidies now and then; several processes may each have one, one at a time works."""
    return Periodic("telemetry-house", lambda: tidy(Path(folder), retention or Retention()), every_s)

"""Where fact rows go: a bounded buffer, one writing thread, and SQLite."""

from __future__ import annotations

import atexit
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import DataError
from lowerbound.service.monitoring.telemetry.buffer import Buffer, Counts
from lowerbound.service.monitoring.telemetry.database import LABELS, NUMBERS, VECTORS, SeriesIndex, connect
from lowerbound.service.monitoring.telemetry.fact import Fact, Privacy, digest
from lowerbound.service.monitoring.telemetry.rollups import Columns, add_rollups
from lowerbound.service.monitoring.telemetry.vectors import pack, pack_input

FLUSH_S = 0.2  # the stated window: what is older is committed, and survives a kill -9
AT_ONCE = 4096  # rows that wake the writer before its time
LONGEST_WAIT_S = 5.0  # between attempts at a disk that is full
LATEST = 1e11  # seconds; no clock is that wrong
EVERY_S = 60.0  # between two lines of the log about one trouble

COLUMNS = ("time", "series", "request", "row", *NUMBERS, "digest", *VECTORS)
INSERT = f"INSERT INTO facts ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
ADD_LOSS = "INSERT INTO losses VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"
labels_of = attrgetter(*LABELS)
plain_of = attrgetter("time", "request", "row", *NUMBERS)

logger = logging.getLogger(__name__)


class Telemetry:
    """The sink of fact rows: call it with each; it never raises and never waits.

    Make it in the process that uses it, after a fork. Several processes may write to one folder: each has one writing
    thread, and SQLite lets one transaction in at a time.

    Args:
        folder: of the store; made where it is missing.
        privacy: what is kept of inputs.
        flush_s: the window: a row is committed at most this long, and the time of one transaction, after it was
            accepted, while the disk takes it.
        most_rows: that may wait; further ones are refused and counted.
        most_bytes: of inputs that may wait; further rows are written without their input, and counted.

    Raises:
        DataError: the folder holds another kind of store.
        UsageError: nothing may be written there.
        NotSavedError: the disk is full or failed.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        privacy: Privacy | None = None,
        flush_s: float = FLUSH_S,
        most_rows: int = 65536,
        most_bytes: int = 64 * 2**20,
    ) -> None:
        self.folder = Path(folder)
        self._privacy = privacy or Privacy()
        self._flush_s = flush_s
        self._buffer = Buffer(most_rows, most_bytes)
        self._connection = connect(self.folder)
        self._series = SeriesIndex(self._connection)
        self._salt: bytes = self._connection.execute("SELECT value FROM meta WHERE key = 'salt'").fetchone()[0]
        self._said: dict[str, int] = {}
        self._warned = -EVERY_S
        self._trouble = ""
        self._wake, self._ended = threading.Event(), threading.Event()
        self._idle = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, fact: Fact) -> bool:
        """Take a row; False if it was refused, and counted, because too many wait or the store is closed."""
        size = 0
        if fact.input is not None:
            if self._privacy.digests:
                size = int(getattr(fact.input, "nbytes", 0))
            else:
                fact = fact._replace(input=None)
        waiting = 0 if self._ended.is_set() else self._buffer.put(fact, size)
        if waiting >= AT_ONCE:
            self._wake.set()
        return waiting > 0

    @property
    def counts(self) -> Counts:
        """What happened to the rows of this process."""
        return self._buffer.counts()

    @property
    def trouble(self) -> str:
        """Why rows cannot be written now; empty if they can."""
        return self._trouble

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all rows that were accepted are committed or lost; whether they are, in time."""

        def settled() -> bool:
            counts = self.counts
            return counts.committed + counts.bad + counts.disk >= aim

        aim = self.counts.recorded
        self._wake.set()
        with self._idle:
            return self._idle.wait_for(settled, timeout_s)

    def close(self) -> None:
        """Write what waits, and stop; what the disk does not take now is lost, counted and said."""
        atexit.unregister(self.close)
        self._ended.set()
        self._wake.set()
        self._thread.join()
        late = len(self._buffer.take())  # accepted while it was being closed
        if late:
            self._settle(disk=late)

    # ------------------------------------------------------------------------------------------ the writing thread

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(self._flush_s)
            self._wake.clear()
            self._turn()
        self._turn()
        self._connection.close()

    def _turn(self) -> None:
        """Write what waits, however long the disk refuses it."""
        facts = self._buffer.take()
        wait_s = self._flush_s
        while True:
            try:
                bad = self._write(facts)
            except sqlite3.Error as error:
                self._roll_back()
                self._trouble = str(error)
                self._warn(f"telemetry cannot be written ({error}); rows wait, and are dropped when too many do")
                if self._ended.wait(wait_s):
                    self._give_up(facts)
                    return
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            except Exception:  # a fault of this program must not end the thread
                logger.exception("telemetry lost %d rows by a fault", len(facts))
                self._roll_back()
                self._settle(bad=len(facts))
                return
            else:
                self._trouble = ""
                self._settle(committed=len(facts) - bad, bad=bad)
                return

    def _give_up(self, facts: Sequence[Fact]) -> None:
        """A last attempt, when the store is being closed."""
        try:
            bad = self._write(facts)
        except Exception as error:
            self._roll_back()
            logger.error("telemetry lost %d rows: %s", len(facts), error)
            self._settle(disk=len(facts))
        else:
            self._settle(committed=len(facts) - bad, bad=bad)

    def _settle(self, *, committed: int = 0, bad: int = 0, disk: int = 0) -> None:
        self._buffer.done(committed=committed, bad=bad, disk=disk)
        with self._idle:
            self._idle.notify_all()

    def _roll_back(self) -> None:
        self._series.forget()
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the next attempt begins anew or fails the same way
                self._connection.execute("ROLLBACK")

    def _write(self, facts: Sequence[Fact]) -> int:
        """One transaction with the rows, their roll-ups and what was lost; how many rows were no facts."""
        losses = {cause: rows - self._said.get(cause, 0) for cause, rows in self.counts.lost.items()}
        if not facts and not any(losses.values()):
            return 0
        self._connection.execute("BEGIN IMMEDIATE")
        good = self._insert(facts)
        bad = len(facts) - good
        minute = int(time.time() // 60)
        added = [(minute, cause, rows) for cause, rows in losses.items() if rows]
        self._connection.executemany(ADD_LOSS, [*added, (minute, "bad", bad)] if bad else added)
        self._connection.execute("COMMIT")
        for cause, rows in losses.items():
            self._said[cause] = self._said.get(cause, 0) + rows + (bad if cause == "bad" else 0)
        if any(losses.values()) or bad:
            self._warn(f"telemetry dropped rows: {losses | {'bad': bad}}")
        return bad

    def _insert(self, facts: Sequence[Fact]) -> int:
        """Write the rows that are facts, all at once if they all are; how many."""
        if not facts:
            return 0
        self._connection.execute("SAVEPOINT rows")
        try:
            self._insert_all(facts)
            good = len(facts)
        except Exception as error:
            _raise_of_disk(error)
            self._connection.execute("ROLLBACK TO rows")
            self._series.forget()
            good = self._insert_each(facts)
        self._connection.execute("RELEASE rows")
        return good

    def _insert_each(self, facts: Sequence[Fact]) -> int:
        good = 0
        for fact in facts:
            self._connection.execute("SAVEPOINT one")
            try:
                self._insert_all([fact])
                good += 1
            except Exception as error:
                _raise_of_disk(error)
                self._connection.execute("ROLLBACK TO one")
                self._series.forget()
            self._connection.execute("RELEASE one")
        return good

    def _insert_all(self, facts: Sequence[Fact]) -> None:
        plain = list(zip(*map(plain_of, facts), strict=True))
        times = np.array(plain[0], np.float64)
        if not ((times >= 0) & (times < LATEST)).all():
            raise DataError("the time of a fact is not in seconds since 1970.")
        series = [self._series.number(labels) for labels in map(labels_of, facts)]
        columns: list[Sequence[Any]] = [plain[0], series, *plain[1:], self._digests(facts)]
        columns += [
            pack([getattr(fact, name) for fact in facts]) if self._privacy.vectors else [None] * len(facts)
            for name in VECTORS
        ]
        self._connection.executemany(INSERT, zip(*columns, strict=True))
        self._insert_inputs(facts)
        numbers = {name: np.array(column, np.float64) for name, column in zip(NUMBERS, plain[3:], strict=True)}
        minute = (times // 60).astype(np.int64)
        add_rollups(self._connection, Columns(minute, np.array(series), np.array(plain[2], np.int64), numbers))

    def _digests(self, facts: Sequence[Fact]) -> list[bytes | None]:
        if not self._privacy.digests:
            return [None] * len(facts)
        return [None if fact.input is None else digest(np.asarray(fact.input), self._salt) for fact in facts]

    def _insert_inputs(self, facts: Sequence[Fact]) -> None:
        """The inputs of the rows that were just written; their ids are the newest, in order."""
        kept = [
            (place, pack_input(fact.input))
            for place, fact in enumerate(facts)
            if fact.input is not None and self._privacy.samples(fact.request)
        ]
        if kept:
            first = self._connection.execute("SELECT max(id) FROM facts").fetchone()[0] - len(facts) + 1
            self._connection.executemany(
                "INSERT INTO inputs VALUES (?, ?)", [(first + place, content) for place, content in kept]
            )

    def _warn(self, text: str) -> None:
        """Say it, at most once a minute."""
        if time.monotonic() - self._warned >= EVERY_S:
            self._warned = time.monotonic()
            logger.warning("%s", text)


def _raise_of_disk(error: Exception) -> None:
    """Raise what SQLite says of the disk; what it says of a value, or what else is wrong, concerns single rows."""
    of_values = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)
    if isinstance(error, sqlite3.Error) and not isinstance(error, of_values):
        raise error

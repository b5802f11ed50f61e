"""The rows that wait to be written: bounded, and what does not fit is counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lowerbound.service.monitoring.telemetry.fact import Fact


@dataclass(frozen=True)
class Counts:
    """Rows since the start of this process.

    Attributes:
        recorded: that were accepted.
        committed: that were written; a kill -9 does not lose them.
        full: refused because the buffer was full.
        bad: accepted, and no fact that can be written.
        disk: accepted, and lost because the disk took none until the end.
        inputs: facts that were written without their input, because too many bytes waited.
    """

    recorded: int = 0
    committed: int = 0
    full: int = 0
    bad: int = 0
    disk: int = 0
    inputs: int = 0

    @property
    def lost(self) -> dict[str, int]:
        """What is not in the store, by cause."""
        return {"full": self.full, "bad": self.bad, "disk": self.disk, "inputs": self.inputs}


class Buffer:
    """A queue that refuses rather than grows.

    Args:
        most_rows: that may wait, taken but uncommitted ones included.
        most_bytes: of inputs that may wait.
    """

    def __init__(self, most_rows: int, most_bytes: int) -> None:
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._rows: list[Fact] = []
        self._bytes = self._taken = self._taken_bytes = 0
        self._lock = threading.Lock()
        self._counts = Counts()
        self._recorded = self._full = self._inputs = 0

    def put(self, fact: Fact, size: int) -> int:
        """Take a row whose input has this size; the number that now wait, or 0 if it was refused."""
        with self._lock:
            waiting = len(self._rows) + self._taken
            if waiting >= self._most_rows:
                self._full += 1
                return 0
            if size:
                if self._bytes + self._taken_bytes + size > self._most_bytes:
                    self._inputs += 1
                    fact = fact._replace(input=None)
                else:
                    self._bytes += size
            self._rows.append(fact)
            self._recorded += 1
            return waiting + 1

    def take(self) -> Sequence[Fact]:
        """All rows that wait; they count as waiting until `done`."""
        with self._lock:
            rows, self._rows = self._rows, []
            self._taken, self._taken_bytes, self._bytes = len(rows), self._bytes, 0
            return rows

    def done(self, *, committed: int = 0, bad: int = 0, disk: int = 0) -> None:
        """What became of the rows that were taken."""
        with self._lock:
            self._taken = self._taken_bytes = 0
            known = self._counts
            self._counts = Counts(committed=known.committed + committed, bad=known.bad + bad, disk=known.disk + disk)

    def counts(self) -> Counts:
        """What happened so far."""
        with self._lock:
            return replace(self._counts, recorded=self._recorded, full=self._full, inputs=self._inputs)

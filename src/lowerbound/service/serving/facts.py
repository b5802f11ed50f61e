"""One fact row for each row of each request: what is known of it, kept in a bounded buffer until a sink takes it."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import UsageError
from lowerbound.service.serving.payload import Array, Arrays

EVERY_S = 0.25  # between two visits of the sink
MOST = 50_000  # requests that wait for it
logger = logging.getLogger("lowerbound.serving")


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of one request; arrays have a row for each of its rows.

    Attributes:
        time: of its end, seconds since 1970.
        request, model, version, verb: of it; the version is "" where none was assigned.
        status, reason: of its answer; the reason is None where it was answered.
        queue_s, decode_s, compute_s, total_s: where the time went.
        outputs: of the engine; what a verb did not compute is absent.
        groups: names of the codes among them.
    """

    time: float
    request: str
    model: str
    version: str
    verb: str
    status: int
    reason: str | None
    queue_s: float
    decode_s: float
    compute_s: float
    total_s: float
    outputs: Arrays
    groups: tuple[str, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One record for each row; null where a verb did not compute a thing. Codes and rates are float16 in base64."""
        shared = {
            "time": round(self.time, 6),
            "request": self.request,
            "model": self.model,
            "version": self.version,
            "verb": self.verb,
            "status": self.status,
            "reason": self.reason,
            "queue_s": round(self.queue_s, 6),
            "compute_s": round(self.compute_s, 6),
            "total_s": round(self.total_s, 6),
        }
        outputs = self.outputs
        scores = [name for name in ("error", "rate", "norm", "p_value") if name in outputs]
        count = len(next(iter(outputs.values()))) if outputs else 1
        for row in range(count):
            found: dict[str, Any] = {"error": None, "rate": None, "norm": None, "p_value": None}
            found.update((name, float(outputs[name][row])) for name in scores)
            codes = {name: packed(outputs[name][row]) for name in self.groups if name in outputs}
            rates = packed(outputs["rates"][row]) if "rates" in outputs else None
            yield {**shared, "row": row, **found, "rates": rates, "code": codes or None}


def packed(values: Array) -> str:
    """Numbers as little-endian float16 (whole numbers as int32) in base64."""
    kind = "<f2" if values.dtype.kind == "f" else "<i4"
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


Entry = Fact | dict[str, Any]
Sink = Callable[[Sequence[Entry]], None]


class Facts:
    """A bounded buffer, and a thread that brings what is in it to a sink.

    Args:
        sink: takes entries, in order.
        most: entries that may wait; what comes then is dropped, and counted.

    Attributes:
        dropped: how many were.
    """

    def __init__(self, sink: Sink, most: int = MOST) -> None:
        self._sink, self._most = sink, most
        self._waiting: deque[Entry] = deque()
        self.dropped = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="facts", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Keep an entry, or count it as dropped."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
        else:
            self._waiting.append(entry)

    def close(self) -> None:
        """Bring what waits to the sink, and end."""
        self._ended.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._empty()
        self._empty()

    def _empty(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        try:
            self._sink(batch)
        except Exception as error:  # serving goes on without its record, and says so
            if not self.dropped:
                logger.error("facts cannot be written, and are dropped: %s", error)
            self.dropped += len(batch)


class LinesFile:
    """A sink that appends JSON lines to a file, which several processes may share.

    Args:
        path: of the file.

    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as error:
            raise UsageError(f"--facts {path} cannot be written ({error.strerror}); choose another place.") from None

    def __call__(self, entries: Sequence[Entry]) -> None:
        lines: list[str] = []
        for entry in entries:
            records = entry.rows() if isinstance(entry, Fact) else (entry,)
            lines.extend(json.dumps(record, allow_nan=False) for record in records)
        content = ("\n".join(lines) + "\n").encode()
        while content:  # one call for whole lines where the system takes them; a disk may take less
            content = content[os.write(self._file, content) :]


def nowhere(entries: Sequence[Entry]) -> None:
    """A sink for those who keep no facts."""

"""Work that a thread does now and then, and that may fail."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable

from lowerbound.errors import LowerboundError

logger = logging.getLogger(__name__)


class Periodic:
    """A thread that calls `work` now and then; what it raises is said once until it succeeds again.

    Args:
        name: of the work, for the log.
        work: to do.
        every_s: between the end of one call and the next.

    Attributes:
        failures: calls in a row that failed.
    """

    def __init__(self, name: str, work: Callable[[], object], every_s: float) -> None:
        self._name, self._work, self._every_s = name, work, every_s
        self.failures = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Periodic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End after the call that is under way."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._work()
            except (LowerboundError, sqlite3.Error, OSError) as error:
                if not self.failures:
                    logger.warning("%s failed and will be tried again: %s", self._name, error)
                self.failures += 1
            else:
                self.failures = 0

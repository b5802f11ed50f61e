"""Logs as JSON lines on standard error: time, level, process, message."""

from __future__ import annotations

import json
import logging
import sys


class JsonLines(logging.Formatter):
    """One record, one line.

    Args:
        process: the name of this one.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        found = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found)


def log_lines(process: str) -> None:
    """Log in this way from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)

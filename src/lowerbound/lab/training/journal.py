"""The journal of a run: one JSON row per line, written as it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lowerbound.errors import RunError
from lowerbound.files import write_text

Row = dict[str, Any]


def read_journal(path: Path) -> list[Row]:
    """The rows of a journal; a last line torn by a crash is left out.

    Raises:
        RunError: a line before the last is no row: the file was changed.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no text
            row = None
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
        elif number < len(lines):
            raise RunError(f"{path}: line {number} is not a row of a journal; the file was changed.")
    return rows


class Journal:
    """Appends rows; each reaches the operating system at once, so that a crash of the process loses none.

    Args:
        path: of the file.
        step: rows after this step are dropped first: a resumed run writes them again.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [row for row in read_journal(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """No more rows."""
        self._file.close()

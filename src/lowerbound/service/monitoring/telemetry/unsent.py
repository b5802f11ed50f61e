"""Rows of a store that were not sent somewhere yet; where sending stopped is kept in the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lowerbound.service.monitoring.telemetry.database import connect
from lowerbound.service.monitoring.telemetry.history import History

Send = Callable[[list[dict[str, Any]], int], None]


def send_new(folder: Path, cursor: str, batch: int, send: Send) -> int:
    """Give new rows to `send`, in order; how many were sent.

    Args:
        folder: of the store.
        cursor: under which the place is kept.
        batch: rows at a time.
        send: takes rows as `History.after` gives them, and the number of rows before them that had moved to Parquet
            before they could be sent. What it raises ends this, and its rows are given again next time.
    """
    history, sent = History(folder), 0
    with contextlib.closing(connect(folder)) as connection:
        while True:
            found = connection.execute("SELECT last FROM cursors WHERE name = ?", (cursor,)).fetchone()
            last = found[0] if found else 0
            facts = history.after(last, batch)
            if not facts:
                return sent
            send(facts, facts[0]["id"] - last - 1)
            connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (cursor, facts[-1]["id"]))
            sent += len(facts)

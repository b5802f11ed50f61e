"""Fact rows for InfluxDB, by its line protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lowerbound.service.monitoring.telemetry.database import LABELS, NUMBERS
from lowerbound.service.monitoring.telemetry.post import post
from lowerbound.service.monitoring.telemetry.unsent import send_new

MEASUREMENT = "lowerbound"
CURSOR = "influx"


def line(fact: dict[str, Any]) -> str:
    """One row of `History.after` in the line protocol: labels are tags, numbers and the request's id are fields.

    The time is exact to the microsecond; its last three digits are those of the row's number, so that rows of one
    microsecond do not replace one another, and a row that is sent twice replaces itself.
    """
    tags = "".join(f",{name}={_tag(str(fact[name]))}" for name in LABELS if str(fact[name]))
    fields = [f"{name}={fact[name]!r}" for name in NUMBERS if fact[name] is not None and abs(fact[name]) < float("inf")]
    text = fact["request"].replace("\\", "\\\\").replace('"', '\\"')
    fields += [f"row={fact['row']}i", f'request="{text}"']
    return f"{MEASUREMENT}{tags} {','.join(fields)} {round(fact['time'] * 1e6) * 1000 + fact['id'] % 1000}"


def _tag(text: str) -> str:
    """Special characters escaped; control characters, and a backslash at the end, would end the tag early."""
    text = "".join(letter if letter.isprintable() else "_" for letter in text)
    for letter in ", =":
        text = text.replace(letter, f"\\{letter}")
    return text + "_" if text.endswith("\\") else text


class InfluxExporter:
    """Sends rows of a store that were not sent yet; where it stopped is kept in the store.

    Args:
        folder: of the store.
        url: of the server, such as http://127.0.0.1:8086.
        database: of the server; a server of version 2 has a mapping of databases to buckets.
        token: for the header `Authorization: Token ...`, where the server wants one.
        batch: rows of one request.
        timeout_s: of one request.

    Attributes:
        skipped: rows that had moved to Parquet before they could be sent.
    """

    def __init__(
        self,
        folder: Path | str,
        url: str,
        database: str,
        *,
        token: str = "",
        batch: int = 5000,
        timeout_s: float = 10.0,
    ) -> None:
        self._folder, self._batch, self._timeout_s = Path(folder), batch, timeout_s
        self._url = f"{url.rstrip('/')}/write?{urlencode({'db': database, 'precision': 'ns'})}"
        self._cursor = f"{CURSOR} {self._url}"
        self._headers = {"Content-Type": "text/plain; charset=utf-8"} | (
            {"Authorization": f"Token {token}"} if token else {}
        )
        self.skipped = 0

    def push(self) -> int:
        """Send what is new; how many rows.

        Raises:
            UsageError: the server refused them.
            NotSavedError: it could not be reached; what it did not take is sent at the next call.
        """
        return send_new(self._folder, self._cursor, self._batch, self._send)

    def _send(self, facts: list[dict[str, Any]], skipped: int) -> None:
        body = "\n".join(map(line, facts)).encode(errors="replace")
        post(self._url, body, self._headers, self._timeout_s)
        self.skipped += skipped

"""The history of a registry: rows that are only ever added, each with the hash of the one before it."""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from lowerbound.errors import RegistryError, TamperedError
from lowerbound.service.registry.database import history

START = "0" * 64  # stands before the first row
MOVES = ("promote", "rollback", "withdraw")


@dataclass(frozen=True)
class Entry:
    """One row of the history.

    Attributes:
        id: 1, 2, ... over the whole registry.
        time: UTC, ISO 8601; never before that of the row before.
        action: "add", "promote", "rollback", "withdraw" (an alias is taken off) or "settings".
        name: whose.
        alias: that moved, if one did.
        number: of the version that was added, or that the alias points to now.
        before: the number that the alias pointed to until then.
        version: hash of the version `number`.
        why: in the words of who did it.
        who: user and machine.
        previous: hash of the row before.
        hash: of this row, with `previous` in it.
    """

    id: int
    time: str
    action: str
    name: str
    alias: str | None
    number: int | None
    before: int | None
    version: str | None
    why: str
    who: str
    previous: str
    hash: str

    def sealed(self) -> Entry:
        """The same row with its hash."""
        content = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "hash"}
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        return replace(self, hash=hashlib.sha256(text.encode()).hexdigest())

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def append(
    connection: Connection,
    action: str,
    name: str,
    why: str,
    *,
    alias: str | None = None,
    number: int | None = None,
    before: int | None = None,
    version: str | None = None,
) -> Entry:
    """Add a row within a change of the registry."""
    last = newest(connection)
    now = _text(datetime.now(UTC))
    entry = Entry(
        id=(last.id if last else 0) + 1,
        time=max(now, last.time) if last else now,
        action=action,
        name=name,
        alias=alias,
        number=number,
        before=before,
        version=version,
        why=why,
        who=f"{_user()}@{socket.gethostname()}",
        previous=last.hash if last else START,
        hash="",
    ).sealed()
    connection.execute(insert(history).values(asdict(entry)))
    return entry


def newest(connection: Connection) -> Entry | None:
    """The last row."""
    row = connection.execute(select(history).order_by(history.c.id.desc()).limit(1)).first()
    return Entry(*row) if row else None


def entries(connection: Connection, name: str | None = None) -> list[Entry]:
    """The rows of a name, or all, in order."""
    query = select(history).order_by(history.c.id)
    return [Entry(*row) for row in connection.execute(query if name is None else query.where(history.c.name == name))]


def check_chain(rows: Sequence[Entry]) -> None:
    """Check that no row was changed, taken out or put between.

    Raises:
        TamperedError: one was; the first is named.
    """
    previous = START
    for place, row in enumerate(rows, start=1):
        if row.id != place or row.previous != previous or row.sealed().hash != row.hash:
            raise TamperedError(
                f"the history of the registry was changed at row {place}: its hash does not follow from the row before "
                "it; restore the registry from a copy."
            )
        previous = row.hash


def standing(rows: Sequence[Entry]) -> dict[tuple[str, str], Entry]:
    """By name and alias, the row that made each alias point where it does after these rows."""
    found: dict[tuple[str, str], Entry] = {}
    for row in rows:
        if row.action not in MOVES or row.alias is None:
            continue
        found.pop((row.name, row.alias), None)
        if row.number is not None:
            found[row.name, row.alias] = row
    return found


def way_back(rows: Sequence[Entry], alias: str) -> list[int]:
    """The versions that an alias of one name can go back through, the present one last: promotions less rollbacks."""
    way: list[int] = []
    for row in rows:
        if row.alias != alias or row.action not in MOVES:
            continue
        if row.action == "promote" and row.number is not None:
            way.append(row.number)
        elif row.action == "rollback":
            way.pop()
        else:
            way.clear()
    return way


def moment(text: str) -> str:
    """A time as rows have it; a time without a zone is local, and a date alone is its end.

    Raises:
        RegistryError: it is no time.
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise RegistryError(f"{text} is no time; give it as 2026-11-21, 2026-11-21T14:30 or with a zone.") from None
    if len(text) == len("2026-11-21"):
        given = given.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return _text(given.astimezone(UTC))


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"

"""Tasks that are due at a time, and who has one in hand: in the registry's database, so that two never do one twice."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, update

from lowerbound.errors import ConflictError
from lowerbound.service.registry.database import Database, tasks

NEVER = 1e15  # seconds since 1970: a task that waits until it is called for


@dataclass(frozen=True)
class Lease:
    """A task that is in hand.

    Attributes:
        name: of the model.
        task: what is to be done.
        due: when it was, seconds since 1970; whoever takes the task over from a dead holder sees the same.
        holder: who has it.
    """

    name: str
    task: str
    due: float
    holder: str


@dataclass(frozen=True)
class Task:
    """What is to be done, and when.

    Attributes:
        name, task: of which model, and what.
        due: seconds since 1970.
        holder: who has it in hand, if somebody has.
        until: when that lease ends, unless it is renewed.
        last: when the task was last done; None if it never was.
    """

    name: str
    task: str
    due: float
    holder: str | None
    until: float | None
    last: float | None


class Leases:
    """The tasks of a registry. Times are the callers': their clocks must agree to well within a lease.

    Args:
        database: of the registry.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def plan(self, name: str, task: str, due: float) -> Task:
        """Make a task known; one that is known already stays as it is. Returns it as it is."""
        with self._database.writing() as connection:
            found = _find(connection, name, task)
            if found is None:
                connection.execute(insert(tasks).values(name=name, task=task, due=due))
                found = _find(connection, name, task)
        assert found is not None
        return _task(found)

    def tasks(self) -> list[Task]:
        """All of them, by name."""
        with self._database.writing() as connection:  # which makes the table in registries that have none yet
            return [_task(row) for row in connection.execute(select(tasks).order_by(tasks.c.name, tasks.c.task))]

    def call(self, name: str, task: str, now: float, rest_s: float = 0.0) -> bool:
        """Let a task be due now, if nobody has it in hand, it is not due yet, and it was not done within `rest_s`.

        Returns:
            Whether it is due because of this call.
        """
        with self._database.writing() as connection:
            found = _find(connection, name, task)
            if found is None or found.due <= now or _held(found, now):
                return False
            if found.last is not None and now - found.last < rest_s:
                return False
            _set(connection, name, task, due=now)
            return True

    def take(self, name: str, task: str, holder: str, now: float, lease_s: float) -> Lease | None:
        """Take a task that is due, unless somebody has it in hand whose lease has not ended."""
        with self._database.writing() as connection:
            found = _find(connection, name, task)
            if found is None or found.due > now or _held(found, now):
                return None
            _set(connection, name, task, holder=holder, until=now + lease_s)
            return Lease(name, task, found.due, holder)

    def renew(self, lease: Lease, now: float, lease_s: float) -> None:
        """Keep a task in hand.

        Raises:
            ConflictError: somebody else has it now.
        """
        with self._database.writing() as connection:
            _own(connection, lease)
            _set(connection, lease.name, lease.task, until=now + lease_s)

    def finish(self, lease: Lease, now: float, due: float) -> None:
        """Put a task down that was done, and say when it is due again.

        Raises:
            ConflictError: somebody else has it now.
        """
        with self._database.writing() as connection:
            _own(connection, lease)
            _set(connection, lease.name, lease.task, holder=None, until=None, due=due, last=now)

    def put_down(self, lease: Lease, until: float) -> None:
        """Put a task down that was not done: it stays due, and may be taken up again from a time on.

        Raises:
            ConflictError: somebody else has it now.
        """
        with self._database.writing() as connection:
            _own(connection, lease)
            _set(connection, lease.name, lease.task, holder="", until=until)


def next_due(due: float, every_s: float, now: float) -> float:
    """The first time after now that is a whole number of periods after a time: what was missed is not made up for."""
    return due + every_s * max(1, math.floor((now - due) / every_s) + 1)


def _find(connection: Connection, name: str, task: str) -> Row | None:
    return connection.execute(select(tasks).where(tasks.c.name == name, tasks.c.task == task)).first()


def _held(row: Row, now: float) -> bool:
    return row.until is not None and row.until > now


def _own(connection: Connection, lease: Lease) -> None:
    found = _find(connection, lease.name, lease.task)
    if found is None or found.holder != lease.holder or found.due != lease.due:
        raise ConflictError(
            f"{lease.holder} has the task {lease.task} of {lease.name} in hand no more: its lease ended, and somebody "
            "else took it."
        )


def _set(connection: Connection, name: str, task: str, **values: str | float | None) -> None:
    connection.execute(update(tasks).where(tasks.c.name == name, tasks.c.task == task).values(values))


def _task(row: Row) -> Task:
    return Task(row.name, row.task, row.due, row.holder or None, row.until, row.last)

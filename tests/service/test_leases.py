"""Tasks in the registry's database: taken by one, kept alive, taken over; in SQLite and in PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from lowerbound.errors import ConflictError
from lowerbound.service.registry.leases import NEVER, Leases, next_due
from lowerbound.service.registry.registry import Registry

NOW, DAY = 1_750_000_000.0, 86400.0


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    if request.param == "sqlite":
        return str(tmp_path / "registry"), tmp_path / "files"
    return request.getfixturevalue("database"), tmp_path / "files"


@pytest.fixture
def leases(where: tuple[str, Path]) -> Leases:
    found = Registry(*where).leases()
    found.plan("digits", "weekly", NOW)
    return found


def test_a_task_is_taken_by_one_and_done_once(leases: Leases) -> None:
    assert leases.take("digits", "weekly", "a", NOW - 1, 60) is None, "it is not due"
    assert leases.take("digits", "monthly", "a", NOW, 60) is None, "there is no such task"
    lease = leases.take("digits", "weekly", "a", NOW, 60)
    assert lease is not None
    assert lease.due == NOW
    assert leases.take("digits", "weekly", "b", NOW + 59, 60) is None
    leases.finish(lease, NOW + 59, NOW + 7 * DAY)
    assert leases.take("digits", "weekly", "b", NOW + 61, 60) is None, "it is done until it is due again"
    (task,) = leases.tasks()
    assert (task.due, task.holder, task.last) == (NOW + 7 * DAY, None, NOW + 59)
    assert leases.plan("digits", "weekly", NOW) == task, "what is known stays as it is"


def test_a_lease_that_ended_is_taken_over_and_its_holder_is_told(leases: Leases) -> None:
    dead = leases.take("digits", "weekly", "a", NOW, 60)
    assert dead is not None
    leases.renew(dead, NOW + 50, 60)
    assert leases.take("digits", "weekly", "b", NOW + 100, 60) is None
    other = leases.take("digits", "weekly", "b", NOW + 111, 60)
    assert other is not None
    assert other.due == dead.due, "the same task"
    for late in (
        lambda: leases.renew(dead, NOW + 112, 60),
        lambda: leases.finish(dead, NOW + 112, NOW + DAY),
        lambda: leases.put_down(dead, NOW + 112),
    ):
        with pytest.raises(ConflictError, match="somebody else took it"):
            late()
    leases.finish(other, NOW + 120, NOW + DAY)


def test_what_could_not_be_done_waits(leases: Leases) -> None:
    lease = leases.take("digits", "weekly", "a", NOW, 60)
    assert lease is not None
    leases.put_down(lease, NOW + 600)
    assert leases.take("digits", "weekly", "b", NOW + 599, 60) is None
    again = leases.take("digits", "weekly", "b", NOW + 600, 60)
    assert again is not None
    assert again.due == NOW


def test_a_task_is_called_for_once(leases: Leases) -> None:
    leases.plan("digits", "on-drift", NEVER)
    assert leases.take("digits", "on-drift", "a", NOW, 60) is None
    assert leases.call("digits", "on-drift", NOW)
    assert not leases.call("digits", "on-drift", NOW + 1), "it is due already"
    lease = leases.take("digits", "on-drift", "a", NOW + 2, 60)
    assert lease is not None
    assert lease.due == NOW
    assert not leases.call("digits", "on-drift", NOW + 3), "it is in hand"
    leases.finish(lease, NOW + 10, NEVER)
    assert not leases.call("digits", "on-drift", NOW + 20, rest_s=DAY)
    assert leases.call("digits", "on-drift", NOW + 11 + DAY, rest_s=DAY)
    assert not leases.call("digits", "nothing", NOW)


def test_of_many_at_once_one_takes_it(where: tuple[str, Path], leases: Leases) -> None:
    taken: list[object] = []

    def work(holder: str) -> None:
        taken.append(Registry(*where).leases().take("digits", "weekly", holder, NOW, 60))

    threads = [threading.Thread(target=work, args=(f"watcher {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 8
    assert sum(lease is not None for lease in taken) == 1


def test_a_registry_of_before_gets_the_table(tmp_path: Path) -> None:
    Registry(tmp_path).leases().plan("digits", "weekly", NOW)
    with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        connection.execute("DROP TABLE registry_tasks")
    registry = Registry(tmp_path)
    assert registry.names() == []
    assert registry.leases().plan("digits", "weekly", NOW).due == NOW


def test_what_was_missed_is_not_made_up_for() -> None:
    week = 7 * DAY
    assert next_due(NOW, week, NOW) == NOW + week
    assert next_due(NOW, week, NOW + 3) == NOW + week
    assert next_due(NOW, week, NOW + 5.5 * week) == NOW + 6 * week
    assert next_due(NOW, week, NOW + 6 * week) == NOW + 7 * week

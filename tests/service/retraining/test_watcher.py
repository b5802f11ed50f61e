"""Watchers: what is due is done, by one of them, and gone on with when it dies."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests_of_digits as digits

from lowerbound.files import read_json
from lowerbound.service.registry.leases import NEVER
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining import watcher as watching
from lowerbound.service.retraining.watcher import Event, Heartbeat, Schedule, Watcher, schedules

DAY = 86400.0


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose stable version was just made, and telemetry of the days after; not to be changed."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("made"), dirs_exist_ok=True))
    digits.send(folder / "telemetry", digits.moved(), start=born(Registry(folder / "registry")) + 6 * DAY)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place"))


def born(registry: Registry) -> float:
    return datetime.fromisoformat(registry.resolve(digits.NAME).created).timestamp()


def plans(folder: Path, tiers: dict[str, str]) -> tuple[Schedule, ...]:
    """Schedules that cost little."""
    (folder / "plan.toml").write_text("\n".join([*digits.PLAN, "training.epochs=1"]))
    return schedules(tiers, folder / "plan.toml")


def watcher(
    place: Path, now: float, tiers: dict[str, str] | None = None, where: str | None = None, **more: Any
) -> Watcher:
    registry = Registry(where or place / "registry", place / "registry" / "objects")
    tasks = plans(place, {"weekly": "incremental"} if tiers is None else tiers)
    return Watcher(
        [digits.NAME], registry, place / "telemetry", place / "out", tasks, clock=lambda: born(registry) + now, **more
    )


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events]


def jobs(place: Path) -> list[str]:
    folder = place / "out" / digits.NAME
    return sorted(path.name for path in folder.iterdir() if path.name != "suite") if folder.exists() else []


def test_what_is_due_is_done_once_and_again_when_it_is_due_again(place: Path) -> None:
    assert watcher(place, 6.9 * DAY).round() == []
    events = watcher(place, 7.1 * DAY).round()
    assert kinds(events) == ["done"], events
    assert "weekly (incremental): digits:2 is a candidate" in events[0].text
    assert watcher(place, 7.2 * DAY).round() == []
    (folder,) = jobs(place)
    registry = Registry(place / "registry")
    due = datetime.fromtimestamp(born(registry) + 7 * DAY, UTC)
    assert folder == f"weekly-{due:%Y-%m-%dT%H%M%S}"
    (task,) = registry.leases().tasks()
    assert task.due == pytest.approx(born(registry) + 14 * DAY, abs=1)
    assert task.holder is None


def test_drift_calls_for_an_emergency_once_a_day(place: Path) -> None:
    found: list[str | None] = ["unit 3 moved"]

    def look(name: str, now: float) -> str | None:
        return found[0]

    tiers = {"on-drift": "emergency"}
    events = watcher(place, 6.5 * DAY, tiers, looks=[look]).round()
    assert kinds(events)[0] == "drift"
    assert kinds(events)[1] in ("done", "refused")
    assert jobs(place)[0].startswith("on-drift-")
    assert kinds(watcher(place, 6.6 * DAY, tiers, looks=[look]).round()) == ["drift"], "it rests after one"
    found[0] = None
    assert watcher(place, 8.0 * DAY, tiers, looks=[look]).round() == []
    (task,) = Registry(place / "registry").leases().tasks()
    assert task.due == NEVER


def test_what_cannot_be_done_now_is_tried_again(place: Path) -> None:
    Registry(place / "registry").add(place / "first", digits.NAME, card="Another.")
    Registry(place / "registry").promote(digits.NAME, 2, "canary")
    assert kinds(watcher(place, 7.1 * DAY).round()) == ["waiting"]
    assert watcher(place, 7.1 * DAY + 1).round() == []
    Registry(place / "registry").rollback(digits.NAME, "canary")
    assert kinds(watcher(place, 7.1 * DAY + watching.RETRY_S + 1).round()) == ["done"]
    assert len(jobs(place)) == 1, "the same retraining went on"


def test_a_name_that_fails_does_not_stop_the_others(place: Path) -> None:
    registry = Registry(place / "registry")
    both = Watcher(
        ["nobody", digits.NAME],
        registry,
        place / "telemetry",
        place / "out",
        plans(place, {"weekly": "incremental"}),
        clock=lambda: born(registry) + 7.1 * DAY,
    )
    events = both.round()
    assert [(event.name, event.kind) for event in events] == [("nobody", "trouble"), (digits.NAME, "done")]


def test_a_lease_is_renewed_while_work_is_in_hand_and_a_lost_one_is_noticed(place: Path) -> None:
    leases = Registry(place / "registry").leases()
    leases.plan("digits", "weekly", 0.0)
    lease = leases.take("digits", "weekly", "a", time.time(), 0.3)
    assert lease is not None
    with Heartbeat(leases, lease, 0.3, time.time) as beat:
        time.sleep(0.9)
        assert leases.take("digits", "weekly", "b", time.time(), 60) is None
        assert not beat.lost
        later = time.time() + 100
        assert leases.take("digits", "weekly", "b", later, 60) is not None
        deadline = time.monotonic() + 10
        while not beat.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert beat.lost


# Of forking with threads: torch's sleep.
forked = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def children(work: Sequence[Callable[[], object]]) -> list[multiprocessing.context.ForkProcess]:
    context = multiprocessing.get_context("fork")
    found = [context.Process(target=each) for each in work]
    for process in found:
        process.start()
    return found


@forked
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_watchers_at_once_do_one_retraining(kind: str, place: Path, request: pytest.FixtureRequest) -> None:
    where = None
    if kind == "postgresql":
        where = request.getfixturevalue("database")
        registry = Registry(where, place / "registry" / "objects")
        registry.add(place / "first", digits.NAME, card="To be tried out.")
        registry.promote(digits.NAME, 1)

    def work() -> None:
        watcher(place, 7.1 * DAY, where=where).round()

    for process in children([work, work]):
        process.join(120)
        assert process.exitcode == 0
    registry = Registry(where or place / "registry", place / "registry" / "objects")
    assert len(jobs(place)) == 1
    assert [version.number for version in registry.versions(digits.NAME)] == [1, 2]
    moves = [row for row in registry.history(digits.NAME) if row.alias == "canary"]
    assert len(moves) == 1
    job = read_json(place / "out" / digits.NAME / jobs(place)[0] / "job.json")
    assert all(state["attempts"] == 1 for state in job["states"].values())
    (task,) = registry.leases().tasks()
    assert task.last is not None


@forked
@pytest.mark.slow
def test_another_watcher_goes_on_with_what_a_dead_one_began(place: Path) -> None:
    def work() -> None:
        watcher(place, 7.1 * DAY).round()

    (process,) = children([work])
    deadline = time.monotonic() + 60
    folder = place / "out" / digits.NAME
    while not list(folder.glob("weekly-*/validate.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert watcher(place, 7.1 * DAY + 60).round() == [], "the dead one's lease has not ended"
    events = watcher(place, 7.1 * DAY + watching.LEASE_S + 1).round()
    assert kinds(events) == ["done"], events
    assert len(jobs(place)) == 1
    assert len(Registry(place / "registry").versions(digits.NAME)) == 2

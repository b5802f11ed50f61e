"""The watcher: looks for drift, retrains what is due, and keeps the house of telemetry, round after round."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lowerbound.errors import ConflictError, LowerboundError, TooFewError
from lowerbound.files import read_json
from lowerbound.service.monitoring.incidents import Incidents, Step
from lowerbound.service.monitoring.looking.monitor import Monitor
from lowerbound.service.monitoring.telemetry.housekeeping import Retention, tidy
from lowerbound.service.registry.leases import NEVER, Lease, Leases, next_due
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.job import Clock, Job, Outcome
from lowerbound.service.retraining.plan import Plan, read_plan
from lowerbound.service.retraining.states import retrain

DAY_S = 86400.0
PERIODS = {"weekly": 7 * DAY_S, "monthly": 365.25 / 12 * DAY_S, "on-drift": NEVER}
LEASE_S = 120.0  # after which a dead watcher's work may be taken over
RETRY_S = 600.0  # before what could not be done now is tried again
REST_S = DAY_S  # after a retraining on drift, before the next one
logger = logging.getLogger(__name__)

Look = Callable[[str, float], str | None]
After = Callable[[str, Outcome, float], None]


@dataclass(frozen=True)
class Schedule:
    """What is done when.

    Attributes:
        task: "weekly", "monthly" or "on-drift".
        plan: of the retraining.
    """

    task: str
    plan: Plan

    @property
    def every_s(self) -> float:
        """Between two times at which it is due."""
        return PERIODS[self.task]


@dataclass(frozen=True)
class Event:
    """Something that a round did or found.

    Attributes:
        time: seconds since 1970.
        name: of the model; "" for all.
        kind: "drift", "done", "refused", "stopped", "waiting" (what cannot be done now), or "trouble".
        text: a sentence.
    """

    time: float
    name: str
    kind: str
    text: str

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {"time": self.time, "model": self.name, "kind": self.kind, "text": self.text}


def schedules(tiers: dict[str, str], file: Path | None = None) -> tuple[Schedule, ...]:
    """Schedules from the tier of each task.

    Args:
        tiers: by task.
        file: settings over those of every tier, in TOML.
    """
    return tuple(Schedule(task, read_plan(tier, file)) for task, tier in tiers.items())


def looking(monitor: Monitor) -> Look:
    """A look of a monitor, which keeps what it sees and raises its alerts: what a detector with a budget calls drift.

    Requests that the gate refuses, or a server that answers wrongly, are no reason to learn.
    """

    def look(name: str, now: float) -> str | None:
        try:
            told = monitor.step([name], now)
        except TooFewError:  # requests are still coming
            return None
        return next((one.look.said() for one in told if one.look.drift), None)

    return look


def noting(incidents: Incidents) -> After:
    """What became of a retraining, in the timelines of the incidents of its model that are open."""

    def note(name: str, found: Outcome, now: float) -> None:
        steps: list[tuple[Step, str]] = [("fix", f"A retraining ended as {found.outcome}: {found.why}.")]
        if (found.folder / "guard.json").exists():
            judged = read_json(found.folder / "guard.json")
            steps.append(("validate", f"On the fixed suite and on new requests, {judged['sentence']}."))
        for one in incidents.all(name):
            for step, text in steps if one.open else ():
                incidents.note(one.id, step, text, now)

    return note


class Watcher:
    """Watches models. Any number of watchers may watch the same ones: each task is done by one of them.

    A retraining whose watcher dies is gone on with by another, once the lease of the dead one has ended; so all must
    see its folder in the same place.

    Args:
        names: of the models.
        registry: of their versions, whose database keeps the tasks.
        telemetry: folder of the store of their requests.
        out: folder of the retrainings, one in it for each model.
        tasks: what is done when.
        looks: each is asked with a name and the time; what it says is why there is drift, None that there is none.
        after: is told of each retraining that ended, with the name and the time.
        data_dir: where the data of recipes lie.
        retention: of telemetry.
        stop: asked now and then.
        clock: seconds since 1970.
        lease_s: how long a task stays in hand without a sign of life.
    """

    def __init__(
        self,
        names: Sequence[str],
        registry: Registry,
        telemetry: Path,
        out: Path,
        tasks: Sequence[Schedule],
        *,
        looks: Sequence[Look] = (),
        after: Sequence[After] = (),
        data_dir: Path | None = None,
        retention: Retention | None = None,
        stop: Callable[[], bool] = lambda: False,
        clock: Clock = time.time,
        lease_s: float = LEASE_S,
    ) -> None:
        self._names, self._registry, self._telemetry, self._out = names, registry, telemetry, out
        self._tasks, self._looks, self._after, self._data_dir = tuple(tasks), tuple(looks), tuple(after), data_dir
        self._retention, self._stop, self._clock, self._lease_s = retention or Retention(), stop, clock, lease_s
        self._leases = registry.leases()
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}"

    def round(self) -> list[Event]:
        """Look at every model, do what is due, and keep the house; what fails for one does not stop the others."""
        events: list[Event] = []
        for name in self._names:
            with self._saying(events, name):
                self._plan(name)
                self._look(events, name)
        for name in self._names:
            for schedule in self._tasks:
                if self._stop():
                    return events
                with self._saying(events, name):
                    self._do(events, name, schedule)
        with self._saying(events, ""):
            tidy(self._telemetry, self._retention, self._clock())
        return events

    def _plan(self, name: str) -> None:
        """Make the tasks of a model known: due one period after its stable version was made."""
        made = datetime.fromisoformat(self._registry.resolve(name).created).timestamp()
        for schedule in self._tasks:
            self._leases.plan(name, schedule.task, min(NEVER, made + schedule.every_s))

    def _look(self, events: list[Event], name: str) -> None:
        for look in self._looks:
            why = look(name, self._clock())
            if why is None:
                continue
            events.append(Event(self._clock(), name, "drift", why))
            if any(schedule.task == "on-drift" for schedule in self._tasks):
                self._leases.call(name, "on-drift", self._clock(), REST_S)

    def _do(self, events: list[Event], name: str, schedule: Schedule) -> None:
        """Do a task if it is due and nobody has it in hand."""
        lease = self._leases.take(name, schedule.task, self.holder, self._clock(), self._lease_s)
        if lease is None:
            return
        try:
            with Heartbeat(self._leases, lease, self._lease_s, self._clock) as beat:
                found = retrain(self._job(name, schedule, lease), lambda: beat.lost or self._stop())
        except (LowerboundError, OSError) as error:
            self._leases.put_down(lease, self._clock() + RETRY_S)
            events.append(Event(self._clock(), name, "waiting", str(error)))
            return
        except BaseException:
            self._leases.put_down(lease, self._clock())
            raise
        self._settle(lease, schedule, found)
        kind = "stopped" if found.outcome == "open" else found.outcome
        events.append(Event(self._clock(), name, kind, f"{schedule.task} ({schedule.plan.tier}): {found.why}"))

    def _settle(self, lease: Lease, schedule: Schedule, found: Outcome) -> None:
        now = self._clock()
        if found.outcome == "open":
            self._leases.put_down(lease, now)
        else:
            due = NEVER if schedule.every_s == NEVER else next_due(lease.due, schedule.every_s, now)
            self._leases.finish(lease, now, due)
            for tell in self._after:
                tell(lease.name, found, now)

    def _job(self, name: str, schedule: Schedule, lease: Lease) -> Job:
        """The retraining of a task: its folder is a function of when the task was due, so that any watcher finds it."""
        due = datetime.fromtimestamp(lease.due, UTC)
        folder = self._out / name / f"{schedule.task}-{due:%Y-%m-%dT%H%M%S}"
        return Job(
            name, schedule.plan, folder, self._registry, self._telemetry, data_dir=self._data_dir, clock=self._clock
        )

    @contextmanager
    def _saying(self, events: list[Event], name: str) -> Iterator[None]:
        """What fails is an event, and is tried again in the next round."""
        try:
            yield
        except (LowerboundError, OSError) as error:
            logger.warning("%s: %s", name or "telemetry", error)
            events.append(Event(self._clock(), name, "trouble", str(error)))


class Heartbeat:
    """While inside, a thread renews a lease, so that others see that its holder lives.

    Args:
        leases: of the registry.
        lease: to renew.
        lease_s: how long it lasts.
        clock: seconds since 1970.

    Attributes:
        lost: whether somebody else has the task now.
    """

    def __init__(self, leases: Leases, lease: Lease, lease_s: float, clock: Clock) -> None:
        self._leases, self._lease, self._lease_s, self._clock = leases, lease, lease_s, clock
        self.lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                self._leases.renew(self._lease, self._clock(), self._lease_s)
            except ConflictError:
                self.lost = True
                return
            except LowerboundError as error:  # the database may be back before the lease ends
                logger.warning("a lease could not be renewed: %s", error)

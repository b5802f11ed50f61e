"""A drill: ordinary traffic through a registered version, then trouble, and what the monitor makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import TooFewError, UsageError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.run import Run
from lowerbound.service.monitoring.drill.injections import NEW_CLASS
from lowerbound.service.monitoring.drill.traffic import KINDS, Traffic
from lowerbound.service.monitoring.incidents import Incident
from lowerbound.service.monitoring.looking.monitor import Monitor, Report, Told
from lowerbound.service.monitoring.looking.settings import Looking
from lowerbound.service.monitoring.looking.through import facts_through
from lowerbound.service.monitoring.telemetry.fact import Array, Fact, Privacy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.deployment import Deployment, deploy

START = 1_800_000_000.0  # of the drill's own clock, seconds since 1970
FIRST = 50  # windows that are played as a baseline, and twice as many while these are too few
MOST = 400_000  # requests of a baseline
LOOKS_IN_MONTH = 240.0
AT_ONCE = 4096  # facts, until the store has written them
Play = Callable[[Array, list[float], list[str]], list[Fact]]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is drilled.

    Attributes:
        trouble: which.
        share: of the requests; None for its own default.
        severity: in (0, 1].
        hold_back: label that ordinary traffic lacks, for a new class.
        window: requests of a look.
        false_alarms: a month of 240 looks, all alerts together.
        ordinary: looks before the trouble.
        troubled: looks after it began, at most.
        seed: of the traffic.
    """

    trouble: str
    share: float | None = None
    severity: float = 0.5
    hold_back: int | None = None
    window: int = 400
    false_alarms: float = 2.0
    ordinary: int = 10
    troubled: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            UsageError: no such trouble, or no looks.
        """
        if self.trouble not in KINDS:
            raise UsageError(f"{self.trouble} was to be injected; there are {', '.join(KINDS)}.")
        if min(self.ordinary, self.troubled, self.window) < 1:
            raise UsageError("a drill needs at least one look before the trouble, one after it, and requests in each.")
        if (self.trouble == NEW_CLASS) != (self.hold_back is not None):
            raise UsageError("a label is held back for the trouble new-class, and only for it: give both or neither.")

    def looking(self) -> Looking:
        """One request a second, and a look at each window."""
        return Looking(self.window, self.false_alarms, LOOKS_IN_MONTH, seed=self.seed)


@dataclass(frozen=True)
class Outcome:
    """What a drill found; all figures were measured in it.

    Attributes:
        plan: what was drilled.
        version: NAME:NUMBER.
        baseline: requests that the monitor took as ordinary.
        ordinary_looks, false_alarms: before the trouble, and how many of them alarmed.
        planted: share of troubled requests among those after it began.
        detected: requests from the beginning of the trouble to the first alert of it; None if there was none.
        first: requests to each alert, by its name.
        causes: share of each cause that the incident names.
        named: share of the requests that were shown as examples of the largest cause that had been planted; None where
            no cause among answered requests was found.
        incident: of the telemetry.
        reports: pages, within the telemetry's folder.
        certificate: what the detectors promise.
    """

    plan: Plan
    version: str
    baseline: int
    ordinary_looks: int
    false_alarms: int
    planted: float
    detected: int | None
    first: dict[str, int]
    causes: dict[str, float]
    named: float | None
    incident: str | None
    reports: tuple[str, ...]
    certificate: str

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def run_drill(
    version: Version,
    registry: Registry,
    telemetry: Path,
    plan: Plan,
    *,
    play: Play | None = None,
    data_dir: Path | None = None,
    level: float = 0.001,
    report: Report | None = None,
    tell: Tell = lambda _: None,
    start: float = START,
) -> Outcome:
    """Play traffic, plant trouble, and look.

    Args:
        version: registered.
        registry: that it is in.
        telemetry: an empty folder, for the facts of the drill.
        plan: what is drilled.
        play: gives facts of rows at times with ids; by default they go through the version in this process.
        data_dir: where the run's data lie.
        level: of the gate.
        report: writes pages.
        tell: is told how far it is.
        start: of the drill's clock, which goes on by a second with each request.

    Raises:
        UsageError: the folder is in use, or the trouble cannot be had of these rows.
        TooFewError: the version's requests cannot keep the budget.
    """
    if (telemetry / "telemetry.db").exists():
        raise UsageError(f"{telemetry} holds telemetry already; give a drill a folder of its own.")
    traffic = traffic_of(version, data_dir, plan.hold_back)
    through = play or _through(deploy(version.name, version, "stable", "torch", level, 1))
    monitor = Monitor(telemetry, registry, plan.looking(), report)
    with Telemetry(telemetry, privacy=Privacy("sample", share=1.0), most_bytes=2**30) as store:
        stage = _Stage(version, traffic, through, store, monitor, plan, tell, start)
        return stage.run()


def traffic_of(version: Version, data_dir: Path | None = None, held_back: int | None = None) -> Traffic:
    """Ordinary traffic of a version: the test rows of its data, which neither training nor the reference saw."""
    run = Run(version.path)
    data = load_data(run.recipe().data, data_dir, run.quarantine_path)
    return Traffic.of(data.test, run.data_spec().levels, held_back)


def _through(deployment: Deployment) -> Play:
    def play(rows: Array, times: list[float], requests: list[str]) -> list[Fact]:
        return facts_through(deployment, rows, times, requests)

    return play


class _Stage:
    """A drill that is under way."""

    def __init__(
        self,
        version: Version,
        traffic: Traffic,
        play: Play,
        store: Telemetry,
        monitor: Monitor,
        plan: Plan,
        tell: Tell,
        start: float,
    ) -> None:
        self._version, self._traffic, self._play = version, traffic, play
        self._store, self._monitor, self._plan, self._tell = store, monitor, plan, tell
        self._chance = np.random.default_rng(plan.seed)
        self._start, self._played = start, 0
        self._planted: set[str] = set()

    def run(self) -> Outcome:
        """Baseline, ordinary looks, trouble."""
        baseline, certificate = self._settle()
        before = [self._look(self._ordinary()) for _ in range(self._plan.ordinary)]
        false_alarms = sum(bool(told.look.alerts) for told in before)
        self._tell(f"{len(before)} ordinary looks, {false_alarms} of them alarmed")
        for one in self._monitor.incidents.all():
            if one.open:
                self._monitor.incidents.close(one.id, "a false alarm of the drill", self._now)
        began, first = self._played, dict[str, int]()
        for number in range(self._plan.troubled):
            told = self._look(self._troubled())
            for name in told.look.alerts:
                first.setdefault(name, self._played - began)
            self._tell(f"look {number + 1} after the trouble began: {told.look.said()}")
            if first and number + 1 >= math.ceil(self._plan.troubled / 2):
                break
        found = next((one for one in reversed(self._monitor.incidents.all()) if one.open), None)
        return self._outcome(baseline, certificate, len(before), false_alarms, began, first, found)

    def _settle(self) -> tuple[int, str]:
        """Play ordinary requests until they are enough for the budget."""
        wanted = FIRST * self._plan.window
        while True:
            self._put(self._ordinary(wanted - self._played))
            made = self._monitor.adopt(self._version.name, self._start - 1, self._now, self._now)
            try:
                certificate = str(self._monitor.looker(made, tuple(made.window.facts)).certificate)
            except TooFewError as error:
                if self._played >= MOST:
                    raise
                wanted = min(MOST, 2 * self._played)
                self._tell(f"{self._played:,} requests are no baseline yet: {error}")
                continue
            self._tell(f"{self._played:,} ordinary requests are the baseline: {certificate}")
            return self._played, certificate

    @property
    def _now(self) -> float:
        return self._start + self._played

    def _ordinary(self, count: int | None = None) -> Array:
        return self._traffic.ordinary(count or self._plan.window, self._chance)

    def _troubled(self) -> Array:
        plan = self._plan
        rows, changed = self._traffic.troubled(plan.window, plan.trouble, self._chance, plan.share, plan.severity)
        self._planted |= {self._name(self._played + place) for place in np.flatnonzero(changed).tolist()}
        return rows

    def _name(self, place: int) -> str:
        return f"drill-{place}"

    def _put(self, rows: Array) -> None:
        """Play rows, one a second."""
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            names = [self._name(self._played + place) for place in range(len(part))]
            for fact in self._play(part, [self._start + self._played + place for place in range(len(part))], names):
                self._store(fact)
            self._played += len(part)
            self._store.flush(60)

    def _look(self, rows: Array) -> Told:
        self._put(rows)
        return self._monitor.keep(self._monitor.look(self._version.name, self._now))

    def _outcome(
        self,
        baseline: int,
        certificate: str,
        looks: int,
        false_alarms: int,
        began: int,
        first: dict[str, int],
        found: Incident | None,
    ) -> Outcome:
        shown = next((cause.requests for cause in (found.causes if found else ()) if cause.requests), ())
        return Outcome(
            plan=self._plan,
            version=self._version.reference,
            baseline=baseline,
            ordinary_looks=looks,
            false_alarms=false_alarms,
            planted=len(self._planted) / max(1, self._played - began),
            detected=min(first.values(), default=None),
            first=first,
            causes={cause.name: cause.share for cause in found.causes} if found else {},
            named=float(np.mean([request in self._planted for request in shown])) if shown else None,
            incident=found.id if found else None,
            reports=found.reports if found else (),
            certificate=certificate,
        )

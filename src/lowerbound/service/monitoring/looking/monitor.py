"""The monitor of served models: looks at telemetry when they are due, keeps them, and opens incidents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.errors import LowerboundError, NotSupportedError, TooFewError, UsageError
from lowerbound.files import read_json, write_json
from lowerbound.lab.run import load
from lowerbound.model.families.family import Family
from lowerbound.service.monitoring.alerts import ALERTS
from lowerbound.service.monitoring.drift.window import Array
from lowerbound.service.monitoring.incidents import Incident, Incidents
from lowerbound.service.monitoring.looking.baseline import (
    Baseline,
    Baselines,
    codes_of,
    moment,
    registered,
    statistics_of,
)
from lowerbound.service.monitoring.looking.explain import REQUESTS, Explanation, explain
from lowerbound.service.monitoring.looking.look import Look, Looker
from lowerbound.service.monitoring.looking.settings import Looking
from lowerbound.service.monitoring.looking.stretch import Stretch, read_stretch
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version

FOLDER = "drift"
FACTS = ("points", "variances", "rates", "errors", "inputs", "indices")
MORE = 4  # times a window's rows are read, for those that were refused or lack facts
MOST_BASELINE = 200_000  # rows that are tried as a baseline
SPARE = 1.1  # times the rows that a budget needs are taken
LATELY_S = 86_400.0  # before an alert, in which a promotion is suspected


@dataclass(frozen=True, eq=False)
class Told:
    """A look, and what is behind it.

    Attributes:
        id: of the look.
        model: whose requests.
        version: that answered.
        at: when it was looked, seconds since 1970.
        look: what was seen.
        explanation: of its alerts; None without any.
        incident: that its alerts belong to.
    """

    id: str
    model: str
    version: Version
    at: float
    look: Look
    explanation: Explanation | None
    incident: Incident | None = None

    def json(self) -> dict[str, Any]:
        """As plain data, without pictures."""
        behind = self.explanation
        return {
            **{"id": self.id, "model": self.model, "version": self.version.number, "hash": self.version.hash},
            **{"codes": codes_of(self.version), "time": self.at, **self.look.json()},
            "causes": [] if behind is None else [vars(cause) for cause in behind.causes],
            "directions": []
            if behind is None
            else [
                {"label": way.label, "moved": way.moved, "spread": way.spread, "picture": f"{self.id}-{place}.png"}
                for place, way in enumerate(behind.directions)
            ],
            "unsaid": {} if behind is None else behind.unsaid,
            "incident": None if self.incident is None else self.incident.id,
        }


Report = Callable[[Path, Told], None]


class Monitor:
    """Watches the requests of models by their telemetry. A stable version with another encoder has a new baseline.

    Args:
        telemetry: folder of the store.
        registry: of the versions.
        looking: how requests are looked at.
        report: writes the page of a look that alarmed, and its pictures beside it.
        state: where baselines, looks and incidents are kept; in the telemetry's folder by default.
    """

    def __init__(
        self,
        telemetry: Path | str,
        registry: Registry,
        looking: Looking | None = None,
        report: Report | None = None,
        state: Path | None = None,
    ) -> None:
        self._facts, self.folder, self.registry = Path(telemetry), state or Path(telemetry), registry
        self.looking, self._report = looking or Looking(), report
        self.incidents, self.baselines = Incidents(self.folder), Baselines(self.folder)
        self._lookers: dict[tuple[str, str, tuple[str, ...]], Looker] = {}
        self._models: dict[str, Family] = {}

    def step(self, names: Sequence[str], now: float) -> list[Told]:
        """Look at each model that is due, keep what was seen, and raise its alerts.

        A model is due when a whole window of requests has come since its last look, and the looks of a month allow it.

        Raises:
            LowerboundError: of the first model that cannot be looked at, after all others were.
        """
        told, failed = [], None
        for name in names:
            try:
                if self._due(name, now):
                    told.append(self.keep(self.look(name, now)))
            except LowerboundError as error:
                failed = failed or error
        if failed is not None and not told:
            raise failed
        return told

    def look(self, name: str, now: float, since: float = 0.0, until: float | None = None) -> Told:
        """Look at the newest window of requests, whether or not it is due; nothing is kept.

        Args:
            name: of the model.
            now: seconds since 1970.
            since, until: times between which requests are looked at; until now by default.

        Raises:
            TooFewError: too few requests, or a baseline that is too short for the budget.
            RegistryError: there is no such model, or no version of the alias.
        """
        end = now if until is None else until
        version = self.registry.resolve(f"{name}@{self.looking.alias}")
        stretch = self.read(version, since, end, MORE * self.looking.window)
        if not stretch.asked:
            raise TooFewError(
                f"there are no requests of {name}@{self.looking.alias} with the codes of {version.reference} in this "
                "span; look at another one, or serve some first."
            )
        found = self.examine(version, stretch)
        made = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{version.number}"
        behind = self._explain(version, found, stretch) if found.alerts else None
        return Told(made, name, version, now, found, behind)

    def examine(self, version: Version, stretch: Stretch) -> Look:
        """Look at the newest window of a stretch, beside the baseline of a version's codes.

        Raises:
            TooFewError: too few requests, or a baseline that is too short for the budget.
        """
        return self._looker(version, stretch).look(stretch)

    def keep(self, told: Told) -> Told:
        """Keep a look, write its report, and raise its alerts."""
        name = told.model
        report = f"{FOLDER}/{name}/{told.id}.html"
        if told.look.alerts and told.explanation is not None:
            if self._report is not None:
                self._report(self.folder / report, told)
            told = replace(told, incident=self._raise(told, [report] if self._report else []))
        written = self._report is not None and bool(told.look.alerts)
        write_json(
            self.folder / FOLDER / name / f"{told.id}.json", {**told.json(), "report": report if written else None}
        )
        return told

    def adopt(self, name: str, since: float, until: float, now: float) -> Baseline:
        """Take a span of telemetry as ordinary for the codes of the version that serves, and say so in open incidents.

        Raises:
            UsageError: the span is none.
            DataError: there are no requests in it.
        """
        if not since < until:
            raise UsageError(f"the span from {moment(since)} to {moment(until)} is none; give an earlier time first.")
        version = self.registry.resolve(f"{name}@{self.looking.alias}")
        stretch = self.read(version, since, until, MOST_BASELINE)
        made = self.baselines.adopt(name, codes_of(version), self._statistics(version), stretch, chosen=True)
        self._lookers.clear()
        for one in self.incidents.all(name):
            if one.open:
                self.incidents.note(one.id, "monitoring", f"Requests are compared with {made.source} from now on.", now)
        return made

    def latest(self, name: str) -> dict[str, Any] | None:
        """The last look that was kept of a model, as it was written."""
        paths = sorted((self.folder / FOLDER / name).glob("*.json"))
        return read_json(paths[-1]) if paths else None

    # --------------------------------------------------------------------------------------------------- the reading

    def same_codes(self, version: Version) -> list[str]:
        """Hashes of all versions of a name that have the codes of one."""
        codes = codes_of(version)
        return [other.hash for other in self.registry.versions(version.name) if codes_of(other) == codes]

    def read(self, version: Version, since: float, until: float, newest: int | None = None) -> Stretch:
        """Requests of a version's codes, in the order of their times; the newest of them where a number is given."""
        alias = self.looking.alias
        choice = Choice(since, until, version.name, alias=alias, newest=newest, idle=True)
        found = self.baselines.find(version.name, codes_of(version))
        widths = found.widths if found is not None else {}
        return read_stretch(History(self._facts), choice, self.same_codes(version), FACTS, widths)

    def _due(self, name: str, now: float) -> bool:
        last = self.latest(name)
        if last is None:
            return True
        if now - last["time"] < self.looking.apart_s:
            return False
        version = self.registry.resolve(f"{name}@{self.looking.alias}")
        if last["codes"] != codes_of(version):
            return True
        return self.read(version, last["until"], now, MORE * self.looking.window).asked > self.looking.window

    # ----------------------------------------------------------------------------------------------------- baselines

    def _looker(self, version: Version, stretch: Stretch) -> Looker:
        known = () if stretch.window is None else tuple(stretch.window.facts)
        key = (version.name, codes_of(version), known)
        if key not in self._lookers:
            self._lookers[key] = self._made(version, known or FACTS, stretch)
        return self._lookers[key]

    def _made(self, version: Version, facts: tuple[str, ...], stretch: Stretch) -> Looker:
        """A looker by the baseline that the settings ask for; the first that is long enough."""
        adopted = self.baselines.find(version.name, codes_of(version))
        if adopted is not None and self.looking.reference == "auto":
            try:
                return self.looker(adopted, facts)
            except TooFewError:
                if adopted.chosen:
                    raise
        try:
            return self.looker(registered(version), facts)
        except (TooFewError, NotSupportedError) as error:
            if self.looking.reference == "version":
                raise
            return self._first(version, facts, stretch, error)

    def _first(self, version: Version, facts: tuple[str, ...], stretch: Stretch, why: LowerboundError) -> Looker:
        """By the first requests of these codes, as many as the budget needs, if they came before those to look at."""
        newest = stretch.known(self.looking.window)
        before = self.read(version, 0.0, self._enough(version.name, newest.span[0])).first(MOST_BASELINE)
        statistics, codes = self._statistics(version), codes_of(version)
        if before.window is None:
            raise TooFewError(
                f"{str(why).rstrip('.')}; and there are no requests before these to compare with."
            ) from why
        try:
            whole = self.looker(Baseline(before.window, statistics, codes, "telemetry", before.reasons), facts)
        except TooFewError as error:
            raise TooFewError(
                f"neither the rows that {version.reference} was registered with nor the {len(before):,} requests of "
                f"its codes before these are enough: {error}"
            ) from None
        first = before.first(int(SPARE * whole.certificate.needed))
        made = self.baselines.adopt(version.name, codes, statistics, first if len(first) else before, chosen=False)
        try:
            return self.looker(made, facts)
        except TooFewError:  # the first of them are more alike than all
            return self.looker(self.baselines.adopt(version.name, codes, statistics, before, chosen=False), facts)

    def looker(self, baseline: Baseline, facts: tuple[str, ...]) -> Looker:
        """What looks at requests with these facts beside a baseline.

        Raises:
            TooFewError: the baseline is too short for the budget.
        """
        return Looker(baseline, facts, self.looking.budget, self.looking.window, self.looking.seed)

    def _enough(self, name: str, until: float) -> float:
        """A time until which a model has more requests than any baseline takes, by the roll-ups, and not after one."""
        rolled = History(self._facts).minutes(Choice(until=until, model=name, alias=self.looking.alias))
        enough = np.flatnonzero(np.cumsum(rolled.rows) >= 2 * MOST_BASELINE)
        return min(until, 60.0 * float(rolled.minute[enough[0]] + 1)) if len(enough) else until

    def _statistics(self, version: Version) -> tuple[str, ...]:
        return statistics_of(version.calibration()) if "rows" in version.manifest()["reference"] else ()

    # ----------------------------------------------------------------------------------------------- what is behind it

    def _explain(self, version: Version, found: Look, stretch: Stretch) -> Explanation:
        looker = self._looker(version, stretch)
        incidents = self.incidents.all(version.name)
        opened = [one.opened for one in incidents if one.open and ALERTS[one.kind].trouble == "requests"]
        length = found.until - found.since  # of a look: an incident is opened at the end of one
        since = max(min(opened) - length, self._quiet(version.name)) if opened else found.since
        since = min(found.since, since)
        if since < found.since:
            behind = self.read(version, since, found.until + 1e-6, REQUESTS).recent(REQUESTS)
        else:
            known = stretch.known(self.looking.window)
            behind = known if len(known) == self.looking.window else stretch.recent(self.looking.window)
        model = self._models.get(version.hash) or load(version.path)
        self._models = {version.hash: model}
        return explain(
            found,
            behind,
            looker.baseline,
            looker.attributor,
            model,
            version.calibration(),
            self._inputs(version, behind.span[0]),
        )

    def _quiet(self, name: str) -> float:
        """When the last look ended that saw nothing; 0 without any."""
        for path in sorted((self.folder / FOLDER / name).glob("*.json"), reverse=True):
            kept = read_json(path)
            if not kept["alerts"]:
                return float(kept["until"])
        return 0.0

    def _inputs(self, version: Version, since: float) -> Callable[[Array], dict[int, Array]]:
        def read(wanted: Array) -> dict[int, Array]:
            ids, rows = History(self._facts).inputs(Choice(since=since, model=version.name, alias=self.looking.alias))
            places = np.flatnonzero(np.isin(ids, wanted))
            return {int(ids[place]): rows[place] for place in places}

        return read

    def _raise(self, told: Told, reports: list[str]) -> Incident:
        behind = told.explanation
        assert behind is not None
        found, new = self.incidents.raise_alerts(
            told.model, told.version.hash, told.look.alerts, told.at, told.look.said() + "."
        )
        if new:
            self.incidents.note(found.id, "mitigate", self._mitigation(told), told.at)
        changed = {cause.name for cause in behind.causes} != {cause.name for cause in found.causes}
        if new or changed:
            found = self.incidents.explain(found.id, behind.causes, reports, f"Looked at, {behind.said()}", told.at)
        return found

    def _mitigation(self, told: Told) -> str:
        """What to do first: by what changed lately, and by what the gate does already."""
        for row in reversed(self.registry.history(told.model)):
            lately = told.look.since - LATELY_S < _seconds(row.time) <= told.look.until
            if row.alias == "stable" and row.action in ("promote", "rollback") and row.before and lately:
                return (
                    f"{row.name}:{row.number} became stable at {row.time[:19]}Z in place of {row.before}; if it is the "
                    f"cause, go back with `lowerbound registry rollback {row.name}`."
                )
        if set(told.look.alerts) <= {"flat-inputs", "gate-rejects"}:
            return "The gate refuses such inputs, and good ones are still answered: look at what sends them."
        return "Nothing was done by itself; requests are still answered. Look at the causes first."


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

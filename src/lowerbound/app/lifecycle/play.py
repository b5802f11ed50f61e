"""The play: train, serve, an incident and its repair, a bad candidate, and a change that errors do not show."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lowerbound
from lowerbound.app.lifecycle.scenes import Scene
from lowerbound.app.lifecycle.stage import Server, Traffic
from lowerbound.app.report.drifted import write_drifted
from lowerbound.app.web.snapshot import write_snapshot
from lowerbound.errors import RunError, TooFewError
from lowerbound.files import read_json, write_json
from lowerbound.lab.data.load import load_data
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.run import load
from lowerbound.service.monitoring.looking.monitor import Monitor, Told
from lowerbound.service.monitoring.looking.settings import Looking
from lowerbound.service.monitoring.looking.validate import validate_incident
from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.verdicts.trial import path_of
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version
from lowerbound.service.retraining.job import Job
from lowerbound.service.retraining.plan import read_plan
from lowerbound.service.retraining.states import retrain

LOOKS = 60.0  # a month, two a day; the play does them one after another
FIRST, MORE_BY, MOST = 20, 1.5, 400  # windows of ordinary requests: at first, then more, until the budget can be kept
QUIET, TROUBLED = 5, 10  # looks before an incident, and after it began at most
MORE = 6  # windows of an incident after it was seen
SETTLE_S = 1.5  # until what was sent is written, and looked at by the server
TRIAL_S = 240.0  # for a verdict on a candidate
PATIENCE_S = 30.0
Tell = Callable[[str], None]


@dataclass
class Figures:
    """What was measured in a play.

    Attributes:
        baseline: ordinary requests that all others were compared with.
        quiet_looks, false_alarms: before anything happened.
        detected: requests from the beginning of the incident to the first look that saw it.
        alerts: of that look.
        causes: share of each that was named once it was investigated.
        planted: shares of the requests that were really new, and really black.
        refused: by the gate, by its reason, of all requests of the incident.
        reports: pages of looks, within the telemetry's folder.
        retraining_s: that the emergency retraining took.
        guard: how many comparisons it made, and the largest change of an error that was found.
        canary_requests, canary_s: until the retrained version was promoted.
        mended: what validation of the incident says.
        bad_requests, bad_s: until the bad candidate was rolled back.
        rollback_s: from the request that decided to the registry's row, and to the last answer of the candidate.
        silent: requests from the beginning of the silent change to the look that saw it; None if none did.
        silent_alerts: of that look.
        silent_error: whether errors alone would have alarmed.
        seconds: the whole play.
    """

    baseline: int = 0
    quiet_looks: int = 0
    false_alarms: int = 0
    detected: int | None = None
    alerts: list[str] = field(default_factory=list)
    causes: dict[str, float] = field(default_factory=dict)
    planted: dict[str, float] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)
    retraining_s: float = 0.0
    guard: dict[str, Any] = field(default_factory=dict)
    canary_requests: int = 0
    canary_s: float = 0.0
    mended: str = ""
    bad_requests: int = 0
    bad_s: float = 0.0
    rollback_s: dict[str, float] = field(default_factory=dict)
    silent: int | None = None
    silent_alerts: list[str] = field(default_factory=list)
    silent_error: bool = False
    seconds: float = 0.0


class Play:
    """One performance, in a folder of its own.

    Args:
        scene: what is played.
        out: empty folder: runs, registry, telemetry, pages, figures.
        data_dir: where data lie.
        tell: is told what happens.
    """

    def __init__(self, scene: Scene, out: Path, data_dir: Path | None, tell: Tell) -> None:
        self.scene, self.out, self._data_dir, self._tell = scene, out, data_dir, tell
        self.telemetry, self.registry = out / "telemetry", Registry(out / "registry")
        self.figures = Figures()
        looking = Looking(scene.window, 2.0, LOOKS)
        self._monitor = Monitor(self.telemetry, self.registry, looking, write_drifted)

    def run(self) -> Figures:
        """Play it all.

        Raises:
            RunError: something that the play is about did not happen.
        """
        began = time.monotonic()
        self._train("first", self.scene.settings, "the first version, without two kinds")
        self.registry.promote(self.scene.name, 1, why="the first version")
        with (
            Server(self.scene, self.out / "registry", self.telemetry, self.out / "server.log") as server,
            Traffic(self.scene, self._data_dir, server.url) as traffic,
        ):
            self._ordinary_days(traffic)
            told = self._incident(traffic)
            self._repair(traffic, told)
            self._bad_candidate(traffic)
            self._ordinary_days(traffic)
            self._silence(traffic)
        write_snapshot(self.telemetry, self.registry, self.out / "dashboard.html", name=self.scene.name, hours=1)
        self.figures.seconds = time.monotonic() - began
        write_json(self.out / "lifecycle.json", asdict(self.figures))
        return self.figures

    # ------------------------------------------------------------------------------------------------------ the acts

    def _train(self, folder: str, settings: tuple[str, ...], why: str) -> Version:
        """Train, judge and register a version of the kinds that exist at first."""
        table = {"kind": "some-labels", "data": dict(self.scene.data), "without": list(self.scene.withheld)}
        recipe = lowerbound.read_recipe(self.scene.recipe, [*settings, f"data={_toml(table)}"])
        run = self.out / "runs" / folder
        lowerbound.train(recipe, run, data_dir=self._data_dir)
        lowerbound.evaluate(run, data_dir=self._data_dir)
        version = self.registry.add(run, self.scene.name, why=why, data_dir=self._data_dir)
        self._tell(f"trained and registered {version.reference}: {why}")
        return version

    def _ordinary_days(self, traffic: Traffic) -> None:
        """Ordinary requests until they are a baseline, then quiet looks."""
        name, window = self.scene.name, self.scene.window
        since, wanted, sent = time.time(), FIRST * window, 0
        while True:
            self._send(traffic, traffic.ordinary(wanted - sent))
            sent = wanted
            made = self._monitor.adopt(name, since, time.time(), time.time())
            try:
                self._tell(str(self._monitor.looker(made, tuple(made.window.facts)).certificate))
                break
            except TooFewError as error:
                wanted = int(MORE_BY * sent)
                if wanted > MOST * window:
                    raise
                self._tell(f"{sent:,} requests are no baseline yet: {error}")
        alarms = [self._look(traffic, traffic.ordinary(window)).look.alerts for _ in range(QUIET)]
        self._close("a false alarm of the play")
        self.figures.baseline = sent
        self.figures.quiet_looks += QUIET
        self.figures.false_alarms += sum(map(bool, alarms))
        self._tell(f"{sent:,} ordinary requests, then {QUIET} quiet looks with {sum(map(bool, alarms))} alarms")

    def _incident(self, traffic: Traffic) -> Told:
        """A new kind and black pictures come; the looks say so, and name both."""
        figures, window, before = self.figures, self.scene.window, dict(traffic.refused)
        found: Told | None = None
        for number in range(TROUBLED):
            told = self._look(traffic, traffic.incident(window))
            if told.incident is not None:
                figures.detected, figures.alerts, found = (number + 1) * window, list(told.look.alerts), told
                break
        if found is None or found.incident is None:
            raise RunError(f"the incident was not seen within {TROUBLED * window:,} requests.")
        self._send(traffic, traffic.incident(MORE * window))  # it goes on while people look
        self._look(traffic, traffic.incident(window))
        causes = self._monitor.incidents.get(found.incident.id).causes
        figures.causes = {cause.name: cause.share for cause in causes}
        figures.planted = {"new": self.scene.share_new, "black": self.scene.share_black}
        figures.refused = {name: count - before.get(name, 0) for name, count in traffic.refused.items()}
        figures.reports = list(self._monitor.incidents.get(found.incident.id).reports)
        self._tell(f"seen after {figures.detected:,} requests: {', '.join(figures.alerts)}")
        self._tell(f"named: {', '.join(f'{name} {share:.1%}' for name, share in figures.causes.items())}")
        return found

    def _repair(self, traffic: Traffic, told: Told) -> None:
        """Retrain on the requests, and let the server try what comes of it."""
        assert told.incident is not None
        figures, began = self.figures, time.monotonic()
        plan = read_plan("emergency", None, self.scene.plan)
        folder = self.out / "retraining" / "emergency"
        outcome = retrain(
            Job(self.scene.name, plan, folder, self.registry, self.telemetry, self._data_dir), lambda: False
        )
        figures.retraining_s = time.monotonic() - began
        if outcome.outcome != "done" or outcome.number is None:
            raise RunError(f"the retraining ended otherwise than it should: {outcome.why}")
        findings = read_json(folder / "guard.json")["findings"]
        figures.guard = {"comparisons": len(findings), "largest_change": max(each["change"] for each in findings)}
        self._tell(f"retrained in {figures.retraining_s:.0f} s; the guard lets {self.scene.name}:{outcome.number} pass")
        begun, sent = time.monotonic(), traffic.sent
        self._try(traffic, outcome.number, "promote")
        figures.canary_requests, figures.canary_s = traffic.sent - sent, time.monotonic() - begun
        self._tell(f"promoted after {figures.canary_requests:,} requests, {figures.canary_s:.0f} s")
        version = self.registry.resolve(f"{self.scene.name}:{outcome.number}")
        checked = validate_incident(told.incident, version, self.registry, self.telemetry, self._data_dir)
        figures.mended = checked.said()
        now = time.time()
        self._monitor.incidents.note(told.incident.id, "fix", f"{version.reference} became stable.", now)
        self._monitor.incidents.note(told.incident.id, "validate", figures.mended, now)
        self._close("mended by the retrained version")
        self._tell(figures.mended)

    def _bad_candidate(self, traffic: Traffic) -> None:
        """A candidate that is worse is taken off."""
        hasty = self._train("hasty", (*self.scene.settings, *self.scene.hasty), "hardly trained, to be found out")
        self.registry.promote(self.scene.name, hasty.number, "canary", why="to be found out")
        figures, sent, begun = self.figures, traffic.sent, time.monotonic()
        trial = self._try(traffic, hasty.number, "roll_back")
        figures.bad_requests, figures.bad_s = traffic.sent - sent, time.monotonic() - begun
        self._send(traffic, traffic.ordinary(self.scene.window))
        figures.rollback_s = self._rolled_back(hasty, trial)
        said = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in figures.rollback_s.items())
        self._tell(f"the bad candidate was rolled back after {figures.bad_requests:,} requests; {said}")

    def _silence(self, traffic: Traffic) -> None:
        """One known kind becomes frequent that is reconstructed like all: errors stay as they were, and codes move."""
        figures, window = self.figures, self.scene.window
        kind = self._unremarkable(traffic)
        for number in range(TROUBLED):
            told = self._look(traffic, traffic.of_kind(kind, 0.5, window))
            names = {verdict.detector for verdict in told.look.verdicts if verdict.alarm}
            figures.silent_error |= bool({"high-error", "drift-error"} & set(told.look.alerts))
            if {"latent, unit by unit", "latent, together", "aggregate posterior"} & names:
                figures.silent, figures.silent_alerts = (number + 1) * window, list(told.look.alerts)
                break
        if figures.silent is None:
            raise RunError(f"the silent change was not seen within {TROUBLED * window:,} requests.")
        self._close("a change that is known")
        self._tell(f"the silent change was seen after {figures.silent:,} requests: {', '.join(figures.silent_alerts)}")

    # ----------------------------------------------------------------------------------------------------- the props

    def _send(self, traffic: Traffic, rows: Any) -> None:
        traffic.send(rows)
        time.sleep(SETTLE_S)

    def _look(self, traffic: Traffic, rows: Any) -> Told:
        self._send(traffic, rows)
        told = self._monitor.look(self.scene.name, time.time())
        return self._monitor.keep(told)

    def _close(self, why: str) -> None:
        for one in self._monitor.incidents.all(self.scene.name):
            if one.open:
                self._monitor.incidents.close(one.id, why, time.time())

    def _try(self, traffic: Traffic, number: int, wanted: str) -> dict[str, Any]:
        """Send requests until the trial of a candidate has ended; what its file says."""
        path, end = path_of(self.telemetry, self.scene.name, number), time.monotonic() + TRIAL_S
        while time.monotonic() < end:
            traffic.send(traffic.ordinary(100))
            trial: dict[str, Any] = read_json(path) if path.is_file() else {}
            if trial.get("ended"):
                if trial["ended"]["action"] != wanted:
                    raise RunError(f"the candidate was to {wanted}, and the verdict is {trial['verdict']['reason']}")
                return trial
        raise RunError(f"there was no verdict on {self.scene.name}:{number} within {TRIAL_S:.0f} s.")

    def _rolled_back(self, version: Version, trial: dict[str, Any]) -> dict[str, float]:
        """Seconds from the request that decided: to the registry's row, and to the last answer of the candidate."""
        history = History(self.telemetry)
        decisive = history.after(trial["cursor"] - 1, 1)[0]["time"]
        last = max(each["time"] for each in _facts_of(history, version.hash))
        return {"to the registry": trial["ended"]["at"] - decisive, "to its last answer": max(0.0, last - decisive)}

    def _unremarkable(self, traffic: Traffic) -> int:
        """The known kind whose errors are most like those of all known kinds together, by their means."""
        data = load_data(self.scene.data, self._data_dir)
        model = Facts(load(self.registry.resolve(self.scene.name).path))
        labels = np.asarray(data.test.labels)
        errors = {
            kind: facts_of(model, data.test.take(torch.from_numpy(np.flatnonzero(labels == kind))).raw)["error"]
            for kind in traffic.known
        }
        usual = torch.cat(list(errors.values())).mean()
        return min(errors, key=lambda kind: float((errors[kind].mean() - usual).abs()))


def _facts_of(history: History, version: str) -> list[dict[str, Any]]:
    """All facts of a version that are still in the hot store."""
    found, last = [], 0
    while some := history.after(last, 5000):
        found += [each for each in some if each["version"] == version]
        last = some[-1]["id"]
    return found


def _toml(value: Any) -> str:
    """An inline table."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)

"""Looks at telemetry: planted incidents are seen, named and kept; ordinary requests are left in peace."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import lowerbound
from lowerbound.app.cli.main import main
from lowerbound.app.report.drifted import write_drifted
from lowerbound.errors import NotSupportedError, TooFewError, UsageError
from lowerbound.files import read_json, write_json
from lowerbound.service.monitoring.drift.budget import Budget
from lowerbound.service.monitoring.drift.window import Array, Window
from lowerbound.service.monitoring.drill.drill import START, Plan, run_drill, traffic_of
from lowerbound.service.monitoring.drill.injections import INJECTIONS, inject
from lowerbound.service.monitoring.drill.traffic import Traffic
from lowerbound.service.monitoring.looking.baseline import Baseline, registered
from lowerbound.service.monitoring.looking.look import Looker
from lowerbound.service.monitoring.looking.monitor import Monitor
from lowerbound.service.monitoring.looking.replay import replay
from lowerbound.service.monitoring.looking.settings import Looking, read_budget, read_moment, read_span
from lowerbound.service.monitoring.looking.status import status
from lowerbound.service.monitoring.looking.stretch import Stretch
from lowerbound.service.monitoring.looking.through import facts_through
from lowerbound.service.monitoring.looking.validate import validate_incident
from lowerbound.service.monitoring.telemetry.fact import Privacy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.deployment import Deployment, deploy

WINDOW, WIDE = 200, 400
LOOKING = Looking(window=WINDOW, false_alarms=24.0, looks=240.0)
NEW = 4  # the class that ordinary requests lack
ORDINARY = 10_000
UNJUDGED = {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}  # judging takes longest


@dataclass
class Stage:
    """A registry of two models of digits, and a store of telemetry that requests are played into."""

    registry: Registry
    deployments: dict[int, Deployment]
    traffic: Traffic
    folder: Path
    played: int = 0

    def play(self, rows: Array, number: int = 1, share: float = 1.0) -> float:
        """Requests, one a second, through a version; the time after the last."""
        with Telemetry(self.folder, privacy=Privacy("sample", share)) as store:
            times = [START + self.played + place for place in range(len(rows))]
            names = [f"request-{self.played + place}" for place in range(len(rows))]
            for fact in facts_through(self.deployments[number], rows, times, names):
                assert store(fact)
        self.played += len(rows)
        return START + self.played

    def ordinary(self, count: int, seed: int) -> Array:
        return self.traffic.ordinary(count, np.random.default_rng(seed))

    def monitor(self, window: int = WINDOW) -> Monitor:
        return Monitor(self.folder, self.registry, replace(LOOKING, window=window), write_drifted)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with a model of digits that was trained until it is of use."""
    folder = tmp_path_factory.mktemp("good")
    settings = ("training.epochs=40", "objective.beta.steps=100", "model.latent=8")
    lowerbound.train(lowerbound.read_recipe("digits", settings), folder / "run")
    write_json(folder / "run" / "evaluation.json", UNJUDGED)
    registry = Registry(folder / "registry")
    registry.add(folder / "run", "digits")
    registry.promote("digits", 1)
    return registry


@pytest.fixture
def trained(good: Registry, tmp_path: Path) -> Stage:
    """With that model, to see what only such a one can see."""
    version = good.resolve("digits")
    deployments = {1: deploy("digits", version, "stable", "torch", 0.02, 1)}
    return Stage(good, deployments, traffic_of(version, held_back=NEW), tmp_path / "telemetry")


@pytest.fixture
def stage(registry: Path, tmp_path: Path) -> Stage:
    """Of one's own, with version 1 serving."""
    own = Registry(shutil.copytree(registry, tmp_path / "registry"))
    versions = own.versions("digits")
    deployments = {each.number: deploy("digits", each, "stable", "torch", 0.02, 1) for each in versions}
    return Stage(own, deployments, traffic_of(versions[0], held_back=NEW), tmp_path / "telemetry")


def planted(stage: Stage, count: int, seed: int) -> Array:
    """15 % of a class that ordinary requests lack, and 3 % of black inputs."""
    chance = np.random.default_rng(seed)
    rows, _ = stage.traffic.troubled(count, "new-class", chance)
    return inject(rows, "black", chance, 17)[0]


def test_a_planted_incident_is_caught_attributed_and_reported(trained: Stage) -> None:
    now = trained.play(trained.ordinary(2 * ORDINARY, 0), share=0.0)
    monitor = trained.monitor(WIDE)
    monitor.adopt("digits", START - 1, now, now)
    (quiet,) = monitor.step(["digits"], trained.play(trained.ordinary(WIDE, 1)))
    assert quiet.look.alerts == ()
    assert quiet.incident is None
    assert monitor.step(["digits"], START + trained.played + 60) == []  # nothing new
    told = monitor.keep(monitor.look("digits", trained.play(planted(trained, WIDE, 2))))
    assert told.look.drift
    assert {"flat-inputs", "unknown-kind"} <= set(told.look.alerts)
    assert told.look.certified == 24
    incident = told.incident
    assert incident is not None
    shares = {cause.name: cause.share for cause in incident.causes}
    assert shares["a kind that the reference lacks"] == pytest.approx(0.15, abs=0.06)
    assert shares["black inputs, refused"] == pytest.approx(0.03, abs=0.02)
    assert [event.step for event in incident.timeline] == ["opened", "mitigate", "investigate"]
    page = (trained.folder / incident.reports[0]).read_text(encoding="utf-8")
    assert "docs/runbook.md#unknown-kind" in page
    assert "Requests that show it" in page
    kept = read_json((trained.folder / incident.reports[0]).with_suffix(".json"))
    assert kept["drift"]
    assert kept["incident"] == incident.id
    for way in kept["directions"]:
        assert (trained.folder / "drift" / "digits" / way["picture"]).is_file()
    assert kept["directions"]
    again = monitor.keep(monitor.look("digits", trained.play(planted(trained, WIDE, 3))))
    assert again.incident is not None
    assert again.incident.id == incident.id  # one, until it is closed
    assert again.explanation is not None
    assert again.explanation.requests > 700  # both windows
    (one,) = status(trained.folder, trained.registry, START + trained.played)
    assert one.incidents == (incident.id,)
    assert one.requests == 2 * ORDINARY + 3 * WIDE
    assert one.drift is not None
    assert (
        validate_incident(incident, trained.registry.resolve("digits:1"), trained.registry, trained.folder).old.change
        == 0
    )


def test_the_command_says_drift_by_its_exit_code(
    trained: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = trained.play(trained.ordinary(2 * ORDINARY, 0), share=0.0)
    loud = trained.play(planted(trained, WIDE, 2))

    def run(command: str, *arguments: object) -> tuple[object, str]:
        places = ("--registry", trained.registry.place, "--telemetry", trained.folder)
        monkeypatch.setattr(sys, "argv", ["lowerbound", "monitor", command, *map(str, (*arguments, *places))])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().out

    options = ("--window", WIDE, "--budget", "24/month", "--looks", 240)
    code, said = run("drift", "digits", *options, "--until", f"@{quiet}")
    assert (code, "nothing unusual" in said, "certified: at most 12 false alarms" in said) == (0, True, True)
    code, said = run("drift", "digits", *options, "--until", f"@{loud}", "--keep", "--json", "--out", tmp_path / "look")
    found = json.loads(said)
    assert (code, found["drift"]) == (1, True)
    assert [path.suffix for path in sorted((tmp_path / "look").iterdir()) if path.stem == found["id"]] == [
        *(".html", ".json")
    ]
    code, said = run("incidents", found["incident"])
    assert (code, "docs/runbook.md#flat-inputs" in said) == (0, True)
    code, said = run("status", "digits", "--json")
    assert json.loads(said)[0]["incidents"] == [found["incident"]]
    code, said = run("replay", "digits", "--version", 1, *options, "--since", f"@{quiet - 150}", "--until", f"@{loud}")
    assert (code, "1 of 1 looks would have alarmed" in said) == (1, True)


def test_a_silent_regime_is_seen_in_codes_while_errors_stay_low(stage: Stage) -> None:
    """Two of five requests are of three classes that are reconstructed well; no error is high."""
    now = stage.play(stage.ordinary(ORDINARY, 0), share=0.0)
    monitor = stage.monitor()
    monitor.adopt("digits", START - 1, now, now)
    assert stage.traffic.labels is not None
    easy = np.flatnonzero(np.isin(stage.traffic.labels, (0, 6)))
    chance = np.random.default_rng(5)
    rows = stage.ordinary(WINDOW, 6)
    rows[:80] = stage.traffic.rows[chance.choice(easy, 80)]
    told = monitor.keep(monitor.look("digits", stage.play(chance.permutation(rows))))
    assert {"drift-latent", "drift-together"} & set(told.look.alerts)
    assert not {"high-error", "drift-error"} & set(told.look.alerts)
    assert told.look.errors is not None
    assert not told.look.errors.suffered
    assert told.incident is not None


def test_another_encoder_begins_anew(stage: Stage) -> None:
    """Codes of two encoders are never compared, though the model has one name."""
    monitor = stage.monitor()
    now = stage.play(stage.ordinary(ORDINARY, 0), share=0.0)
    monitor.adopt("digits", START - 1, now, now)
    assert monitor.look("digits", stage.play(stage.ordinary(WINDOW, 1), share=0.0)).look.alerts == ()
    stage.registry.promote("digits", 2)
    now = stage.play(stage.ordinary(WINDOW, 2), 2, share=0.0)
    with pytest.raises(TooFewError, match="no requests before these"):
        monitor.look("digits", now)
    monitor = stage.monitor()
    now = stage.play(stage.ordinary(ORDINARY, 3), 2, share=0.0)
    told = monitor.look("digits", now)
    assert told.version.number == 2
    assert told.look.alerts == ()
    assert "requests of telemetry" in told.look.baseline


def test_a_replay_says_what_would_have_been_seen(stage: Stage) -> None:
    now = stage.play(stage.ordinary(ORDINARY, 0), share=0.0)
    monitor = stage.monitor()
    monitor.adopt("digits", START - 1, now, now)
    end = stage.play(np.concatenate([stage.ordinary(400, 1), planted(stage, 400, 2)]), share=1.0)
    first, second = (stage.registry.resolve(f"digits:{number}") for number in (1, 2))
    found = replay(first, stage.registry, stage.folder, LOOKING, now, end)
    assert found.through == "stored codes"
    assert [bool(look.alerts) for look in found.looks][:2] == [False, False]
    assert len(found.alarms) >= 1
    with pytest.raises(NotSupportedError, match="another encoder"):
        replay(second, stage.registry, stage.folder, LOOKING, START, end)  # most inputs were not kept
    with pytest.raises(TooFewError, match="no requests before these"):
        replay(second, stage.registry, stage.folder, LOOKING, now, end, level=0.02)  # kept, but no baseline
    wide = Looking(window=200, false_alarms=200.0, looks=240.0, reference="version")
    with pytest.raises(TooFewError, match="give"):
        replay(second, stage.registry, stage.folder, wide, now, end, level=0.02)
    assert not list((stage.folder / "incidents").glob("*.json"))  # nothing was kept


def test_kept_inputs_go_through_another_encoder(stage: Stage) -> None:
    end = stage.play(np.concatenate([stage.ordinary(5000, 0), planted(stage, 1000, 2)]))
    looking = LOOKING
    second = stage.registry.resolve("digits:2")
    with pytest.raises(TooFewError, match="no requests before these"):
        replay(second, stage.registry, stage.folder, looking, START, end, level=0.02)
    now = stage.play(stage.ordinary(ORDINARY, 3), 2)  # it serves for a while, and has a baseline
    stage.registry.promote("digits", 2)
    Monitor(stage.folder, stage.registry, looking).adopt("digits", end, now, now)
    found = replay(second, stage.registry, stage.folder, looking, START, end, level=0.02)
    assert found.through == "kept inputs"
    quiet, loud = found.looks[:20], found.looks[-4:]
    assert sum(bool(look.alerts) for look in quiet) <= 7  # of 20 with a tenth each, 99.9 % of the time
    assert all(look.alerts for look in loud)


def test_a_version_knows_its_held_out_rows(stage: Stage) -> None:
    version = stage.registry.resolve("digits")
    found = registered(version)
    assert set(found.window.facts) == {"points", "variances", "rates", "errors", "inputs"}
    assert found.statistics == ("pixel_mean_0", "pixel_variance_0")
    scores = version.calibration().scores
    assert np.allclose(np.sort(found.window.fact("errors")), scores["error"].numpy(), rtol=1e-6)


def test_a_row_that_was_scored_later_counts_once(stage: Stage) -> None:
    """Requests to encode have no errors; scored in an idle moment they have."""
    rows = stage.ordinary(50, 0)
    facts = facts_through(stage.deployments[1], rows, [START + place for place in range(50)], list("abcde" * 10))
    facts = [fact._replace(request=f"request-{place}") for place, fact in enumerate(facts) if fact.gate == "passed"]
    with Telemetry(stage.folder) as store:
        for fact in facts:
            store(fact._replace(verb="encode", error=None, p_value=None))
            store(fact._replace(verb="idle", time=fact.time + 100))
    found = stage.monitor().read(stage.registry.resolve("digits"), START, START + 1000)
    assert len(found) == len(facts)
    assert found.window is not None
    assert np.allclose(found.window.fact("errors"), [fact.error for fact in facts])


def test_a_drill_measures_what_it_planted(stage: Stage, tmp_path: Path) -> None:
    plan = Plan("blur", severity=0.4, window=200, false_alarms=24.0, ordinary=3, troubled=4)
    found = run_drill(stage.registry.resolve("digits"), stage.registry, tmp_path / "drill", plan, level=0.005)
    assert found.detected == 200
    assert found.planted == 1
    assert found.ordinary_looks == 3
    assert found.incident is not None
    with pytest.raises(UsageError, match="a folder of its own"):
        run_drill(stage.registry.resolve("digits"), stage.registry, tmp_path / "drill", plan)


def test_injections_change_what_they_say() -> None:
    chance = np.random.default_rng(0)
    rows = chance.integers(0, 17, (200, 1, 8, 8)).astype(np.uint8)
    for name in INJECTIONS:
        made, changed = inject(rows, name, chance, 17, share=0.25)
        assert made.dtype == rows.dtype
        assert made.max() <= 16
        assert 20 < changed.sum() < 80
        different = (made != rows).reshape(200, -1).any(axis=1)
        assert not different[~changed].any()
        assert different[changed].mean() > 0.95
    assert inject(rows, "brightness", chance, 17)[0].mean() > rows.mean() + 1
    assert (inject(rows, "pipeline-bug", chance, 17)[0] == rows.swapaxes(2, 3)).all()
    with pytest.raises(UsageError, match="pictures"):
        inject(rows[:, 0, 0], "blur", chance, 17)
    with pytest.raises(UsageError, match="there are"):
        inject(rows, "rain", chance, 17)


def requests(chance: np.random.Generator, count: int, refused: float) -> Stretch:
    """Gaussian codes and log-normal errors; the gate refuses a share as black."""
    points = chance.standard_normal((count, 3))
    window = Window(points=points, errors=np.exp(0.4 * chance.standard_normal(count)))
    black = np.sort(chance.choice(count, chance.binomial(count, refused), replace=False)).astype(float)
    names = np.array([f"{place}" for place in range(count)])
    return Stretch(
        window, np.arange(count), np.arange(count, dtype=float), names, np.full(len(black), "black"), black, 0
    )


def test_all_alerts_together_keep_the_budget() -> None:
    """At most one look of ten may alarm: of 200 looks beside 20 baselines at most 20, and five deviations of chance.

    Baselines of a length that is certified, ordinary requests of which 0.5 % are refused.
    """
    budget, alarms, looks = Budget(10, 100), 0, 0
    for seed in range(20):
        chance = np.random.default_rng(seed)
        known = requests(chance, 10_000, 0.005)
        assert known.window is not None
        baseline = Baseline(known.window, (), "", "requests", known.reasons)
        looker = Looker(baseline, ("points", "errors"), budget, 300, seed)
        for _ in range(10):
            looks += 1
            alarms += bool(looker.look(requests(chance, 300, 0.005)).alerts)
    assert looks == 200
    assert 0 < alarms <= 20 + 5 * np.sqrt(20)


def test_times_and_budgets_are_read() -> None:
    now = 1_763_733_600.0
    assert read_budget("2/month") == 2
    assert read_moment("24h", now) == now - 86400
    assert read_moment("@12.5", now) == 12.5
    assert read_moment("2025-11-21T14:00:00", now) == read_moment("2025-11-21T15:00:00+01:00", now)
    assert read_span("7d/now", now) == (now - 7 * 86400, now)
    for wrong in ("yesterday", "@x", "3y"):
        with pytest.raises(UsageError, match="no time"):
            read_moment(wrong, now)
    with pytest.raises(UsageError, match="span"):
        read_span("7d", now)
    with pytest.raises(UsageError, match="budget"):
        read_budget("few")

"""The court: facts to pairs, pairs to verdicts, verdicts to the registry; and what it does when it is cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_facts import fact

from lowerbound.errors import DataError, TooFewError, UsageError
from lowerbound.files import exclusive, read_json
from lowerbound.service.candidate import Candidate
from lowerbound.service.monitoring.telemetry.fact import IDLE, Privacy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.monitoring.verdicts.codes import compare_codes
from lowerbound.service.monitoring.verdicts.court import LOCK, Court, decide, deliver
from lowerbound.service.monitoring.verdicts.frechet import Look
from lowerbound.service.monitoring.verdicts.halves import MOST_WAITING, Halves, Side
from lowerbound.service.monitoring.verdicts.rules import Rules
from lowerbound.service.monitoring.verdicts.sampled import look_at_samples
from lowerbound.service.monitoring.verdicts.trial import FOLDER, path_of
from lowerbound.service.registry.registry import Registry

SOON = Rules(soak_s=0.0)
NEW, OLD = Side("canary", "new"), Side("stable", "old")


def half(side: Side, request: str, error: float | None, **changes: object) -> dict[str, object]:
    labels = {"alias": side.alias, "version": side.version, "verb": "score", "status": 200}
    return {**labels, "request": request, "row": 0, "error": error, **changes}


def test_halves_meet_once_in_any_order() -> None:
    halves = Halves(NEW, OLD)
    assert len(halves.add([half(NEW, "a", 2.0), half(OLD, "b", 1.0), half(NEW, "a", 5.0, row=1)])[0]) == 0
    mine, theirs = halves.add([half(OLD, "a", 1.0, verb=IDLE), half(NEW, "b", 3.0), half(OLD, "a", 1.0)])
    assert (mine.tolist(), theirs.tolist()) == ([2.0, 3.0], [1.0, 1.0])
    kept = Halves(NEW, OLD)
    kept.restore(halves.state())
    met = kept.add([half(OLD, "a", 4.0, row=1), half(NEW, "a", 9.0, row=2), half(OLD, "a", 7.0, row=2)])
    assert [side.tolist() for side in met] == [[5.0, 9.0], [4.0, 7.0]]


def test_only_failures_of_rows_that_were_to_be_scored_count() -> None:
    halves = Halves(NEW, OLD)
    refused = half(NEW, "a", None, status=429)
    encoded = half(NEW, "a", None, verb="encode")
    failed = half(NEW, "a", None, verb=IDLE, status=500)
    mine, theirs = halves.add([refused, encoded, half(OLD, "a", 1.0), failed])
    assert np.isnan(mine).tolist() == [True]
    assert theirs.tolist() == [1.0]
    other = half(Side("canary", "another"), "c", 1.0)
    assert len(halves.add([other, half(OLD, "c", 1.0)])[0]) == 0


def test_waiting_halves_are_bounded() -> None:
    halves = Halves(NEW, OLD)
    halves.add(half(OLD, f"{index}", 1.0) for index in range(3 * MOST_WAITING))
    assert [len(side) for side in halves.state()] == [0, MOST_WAITING]


class Stage:
    """A registry with a candidate, a store that gets facts of both, and a court of it all, on a clock of its own."""

    def __init__(self, place: Path, folder: Path, rules: Rules = SOON, alias: str = "canary") -> None:
        self.registry, self.folder, self.now = Registry(place), folder, 1.8e9
        self.registry.promote("digits", 1)
        self.registry.promote("digits", 2, alias)
        self.telemetry = Telemetry(folder)
        self.rules, self.served = rules, [self.candidate(2, alias)]
        self.court = self.open()
        self._number = 0

    def candidate(self, number: int, alias: str = "canary", stable: int = 1) -> Candidate:
        rows = {row.alias: row for row in self.registry.history("digits") if row.number == number}
        versions = [self.registry.resolve(f"digits:{each}").hash for each in (number, stable)]
        return Candidate("digits", alias, number, versions[0], rows[alias].id, stable, versions[1])  # type: ignore[arg-type]

    def open(self) -> Court:
        return Court(self.folder, self.registry, lambda: self.served, self.rules, clock=lambda: self.now)

    def serve(self, logs: np.ndarray) -> None:
        """Facts of both versions, whose errors differ by these logarithms, committed."""
        mine = self.served[0]
        for log in logs:
            self._number += 1
            shared = {"request": f"r{self._number}", "verb": IDLE}
            self.telemetry(fact(0, **shared, error=0.01, alias="stable", version=mine.stable_hash))
            self.telemetry(fact(0, **shared, error=0.01 * np.exp(log), alias=mine.place, version=mine.hash))
        assert self.telemetry.flush()

    def trial(self, number: int = 2) -> dict:
        return read_json(path_of(self.folder, "digits", number))

    @property
    def aliases(self) -> dict[str, int]:
        return {alias: version.number for alias, version in self.registry.aliases("digits").items()}


@pytest.fixture
def stage(place: Path, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(place, tmp_path / "telemetry")
    yield made
    made.court.rise()
    made.telemetry.close()


def noise(n: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(n).normal(mean, 0.1, n)


def test_a_worse_canary_is_taken_off_with_the_reason(stage: Stage) -> None:
    stage.court.sit()
    assert stage.trial()["verdict"]["reason"] == "There were no requests to compare."
    stage.serve(noise(1000, 0.1))
    stage.court.sit()
    assert stage.aliases == {"stable": 1}
    row = stage.registry.history("digits")[-1]
    assert (row.action, row.before) == ("withdraw", 2)
    assert row.why.startswith("The candidate is worse: the error differs by +")
    assert stage.trial()["ended"] == {"action": "roll_back", "at": stage.now, "history": row.id}
    stage.court.sit()
    assert stage.registry.history("digits")[-1].id == row.id, "nothing is done twice"


def test_an_equal_canary_waits_for_the_end_of_its_soak(place: Path, tmp_path: Path) -> None:
    stage = Stage(place, tmp_path / "telemetry", Rules())
    for _ in range(24):
        stage.serve(noise(100))
        stage.court.sit()
        assert stage.aliases == {"stable": 1, "canary": 2}
        stage.now += 3600
    stage.court.sit()
    assert stage.aliases == {"stable": 2}
    assert stage.trial()["ended"]["action"] == "promote"
    stage.court.rise()
    stage.telemetry.close()


def test_no_traffic_is_a_hold_however_long(stage: Stage) -> None:
    for _ in range(3):
        stage.now += 86400
        stage.court.sit()
    assert stage.trial()["verdict"]["action"] == "hold"
    assert stage.aliases == {"stable": 1, "canary": 2}


def test_the_naive_rule_is_labelled_and_rolls_back_at_the_first_chance(place: Path, tmp_path: Path) -> None:
    stage = Stage(place, tmp_path / "telemetry", Rules(judgement="naive"))
    stage.serve(np.array([0.05]))
    stage.court.sit()
    stage.serve(np.array([0.05]))
    stage.court.sit()
    assert stage.aliases == {"stable": 1}
    assert "naive" in stage.registry.history("digits")[-1].why
    stage.telemetry.close()


def test_a_shadow_is_only_talked_about(place: Path, tmp_path: Path) -> None:
    stage = Stage(place, tmp_path / "telemetry", alias="shadow")
    stage.court.sit()
    stage.serve(noise(1000, 0.2))
    stage.court.sit()
    assert stage.trial()["verdict"]["action"] == "roll_back"
    assert stage.aliases == {"stable": 1, "shadow": 2}
    stage.telemetry.close()


def test_only_one_court_sits(stage: Stage) -> None:
    with exclusive(stage.folder / FOLDER / LOCK, "another court"):
        stage.serve(noise(1000, 0.3))
        stage.court.sit()
        assert stage.aliases == {"stable": 1, "canary": 2}
    stage.court.sit()
    stage.serve(noise(1000, 0.3))
    stage.court.sit()
    assert stage.aliases == {"stable": 1}


def test_a_candidate_that_was_withdrawn_meanwhile_is_not_promoted(stage: Stage) -> None:
    stage.court.sit()
    stage.serve(noise(2000))
    stage.registry.rollback("digits", "canary")
    stage.court.sit()
    assert stage.aliases == {"stable": 1}
    assert stage.registry.history("digits")[-1].action == "withdraw"


@pytest.mark.parametrize("content", ["{}", '{"alias": "canary"}', "[]"])
def test_a_damaged_file_is_named_and_moves_nothing(stage: Stage, content: str) -> None:
    path = path_of(stage.folder, "digits", 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(DataError, match=r"2\.json"):
        stage.court.sit()
    assert path.read_text() == content


def test_another_stable_version_begins_another_trial(stage: Stage) -> None:
    stage.court.sit()
    stage.serve(noise(50))
    stage.court.sit()
    stage.registry.promote("digits", 3, "stable")
    stage.served = [stage.candidate(2, stable=3)]
    stage.court.sit()
    told = stage.trial()
    assert told["verdict"]["requests"] == 0
    assert [(past["requests"], past["stable"]["number"]) for past in told["earlier"]] == [(50, 1)]
    stage.served = []
    stage.court.sit()
    stage.registry.rollback("digits", "canary")
    stage.registry.promote("digits", 2, "canary")
    stage.served = [stage.candidate(2, stable=3)]
    stage.court.sit()
    assert len(stage.trial()["earlier"]) == 2, "the same version, once more"


def test_what_cannot_be_done_is_said_once(stage: Stage) -> None:
    stage.court.sit()
    weights = stage.registry.resolve("digits:2").path / "weights.safetensors"
    weights.unlink()  # of a copy
    stage.serve(noise(2000))
    stage.court.sit()
    assert "weights.safetensors" in stage.trial()["trouble"]
    before = stage.registry.position()
    stage.court.sit()
    assert (stage.registry.position(), stage.aliases) == (before, {"stable": 1, "canary": 2})


def test_an_operator_needs_a_judge_and_a_reason(stage: Stage) -> None:
    with pytest.raises(UsageError, match="who made it"):
        decide(stage.folder, "digits", 2, "hold", "Ada", "")
    with pytest.raises(UsageError, match="no server judges"):
        decide(stage.folder, "digits", 2, "hold", "Ada", "I say so")


def test_codes_of_both_versions_are_compared_row_by_row(stage: Stage) -> None:
    mine = stage.served[0]
    sides = Side("canary", mine.hash), Side("stable", mine.stable_hash)
    with pytest.raises(TooFewError, match="0 rows"):
        compare_codes(stage.folder, "digits", *sides)
    chance = np.random.default_rng(0)
    codes = chance.normal(size=(200, 4)).astype(np.float32)
    for index, code in enumerate(codes):
        moved = code + np.array([0, 0, 0.5 * (index % 2), 0], np.float32)
        stage.telemetry(fact(index, alias="stable", version=mine.stable_hash, code=code))
        stage.telemetry(fact(index, alias="canary", version=mine.hash, code=moved))
    stage.telemetry(fact(999, alias="canary", version=mine.hash, code=codes[0]))
    assert stage.telemetry.flush()
    found = compare_codes(stage.folder, "digits", *sides)
    assert (found.rows, found.equal, found.unit) == (200, 0.5, 2)
    assert found.most == pytest.approx(0.5 / np.sqrt(2) / codes[:, 2].std(), rel=0.01)


def test_frechet_distances_are_looked_at_once_each_and_block_a_promotion(place: Path, tmp_path: Path) -> None:
    rules = Rules(soak_s=0.0, metrics=("error", "far_worse", "frechet"))
    stage = Stage(place, tmp_path / "telemetry", rules)
    stage.court.sit()
    stage.serve(noise(2000))
    stage.now += 60
    stage.court.sit()
    assert stage.trial()["verdict"]["reason"] == "Nothing is known of frechet yet."
    found = Look(2000, 5.0, 5.1, -0.1, 0.05, -0.01, 19, "raw")
    with ThreadPoolExecutor(1) as other:
        told = other.submit(deliver, stage.folder, "digits", 2, found)
        while not told.done():
            stage.court.sit()
        assert told.result()["looks"] == 1
    stage.court.sit()
    assert stage.aliases == {"stable": 2}
    stage.court.rise()
    stage.telemetry.close()


def test_samples_of_both_versions_are_compared_with_kept_inputs(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "telemetry"
    with Telemetry(folder, privacy=Privacy("sample", share=1.0)) as telemetry:
        telemetry(fact(0, model="points", input=np.zeros(2, np.float32)))
        assert telemetry.flush()
        with pytest.raises(TooFewError, match="1 inputs of points were kept"):
            look_at_samples(folder, "points", 2, run, run, "raw", seed=0)
        for index, point in enumerate(np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)):
            telemetry(fact(index, model="points", input=point))
        assert telemetry.flush()
    found = look_at_samples(folder, "points", 2, run, run, "raw", seed=0)
    assert (found.n, found.difference, found.stderr) == (2000, 0.0, 0.0)
    assert found.candidate > 0
    again = look_at_samples(folder, "points", 2, run, run, "raw", seed=1)
    assert again.candidate != found.candidate, "other seeds, the same inputs"


def test_a_kill_while_facts_are_judged_counts_none_twice(stage: Stage, tmp_path: Path) -> None:
    stage.court.sit()  # begins the trial
    stage.court.rise()
    script = Path(__file__).with_name("court_of_two.py")
    total = 0
    for round_ in range(2):
        told = [sys.executable, str(script), str(stage.registry.place), str(stage.folder)]
        process = subprocess.Popen(told, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert process.stdout is not None
        assert process.stdout.readline() == "sits\n"
        for _ in range(5 + 3 * round_):
            stage.serve(noise(37))
            total += 37
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    stage.now = time.time()
    stage.court.sit()
    stage.court.rise()
    told = stage.trial()
    assert told["verdict"]["requests"] == total

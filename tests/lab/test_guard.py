"""The guard against posterior collapse: what it sees, what it leaves alone, and what it does."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tables import FAMILIES, context_rows, raw_rows
from test_resume import assert_same_run, journal

import lowerbound
from lowerbound.errors import TrainingFailedError
from lowerbound.lab import checkpoint
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import InMemory, Rows
from lowerbound.lab.evaluation.usage import Usage, usage
from lowerbound.lab.experiment import make_loop
from lowerbound.lab.guard import Alarm, CollapseError, CollapseGuard, Stage
from lowerbound.lab.training.loop import Loop
from lowerbound.model.families.vae import VAE
from lowerbound.model.networks.mlp import MLP
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Guard, Recipe

DIGITS = load_data({"kind": "digits"})
HEALTHY = Usage(-24.0, 5.0, 1.0, 6.0, 3.0, 9.0, 3.0, 0.9)
COLLAPSED = Usage(-27.0, 0.001, 0.0003, 16.0, 0.0, 0.0, -0.002, 0.004)
QUIET = ["training.film=0", "training.journal_every=1"]


def recipe(*settings: str, name: str = "digits") -> Recipe:
    return lowerbound.read_recipe(name, [*QUIET, *settings])


class Alone(CollapseGuard):
    """Keeps its loop, which nobody else does."""

    def __init__(self, guard: Guard, loop: Loop, rows: Rows) -> None:
        super().__init__(guard, loop, rows)
        self.kept = loop


def made(*settings: str, **guard: object) -> CollapseGuard:
    return Alone(Guard.model_validate(guard), make_loop(recipe(*settings), DIGITS), DIGITS.validation)


def watched(guard: CollapseGuard, steps: int, meddle: Callable[[int, VAE], None]) -> list[Alarm]:
    """The alarms of a training that is meddled with after each step."""
    alarms = []

    def after_step(step: int, parts: dict[str, torch.Tensor]) -> bool:
        guard.after_step(step, parts)
        if guard.alarm is not None:
            alarms.append(guard.alarm)
        model = guard.loop.model
        assert isinstance(model, VAE)
        with torch.no_grad():
            meddle(step, model)
        return step == steps

    guard.loop.run(after_step)
    return alarms


def last(network: torch.nn.Module) -> torch.nn.Linear:
    assert isinstance(network, MLP)
    layer = network.layers[-1]
    assert isinstance(layer, torch.nn.Linear)
    return layer


# ------------------------------------------------------------------------------------------------- what it sees


def test_a_planted_collapse_is_seen_by_all_signs_with_its_onset() -> None:
    planted = 130
    guard = made("objective.beta=0.5", window=40)

    def meddle(step: int, model: VAE) -> None:
        if step >= planted:
            last(model.encoder).weight.zero_()
            last(model.encoder).bias.zero_()

    (alarm,) = watched(guard, 260, meddle)
    assert abs(alarm.onset - planted) <= 10
    assert alarm.step == alarm.onset + 39
    assert {"rate", "information"} <= set(alarm.signs)
    assert alarm.seen.largest_rate < 0.01
    assert alarm.seen.active == 0
    assert abs(alarm.seen.information) < 0.05


def test_a_rate_without_information_is_seen() -> None:
    """The floor of free bits can be met by codes that are the same for all rows: the rate alone sees nothing."""
    guard = made("objective.beta=1.0", window=20)

    def meddle(step: int, model: VAE) -> None:
        last(model.encoder).weight.zero_()
        last(model.encoder).bias[: model.latents["z"][0]] = 2.0

    alarms = watched(guard, 60, meddle)
    assert alarms
    assert alarms[0].seen.rate > 16
    assert "information" in alarms[0].signs
    assert "rate" not in alarms[0].signs


def test_a_decoder_that_ignores_the_codes_is_seen() -> None:
    guard = made("objective.beta=0.0", window=20)

    def meddle(step: int, model: VAE) -> None:
        if step == 1:
            last(model.encoder).weight[: model.latents["z"][0]] *= 50
        first = model.decoder.layers[0]  # type: ignore[union-attr, index]
        first.weight.zero_()  # type: ignore[union-attr, operator]

    alarms = watched(guard, 60, meddle)
    assert [alarm.signs for alarm in alarms] == [("change",)]
    assert alarms[0].seen.change < 0.02
    assert alarms[0].seen.information > 0.05


class Planned(Alone):
    """Sees what was planned."""

    plan: Usage = HEALTHY

    def look(self) -> Usage:
        return self.plan


def planned(seen: Usage, **settings: object) -> Planned:
    loop = make_loop(recipe("training.checkpoint_every=10"), DIGITS)
    guard = Planned(Guard.model_validate({"window": 10, **settings}), loop, DIGITS.validation)
    guard.plan = seen
    return guard


def parts(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_one_unit_that_carries_information_is_enough() -> None:
    """The mean over many spare units may be dead for ever."""
    guard = planned(replace(HEALTHY, largest_rate=0.12, dead=15.0, active=1.0))
    for step in range(1, 101):
        guard.after_step(step, parts(rate_nats=0.12, beta=1.0))
        assert guard.alarm is None
    assert guard.low == 100


def test_steps_of_a_warm_up_do_not_count() -> None:
    guard = planned(COLLAPSED)
    for step in range(1, 101):
        guard.after_step(step, parts(rate_nats=0.0, beta=step / 100))
    assert not guard.alarmed
    for step in range(101, 111):
        guard.after_step(step, parts(rate_nats=0.0, beta=1.0))
    assert guard.alarm is not None
    assert (guard.alarm.step, guard.alarm.onset, guard.alarm.signs) == (110, 101, ("rate", "information", "change"))


def test_an_alarm_is_raised_once_and_ends() -> None:
    guard = planned(COLLAPSED)
    rows = [guard.after_step(step, parts(rate_nats=0.0)) for step in range(1, 31)]
    guard.plan = HEALTHY
    rows += [guard.after_step(step, parts(rate_nats=5.0)) for step in range(31, 61)]
    assert [step for step, row in enumerate(rows, 1) if "collapse_onset_step" in row] == [10]
    assert [step for step, row in enumerate(rows, 1) if "collapse_over" in row] == [40]


def test_a_model_without_continuous_codes_is_left_alone() -> None:
    nothing = Usage(*[math.nan] * 8)
    guard = planned(nothing)
    for step in range(1, 101):
        guard.after_step(step, parts(rate_nats=20.0))
    assert not guard.alarmed


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_looked_at(name: str) -> None:
    model = FAMILIES[name].make().eval()
    if not model.latents:
        pytest.skip("it has no latents, and the guard does not look")
    raw, context = raw_rows(model.data, 6), context_rows(model.data, 6)
    noise = BatchNoise(0, 0, 6)
    found = usage(model, [(model.preparation.prepare(raw, noise.child("prepare")), context, noise)])
    assert set(map(type, vars(found).values())) == {float}


@pytest.mark.slow
@pytest.mark.parametrize("latent", [16, 64])
def test_ten_healthy_seeds_raise_no_alarm(latent: int, tmp_path: Path) -> None:
    spare = 0.0
    for seed in range(10):
        settings = (f"seed={seed}", f"model.latent={latent}", "training.steps=400")
        warm = "objective.beta={kind='linear', start=0.1, steps=100}"
        run = lowerbound.train(recipe(*settings, warm), tmp_path / str(seed))
        rows = journal(run.path)
        assert not [row for row in rows if "collapse_onset_step" in row]
        assert sum("heldout_change" in row for row in rows) == 4
        batch = DIGITS.validation.take(torch.arange(128))
        noise = BatchNoise(0, 0, 128)
        spare += usage(run.model(), [(run.model().preparation.prepare(batch.raw, noise), None, noise)]).dead
    assert spare >= 10, "there were spare units, and they raised nothing"


# ------------------------------------------------------------------------------------------------- what it does

COLLAPSE = ["training.steps=260", "training.guard.window=40", "training.checkpoint_every=30"]
CURE = [*COLLAPSE, "training.guard.relief_steps=100"]


def collapse(*settings: str) -> Recipe:
    return recipe(*settings, name="digits-collapse")


def test_policy_warn_says_so_and_goes_on(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the posterior collapsed from step"):
        run = lowerbound.train(collapse(*COLLAPSE), tmp_path / "run")
    (row,) = [row for row in journal(run.path) if "collapse_onset_step" in row]
    assert row["step"] == row["collapse_onset_step"] + 39 < 60
    assert row["collapse_signs"] == 3
    assert run.finished


def test_policy_off_looks_at_nothing(tmp_path: Path) -> None:
    run = lowerbound.train(collapse(*COLLAPSE, "training.guard.policy=off"), tmp_path / "run")
    assert not [row for row in journal(run.path) if "heldout_change" in row]


def test_the_guard_does_not_change_what_it_watches(tmp_path: Path) -> None:
    names = {"off": "training.guard.policy=off", "warn": "training.guard.window=10"}
    for name, setting in names.items():
        lowerbound.train(recipe("training.steps=40", setting), tmp_path / name)
    one, other = (checkpoint.read_tensors(tmp_path / name / "weights.safetensors") for name in names)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_policy_stop_ends_with_exit_code_3_and_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    chosen = collapse(*COLLAPSE, "training.guard.policy=stop")
    with pytest.raises(TrainingFailedError, match=r"the posterior collapsed.*train again with a warm-up") as error:
        lowerbound.train(chosen, out)
    assert error.value.exit_code == 3
    seen = journal(out)[-1]
    assert seen["step"] == seen["collapse_onset_step"] + 39
    newest = checkpoint.newest(out / "checkpoint")
    assert newest is not None
    assert newest.name == f"step-{seen['step']:09d}"
    before = (out / "journal.jsonl").read_bytes()
    with pytest.raises(TrainingFailedError, match="the posterior collapsed"):
        lowerbound.train(chosen, out, resume=True)
    assert (out / "journal.jsonl").read_bytes() == before


def test_the_command_ends_with_exit_code_3(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lowerbound", "train", "digits-collapse", "--out", str(tmp_path / "run")]
    for setting in (*COLLAPSE, "training.guard.policy=stop"):
        command += ["--set", setting]
    place = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=place)
    assert done.returncode == 3
    assert "the posterior collapsed from step" in done.stderr


def cured(out: Path, stop: Callable[[], bool] | None = None, resume: bool = False, *more: str) -> lowerbound.Run:
    return lowerbound.train(collapse(*CURE, "training.guard.policy=cure", *more), out, stop=stop, resume=resume)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> lowerbound.Run:
    """A run that was cured, without a break."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cured(tmp_path_factory.mktemp("cured") / "whole")


@pytest.mark.filterwarnings("ignore:the posterior collapsed")
def test_policy_cure_goes_back_and_resumes_to_the_bit(whole: lowerbound.Run, tmp_path: Path) -> None:
    """Stopped before the alarm, at it and after it: always the same run."""
    rows = [row for row in journal(whole.path) if "cure" in row]
    assert [row["cure"] for row in rows] == list(range(1, len(rows) + 1))
    row = rows[0]
    assert row["step"] == 0, "it collapses before the second checkpoint"
    left = json.loads((whole.path / "collapse" / "cure-1.json").read_text())
    assert left["journal"][-1]["step"] == left["alarm"]["step"] == row["collapse_seen_step"]
    alarm = int(row["collapse_seen_step"])
    for step in (alarm - 5, alarm, alarm + 1, alarm + 100):
        torn, count = tmp_path / f"torn-{step}", itertools.count(1)
        stopped = cured(torn, stop=lambda step=step, count=count: next(count) >= step)
        assert not stopped.finished
        cured(torn, resume=True)
        assert_same_run(whole.path, torn)


class CrashError(Exception):
    pass


@pytest.mark.filterwarnings("ignore:the posterior collapsed")
@pytest.mark.parametrize("when", ["write_text", "unlink", "dropped"])
def test_a_crash_within_a_cure_leaves_a_run_that_cures_itself(
    when: str, whole: lowerbound.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "torn"

    def crash(*args: object, **kwargs: object) -> None:
        raise CrashError

    drop_from = checkpoint.drop_from

    def crash_after(folder: Path, step: int) -> None:
        drop_from(folder, step)
        raise CrashError

    with monkeypatch.context() as patch:
        if when == "write_text":
            patch.setattr("lowerbound.lab.cure.write_text", crash)
        elif when == "unlink":
            patch.setattr(checkpoint, "drop_from", crash)
        else:
            patch.setattr(checkpoint, "drop_from", crash_after)
        with pytest.raises(CrashError):
            cured(torn)
    cured(torn, resume=True)
    assert_same_run(whole.path, torn)


@pytest.mark.filterwarnings("ignore:the posterior collapsed")
def test_cures_in_vain_end_with_a_sentence(tmp_path: Path) -> None:
    """An encoder that cannot learn cannot be cured."""
    settings = ["training.learning_rates={encoder=1e-12}", "training.guard.cures=1"]
    with pytest.raises(TrainingFailedError, match="1 cures did not last"):
        cured(tmp_path / "run", None, False, *settings)
    assert [row["cure"] for row in journal(tmp_path / "run") if "cure" in row] == [1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the posterior collapsed")
def test_a_cured_run_reaches_the_rate_of_its_healthy_twin(tmp_path: Path) -> None:
    """At least 80 % of the rate of the same model with a warm-up; untreated it carries nothing."""
    choices = {
        "ill": collapse(),
        "cured": recipe(name="digits-collapse-cured"),
        "twin": collapse("objective.beta={kind='linear', steps=1000}"),
    }
    reached = {}
    for name, chosen in choices.items():
        rows = journal(lowerbound.train(chosen, tmp_path / name).path)
        reached[name] = sum(row["rate_nats"] for row in rows[-50:]) / 50
    assert reached["ill"] < 0.1 * reached["twin"]
    assert reached["cured"] >= 0.8 * reached["twin"] > 0.8


def test_the_way_back_is_the_stage_that_carries_most_with_a_sound_bound() -> None:
    guard = planned(COLLAPSED, policy="cure")
    guard.stages = [Stage(0, 0.1, -44.0), Stage(10, 30.0, -60.0), Stage(20, 6.0, -25.0), Stage(30, 5.0, -24.0)]
    alarm = Alarm(60, 45, ("rate",), COLLAPSED)
    assert guard.way_back(alarm, lambda stage: True).step == 20
    assert guard.way_back(replace(alarm, onset=15), lambda stage: True).step == 10  # none is sound: the latest
    assert guard.way_back(alarm, lambda stage: stage.step not in {20, 30}).step == 10
    with pytest.raises(TrainingFailedError, match="no checkpoint from before"):
        guard.way_back(alarm, lambda stage: False)


def test_stages_are_retained_without_signs_only() -> None:
    guard = planned(HEALTHY, policy="cure", stages=2)
    for step in range(0, 60, 5):  # half of them are those of a run that was stopped
        guard.note_stage(step)
    assert [stage.step for stage in guard.stages] == [0, 40, 50]
    guard.low = 1
    guard.note_stage(60)
    assert [stage.step for stage in guard.stages] == [0, 40, 50]


def test_the_state_goes_with_the_loop() -> None:
    guard = planned(COLLAPSED, policy="cure")
    guard.note_stage(0)
    for step in range(1, 10):
        guard.after_step(step, parts(rate_nats=0.0, beta=1.0))
    other = planned(COLLAPSED, policy="cure")
    other.load(json.loads(json.dumps(guard.state())))
    for one in (guard, other):
        one.after_step(10, parts(rate_nats=0.0, beta=1.0))
        with pytest.raises(CollapseError):
            one.act()
    assert guard.state() == other.state()


def two(out: Path) -> list[subprocess.Popen[bytes]]:
    """Two processes that train and cure one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lowerbound", "train", "digits-collapse", "--out", str(out)]
    for setting in (*QUIET, *CURE, "training.guard.policy=cure"):
        command += ["--set", setting]
    return [
        subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(2)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the posterior collapsed")
def test_two_processes_see_and_cure_what_one_does(tmp_path: Path) -> None:
    children = two(tmp_path / "two")
    try:
        assert [child.wait(timeout=250) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    cured(tmp_path / "one")
    one, other = (next(r for r in journal(tmp_path / name) if "cure" in r) for name in ("one", "two"))
    assert (one["step"], one["cure"]) == (other["step"], other["cure"])
    assert abs(one["collapse_onset_step"] - other["collapse_onset_step"]) <= 1
    assert not checkpoint.read_tensors(tmp_path / "two" / "weights.safetensors").keys() ^ (
        checkpoint.read_tensors(tmp_path / "one" / "weights.safetensors").keys()
    )


def test_a_run_of_few_held_out_rows_is_left_alone(tmp_path: Path) -> None:
    assert isinstance(DIGITS.validation, InMemory)
    few = replace(DIGITS, validation=InMemory(DIGITS.validation.raw[:1]))
    run = lowerbound.train(recipe("training.steps=12", "training.guard.window=5"), tmp_path / "run", data=few)
    assert not [row for row in journal(run.path) if "heldout_change" in row]

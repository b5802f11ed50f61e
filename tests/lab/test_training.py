"""Training that survives: spikes, numbers that are not finite, early stopping, rates, augmentation, memory."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tables import FAMILIES, context_rows, raw_rows

import lowerbound
from lowerbound.errors import RecipeError, ShapeError, TrainingFailedError, UsageError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.training.audit import audit
from lowerbound.lab.training.augment import augmentations
from lowerbound.lab.training.journal import read_journal
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.lab.training.rates import rate_factor
from lowerbound.lab.training.spikes import BEFORE, PATIENCE, SpikeGuard
from lowerbound.model.build import build_objective
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Recipe, Training

SMALL = ["model.encoder.widths=[16]", "model.decoder.widths=[16]", "training.journal_every=1"]


def recipe(*settings: str) -> Recipe:
    return lowerbound.read_recipe("digits", [*SMALL, *settings])


def poisoned(rows: int, value: float) -> Dataset:
    """The digits as real numbers, with `rows` spoilt ones among the training rows."""
    data = load_data({"kind": "digits"})
    assert isinstance(data.train, InMemory)
    raw = data.train.raw.float() / 16
    raw[:rows] = value
    return replace(data, spec=replace(data.spec, levels=None), train=InMemory(raw))


# ------------------------------------------------------------------------------------------------------- spikes


def test_a_spike_is_skipped_and_training_goes_on() -> None:
    guard = SpikeGuard(5.0)
    norms = [1.0 + 0.01 * i for i in range(BEFORE + 10)]
    assert all(guard.allows(norm) for norm in norms)
    assert not guard.allows(100.0)
    assert guard.allows(1.0)


def test_the_guard_cannot_lock_up() -> None:
    """After a lasting rise (the fixed threshold's trap) five steps are skipped at most, and soon none."""
    guard = SpikeGuard(5.0)
    for _ in range(200):
        guard.allows(1.0)
    answers = [guard.allows(1000.0) for _ in range(200)]
    assert answers[:PATIENCE] == [False] * PATIENCE
    assert max(sum(not a for a in answers[i : i + PATIENCE + 1]) for i in range(190)) == PATIENCE
    assert all(answers[-90:])


def test_a_planted_spike_is_skipped_in_training(tmp_path: Path) -> None:
    """One row of 1,297 is a million times too large: the steps that meet it are skipped, the model stays sound."""
    settings = ["training.epochs=12", "training.spike=20.0", "model.likelihood.kind=gaussian-fixed"]
    run = lowerbound.train(recipe(*settings), tmp_path / "run", data=poisoned(1, 1e4))
    rows = read_journal(run.journal_path)
    skipped = [row for row in rows if "skipped_model" in row]
    assert len(skipped) >= 8  # it is met once per epoch, but for the first when nothing is known
    assert all(row["gradient_norm_model"] > 1e3 for row in skipped)
    assert rows[-1]["distortion_nats"] < rows[25]["distortion_nats"]


# --------------------------------------------------------------------------------------------------- not finite


@pytest.mark.filterwarnings("ignore:.*went back")
def test_a_planted_nan_is_recorded_retried_and_named(tmp_path: Path) -> None:
    settings = ["training.epochs=3", "training.checkpoint_every=2", "model.likelihood.kind=gaussian"]
    out = tmp_path / "run"
    with pytest.raises(TrainingFailedError, match=r"second time.*1 rows of the batch.*not finite"):
        lowerbound.train(recipe(*settings), out, data=poisoned(1, math.nan))
    (box,) = (out / "blackbox").iterdir()
    report = json.loads((box / "report.json").read_text())
    batch = load_file(box / "batch.safetensors")["raw"]
    assert batch.shape == (128, 1, 8, 8)
    assert torch.isnan(batch[report["rows_not_finite"][0]]).all()
    assert report["first_layer_not_finite"] == "encoder.layers.0"
    assert all(layer["weights"] != "nan" for layer in report["layers"])
    assert not (out / "run.json").exists()
    whole = [path.name for path in (out / "checkpoint").glob("step-*")]
    assert whole, "the checkpoints before it are unharmed"
    assert all(int(name.split("-")[1]) < report["step"] for name in whole)


def test_a_failure_of_its_own_making_is_overcome_gently(tmp_path: Path) -> None:
    """A learning rate at which training blows up, but not at a tenth of it."""
    settings = ["training.steps=60", "training.learning_rate=3.0", "model.likelihood.kind=gaussian-pixel"]
    data = poisoned(0, 0.0)
    assert isinstance(data.train, InMemory)
    huge = replace(data, train=InMemory(data.train.raw * 1e18))
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(TrainingFailedError):
        warnings.simplefilter("always")
        lowerbound.train(recipe(*settings), tmp_path / "run", data=huge)
    assert any("went back to step" in str(warning.message) for warning in caught)


# ---------------------------------------------------------------------------------- best weights, early stopping


def test_best_weights_are_kept_and_training_ends_early(tmp_path: Path) -> None:
    settings = [
        "training.epochs=200", "training.validate_every=10", "training.keep=best", "training.patience=3",
        "training.learning_rate=1e-2", "objective.beta=1.0",
    ]  # fmt: skip
    run = lowerbound.train(recipe(*settings), tmp_path / "run")
    judged = [row for row in read_journal(run.journal_path) if "validation_elbo_nats" in row]
    values = [row["validation_elbo_nats"] for row in judged]
    best = max(range(len(values)), key=values.__getitem__)
    assert len(values) == best + 1 + 3
    assert judged[-1]["step"] < 2000
    steps = itertools.count(1)
    stopped = lowerbound.train(recipe(*settings), tmp_path / "again", stop=lambda: next(steps) == judged[best]["step"])
    assert not stopped.finished
    whole = load_file(run.weights_path)
    last = max(stopped.checkpoints.glob("step-*"))
    average = load_file(last / "average.safetensors")
    assert all(torch.equal(whole[name], average[name]) for name in whole)


def stopper(steps: int) -> Callable[[], bool]:
    """Asks to stop after so many steps."""
    left = itertools.count(1)
    return lambda: next(left) >= steps


def test_early_stopping_resumes_to_the_bit(tmp_path: Path) -> None:
    settings = ["training.epochs=40", "training.validate_every=7", "training.keep=best", "training.patience=2"]
    settings += ["training.learning_rate=2e-2", "training.checkpoint_every=5"]
    whole = lowerbound.train(recipe(*settings), tmp_path / "whole")
    torn = tmp_path / "torn"
    for stop_at in (3, 11, 24):
        lowerbound.train(recipe(*settings), torn, resume=True, stop=stopper(stop_at))
    run = lowerbound.train(recipe(*settings), torn, resume=True)
    first, second = load_file(whole.weights_path), load_file(run.weights_path)
    assert all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------------------------------- rates


def test_learning_rates_rise_and_fall() -> None:
    training = Training(steps=100, warmup_steps=10, schedule="cosine", final_rate=0.1)
    factors = [rate_factor(training, step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert factors[55] == pytest.approx(0.55, abs=0.01)
    assert rate_factor(training, 100, 100) == pytest.approx(0.1)
    assert rate_factor(Training(steps=100), 50, 100) == 1.0


def test_roles_have_their_own_learning_rates() -> None:
    model = FAMILIES["vae-mixture"].make()
    settings = {"steps": 1, "batch_size": 8, "learning_rates": {"decoder": 0.5, "prior": 0.25}}
    training = Training.model_validate(settings)
    objective = build_objective({"kind": "elbo"}, model, 0)
    rows = InMemory(raw_rows(model.data, 8))
    loop = Loop(model, objective, rows, training, 0, torch.device("cpu"), Processes())
    groups = loop.optimizers["model"].param_groups
    assert sorted(group["base_lr"] for group in groups) == [1e-3, 0.25, 0.5]


# --------------------------------------------------------------------------------------------------- augmentation


def test_flip_mirrors_half_of_the_images() -> None:
    raw = raw_rows(FAMILIES["vae"].data, 1000)
    changed = augmentations([{"kind": "flip"}], raw.shape[1:])(raw, BatchNoise(0, 0, 1000))
    mirrored = (changed == raw.flip(-1)).flatten(1).all(1)
    assert ((changed == raw).flatten(1).all(1) | mirrored).all()
    assert abs(mirrored.float().mean() - 0.5) < 4.5 * 0.5 / 1000**0.5


def test_shift_moves_and_keeps_what_stays_inside() -> None:
    raw = torch.zeros(500, 1, 9, 9, dtype=torch.uint8)
    raw[:, :, 4, 4] = 7
    moved = augmentations([{"kind": "shift", "pixels": 2}], raw.shape[1:])(raw, BatchNoise(0, 0, 500))
    assert (moved.sum((1, 2, 3)) == 7).all()
    places = {tuple(place[1:].tolist()) for place in moved[:, 0].nonzero()}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}
    assert moved.dtype == torch.uint8


def test_augmentation_is_for_images_and_checked() -> None:
    with pytest.raises(ShapeError, match="images"):
        augmentations([{"kind": "flip"}], (2,))
    with pytest.raises(RecipeError, match="did you mean `flip`"):
        augmentations([{"kind": "flp"}], (1, 8, 8))


def test_contexts_are_hidden_in_training_at_the_given_rate() -> None:
    model = FAMILIES["conditional"].make()
    rows = InMemory(raw_rows(model.data, 600), context_rows(model.data, 600))
    training = Training(steps=1, batch_size=600, context_dropout=0.3)
    loop = Loop(model, build_objective({"kind": "elbo"}, model, 0), rows, training, 0, torch.device("cpu"), Processes())
    batch = rows.take(torch.arange(600))
    assert batch.context is not None
    altered = loop._alter(batch, BatchNoise(0, 0, 600)).context
    assert altered is not None
    hidden = batch.context.present & ~altered.present
    assert not (altered.present & ~batch.context.present).any()
    assert abs(hidden.sum() / batch.context.present.sum() - 0.3) < 4.5 * (0.21 / 400) ** 0.5


# --------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", ["vae", "vae-convolutional", "top-down"])
def test_forgetting_activations_changes_no_number(name: str) -> None:
    reached = []
    for forget in (False, True):
        model = FAMILIES[name].make()
        training = Training(steps=4, batch_size=8, checkpoint_activations=forget)
        objective = build_objective({"kind": "elbo"}, model, 0)
        rows = InMemory(raw_rows(model.data, 16))
        Loop(model, objective, rows, training, 0, torch.device("cpu"), Processes()).run(lambda step, parts: False)
        reached.append(model.state_dict())
    assert all(torch.equal(value, reached[1][key]) for key, value in reached[0].items())


def test_forgetting_activations_saves_memory() -> None:
    saved = []
    for forget in (False, True):
        model = FAMILIES["vae"].make()
        training = Training(steps=1, batch_size=8, checkpoint_activations=forget)
        objective = build_objective({"kind": "elbo"}, model, 0)
        rows = InMemory(raw_rows(model.data, 16))
        loop = Loop(model, objective, rows, training, 0, torch.device("cpu"), Processes())
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            x = loop.model.get_submodule("decoder")(torch.randn(8, 4, requires_grad=True), None)
        saved.append(sum(sizes))
        assert x.requires_grad
    assert saved[1] < saved[0]


# ---------------------------------------------------------------------------------------------------------- audit


def test_the_audit_says_what_is_held_and_changes_nothing() -> None:
    data = load_data({"kind": "digits"})
    loop = lowerbound.make_loop(recipe("training.ema=0.9"), data)
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    ranges, memory = audit(loop)
    assert all(torch.equal(value, before[name]) for name, value in loop.model.state_dict().items())
    weights = 4 * sum(parameter.numel() for parameter in loop.model.parameters())
    assert (memory.parameters, memory.gradients, memory.optimizer) == (weights, weights, 2 * weights)
    assert memory.average >= weights
    assert memory.data == 1297 * 64
    assert memory.total == sum(vars(memory).values())
    assert {row.name for row in ranges} >= {"encoder.layers.0", "decoder.layers.2"}
    assert {row.fp16 for row in ranges} == {"fits"}


def test_the_audit_sees_what_forgetting_activations_saves() -> None:
    data = load_data({"kind": "digits"})
    wide = ["model.encoder.widths=[256,256]", "model.decoder.widths=[256,256]"]
    kept, forgotten = (
        audit(lowerbound.make_loop(recipe(*wide, f"training.checkpoint_activations={flag}"), data))[1].activations
        for flag in ("false", "true")
    )
    assert forgotten < 0.6 * kept


def test_the_audit_finds_what_overflows_in_half_precision() -> None:
    data = poisoned(0, 0.0)
    assert isinstance(data.train, InMemory)
    for scale, verdict in ((1.0, "fits"), (4e4, "near the limit"), (1e7, "overflows")):
        large = replace(data, train=InMemory(data.train.raw * scale))
        loop = lowerbound.make_loop(recipe("model.likelihood.kind=gaussian"), large)
        assert verdict in {row.fp16 for row in audit(loop)[0]}


# -------------------------------------------------------------------------------------------------------- writers


@pytest.mark.filterwarnings("ignore")  # the packages' own
@pytest.mark.slow
def test_tensorboard_and_mlflow_get_the_rows_of_the_journal(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracking = pytest.importorskip("mlflow.tracking")
    chosen, out = recipe("training.steps=5"), tmp_path / "run"
    writers = lowerbound.Writers(["tensorboard", "mlflow"], out, chosen)
    run = lowerbound.train(chosen, out, watch=writers.watch)
    writers.close()
    expected = [row["loss"] for row in read_journal(run.journal_path)]
    board = accumulator.EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("loss")] == pytest.approx(expected)
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("lowerbound").experiment_id])
    assert found.data.metrics["loss"] == pytest.approx(expected[-1])
    assert found.data.params["training.steps"] == "5"


def test_an_unknown_writer_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mlflow, tensorboard"):
        lowerbound.Writers(["tensorbord"], tmp_path / "run", recipe())
    assert not (tmp_path / "run").exists()

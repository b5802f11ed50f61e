"""From a recipe to a trained run folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowerbound.errors import RunError
from lowerbound.lab import checkpoint
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.device import find_device
from lowerbound.lab.run import Run, environment
from lowerbound.lab.training.journal import Journal
from lowerbound.lab.training.loop import Loop, Parts
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.families.family import Family
from lowerbound.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """How far training is.

    Attributes:
        step, steps: taken, and in all.
        rows_per_second: since the last report.
        parts: numbers of the last step.
    """

    step: int
    steps: int
    rows_per_second: float
    parts: dict[str, float]


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    resume: bool = False,
    data: Dataset | None = None,
    data_dir: Path | None = None,
    model: Family | None = None,
    device: str = "cpu",
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Run:
    """Train a recipe into a run folder.

    Args:
        recipe: what to train.
        out: the folder; absent or empty unless `resume`.
        resume: go on from the newest whole checkpoint; start if there is none; do nothing if the run is finished.
        data: rows of one's own instead of the recipe's data.
        data_dir: where the recipe's data lie.
        model: a model of one's own instead of the recipe's.
        device: a torch device.
        watch: told about progress whenever the journal gets a row.
        stop: asked after each step; True saves a checkpoint and returns.

    Returns:
        The run, finished unless it was stopped.

    Raises:
        RunError: the folder is in use, not empty, or belongs to another recipe.
        RecipeError, ShapeError, DataError: what was asked for cannot be done.
        TrainingFailedError: training could not go on.
    """
    run, place = Run(out), find_device(device)
    processes = Processes.join(place)
    if processes.leads:
        _check_folder(run, recipe, resume)
    dataset = data or load_data(recipe.data, data_dir)
    built = model or build_model(recipe.model, dataset.spec, recipe.seed)
    objective = build_objective(recipe.objective, built, recipe.seed)
    loop = Loop(built, objective, dataset.train, recipe.training, recipe.seed, place, processes)
    with run.locked() if processes.leads else nullcontext():
        if processes.leads:
            _check_folder(run, recipe, resume)  # again, now that nobody else can write
            if not run.finished:
                run.start(recipe, dataset.spec)
        processes.barrier()
        if run.finished:
            return run
        _go_on(run, loop)
        if _record(run, loop, watch, stop) and processes.leads:
            run.finish(loop.average.final(built), loop.step)
        processes.barrier()
    return run


def _check_folder(run: Run, recipe: Recipe, resume: bool) -> None:
    """Refuse a folder that something else lives in; hidden files do not count: they are locks and drafts."""
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path} is a file; --out must name a folder for the run.")
    if not run.path.exists() or all(path.name.startswith(".") for path in run.path.iterdir()):
        return
    if not resume:
        raise RunError(f"{run.path} is not empty; add --resume to go on with that run, or choose another folder.")
    if not run.recipe_path.exists():
        raise RunError(f"{run.path} is not empty and holds no run; choose another folder.")
    if (old := run.recipe()) != recipe:
        raise RunError(
            f"{run.path} was trained with another recipe ({_difference(old.dump(), recipe.dump())}); "
            "resume with the same one, or choose another folder."
        )


def _difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """The first setting in which two recipes differ."""
    for key in [*old, *(k for k in new if k not in old)]:
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            return _difference(before, after, f"{prefix}{key}.")
        return f"{prefix}{key} was {before!r} and now is {after!r}"
    return "no difference"


def _go_on(run: Run, loop: Loop) -> None:
    """Load the newest whole checkpoint, if there is one."""
    found = checkpoint.newest(run.checkpoints)
    if found is None:
        if any(run.checkpoints.glob("step-*")):
            warnings.warn(f"{run.path} has only damaged checkpoints: training starts again.", stacklevel=3)
        return
    tensors, numbers = checkpoint.load(found)
    loop.load(tensors, numbers)
    if (before := numbers["environment"]) != (now := environment()):
        changed = ", ".join(f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key])
        warnings.warn(f"resuming on another machine or version ({changed}): not equal to the bit.", stacklevel=3)


def _record(run: Run, loop: Loop, watch: Callable[[Progress], None] | None, stop: Callable[[], bool] | None) -> bool:
    """Run the loop, with journal and checkpoints written by the leading process; returns whether it finished."""
    leads, training = loop.processes.leads, loop.training
    if leads:
        checkpoint.clear(run.checkpoints)
    journal = Journal(run.journal_path, loop.step) if leads else None
    last_time, last_step, start = time.perf_counter(), loop.step, time.perf_counter()

    def after_step(step: int, parts: Parts) -> bool:
        nonlocal last_time, last_step
        stopping = stop is not None and stop()
        if journal is not None and (step % training.journal_every == 0 or step in (1, loop.steps)):
            now = time.perf_counter()
            speed = (step - last_step) * loop.turns * loop.batch_size / max(now - last_time, 1e-9)
            last_time, last_step = now, step
            numbers = {name: float(value) for name, value in parts.items()}
            journal.write({"step": step, **numbers, "rows_per_second": round(speed), "seconds": round(now - start, 3)})
            if watch is not None:
                watch(Progress(step, loop.steps, speed, numbers))
        if leads and (step % training.checkpoint_every == 0 or step == loop.steps or stopping):
            tensors, state = loop.state()
            state["environment"] = environment()
            checkpoint.save(run.checkpoints, step, tensors, state, training.checkpoints)
        return stopping

    try:
        return loop.run(after_step)
    finally:
        if journal is not None:
            journal.close()

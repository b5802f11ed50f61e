"""From a recipe to a trained run folder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lowerbound.errors import RecipeError, RunError, TrainingFailedError
from lowerbound.files import write_json
from lowerbound.lab import checkpoint
from lowerbound.lab.cure import cure, relievable
from lowerbound.lab.data.checked import checked_data
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.data.validate import Check
from lowerbound.lab.device import find_device
from lowerbound.lab.guard import CollapseError, CollapseGuard, guarded
from lowerbound.lab.recorder import Progress, Recorder, best_weights
from lowerbound.lab.run import Run, environment
from lowerbound.lab.training.audit import Memory, Range, audit
from lowerbound.lab.training.blackbox import NonFiniteError, explain, write_blackbox
from lowerbound.lab.training.loop import Gentleness, Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Outside
from lowerbound.recipe import Recipe

BLACKBOX = "blackbox"
OUTSIDE = Outside(lambda path: checkpoint.read_tensors(Path(path)), lambda path: Run(path).model())
GENTLE_STEPS = 100  # after a failure, steps with smaller learning rates


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    resume: bool = False,
    data: Dataset | None = None,
    data_dir: Path | None = None,
    model: Family | None = None,
    device: str = "cpu",
    check: Check = "off",
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
        check: what to do about data with something wrong: "strict" refuses them, "permissive" leaves such rows out and
            lists them in the run's quarantine.json, "off" does not look.
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
    dataset, quarantine = checked_data(
        recipe.data,
        recipe.model,
        check=check,
        quarantine=run.quarantine_path,
        begun=run.recipe_path.exists(),
        data=data,
        data_dir=data_dir,
    )
    loop = make_loop(recipe, dataset, model, place, processes)
    with run.locked() if processes.leads else nullcontext():
        if processes.leads:
            _check_folder(run, recipe, resume)  # again, now that nobody else can write
            if not run.finished:
                if quarantine is not None:
                    write_json(run.quarantine_path, quarantine)
                run.start(recipe, dataset.spec)
        processes.barrier()
        if run.finished:
            return run
        guard = guarded(recipe.training.guard, loop, dataset.validation)
        _go_on(run, loop)
        finished = _train_and_record(run, loop, dataset, guard, watch, stop)
        weights = loop.final_weights()
        if finished and processes.leads:
            run.finish(best_weights(run) or weights, loop.step)
        processes.barrier()
    return run


def make_loop(
    recipe: Recipe,
    dataset: Dataset,
    model: Family | None = None,
    device: torch.device | None = None,
    processes: Processes | None = None,
) -> Loop:
    """All that trains a recipe on data, put together, at step 0."""
    built = model or build_model(recipe.model, dataset.spec, recipe.seed)
    if recipe.start is not None:
        built.begin(Run(recipe.start).model())
    elif built.needs_start:
        raise RecipeError(
            f"a model of the family {recipe.model['kind']} learns from a trained one, and the recipe names none; give "
            "the folder of its run as `start`."
        )
    elif model is None and built.preparation.learns:
        spread = torch.linspace(0, len(dataset.train) - 1, min(len(dataset.train), 10_000)).long()
        built.preparation.fit(dataset.train.take(spread).raw)
    units = sum(math.prod(shape) for shape in built.latents.values())
    objective = build_objective(recipe.objective, built, recipe.seed, OUTSIDE)
    place = device or torch.device("cpu")
    relieved = relievable(objective, units, recipe.training.guard)
    return Loop(built, relieved, dataset.train, recipe.training, recipe.seed, place, processes or Processes())


def profile(
    recipe: Recipe, *, data: Dataset | None = None, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[list[Range], Memory]:
    """What a recipe needs to train: the range of each module's activations, and the memory by what holds it.

    Args:
        recipe: what would be trained.
        data: rows of one's own instead of the recipe's data.
        data_dir: where the recipe's data lie.
        device: a torch device.
    """
    return audit(make_loop(recipe, data or load_data(recipe.data, data_dir), device=find_device(device)))


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


def _train_and_record(
    run: Run,
    loop: Loop,
    dataset: Dataset,
    guard: CollapseGuard,
    watch: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
) -> bool:
    """Run the loop with its records; after the first failure go back and try once more, gently; cure a collapse.

    Returns:
        Whether training finished.
    """
    cured = False
    while True:
        guard.check()
        recorder = Recorder(run, loop, dataset.validation, guard, watch, stop)
        try:
            if loop.step == 0 or cured:
                recorder.checkpoint(loop.step)
            return recorder.ended_early or loop.run(recorder.after_step) or recorder.ended_early
        except NonFiniteError as error:
            _go_back(run, loop, error)
        except CollapseError as error:
            cure(run, loop, guard, error.alarm)
            cured = True
        finally:
            recorder.close()


def _go_back(run: Run, loop: Loop, error: NonFiniteError) -> None:
    """Write the black box and return to the last checkpoint with smaller steps ahead; the second time give up."""
    place = write_blackbox(run.path / BLACKBOX, error) if loop.processes.leads else run.path / BLACKBOX
    retries = loop.gentleness.retries
    if retries:
        raise TrainingFailedError(
            f"{error} for the second time: {explain(error)}; batch and layers are in {place}, "
            "and the checkpoint before it is unharmed."
        ) from None
    loop.processes.barrier()
    found = checkpoint.newest(run.checkpoints)
    assert found is not None, "there is one of step 0 at least"
    loop.load(*checkpoint.load(found))
    loop.gentleness = Gentleness(retries + 1, error.step + GENTLE_STEPS)
    warnings.warn(
        f"{error}: {explain(error)}; went back to step {loop.step} to try once more with a tenth of the learning "
        f"rates until step {loop.gentleness.until} (see {place}).",
        stacklevel=4,
    )

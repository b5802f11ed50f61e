"""The figures of a paper beside ours: what is missing is trained and judged, and all is collected in one record."""

from __future__ import annotations

import math
import os
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowerbound.errors import DataError
from lowerbound.files import read_json, sha256, write_bytes, write_json
from lowerbound.lab import checkpoint, judge
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.papers import Paper, PaperFigure, chosen_runs
from lowerbound.lab.recorder import Progress, last_times
from lowerbound.lab.run import Run
from lowerbound.lab.sweep import Trial, judged_as, run_trial
from lowerbound.recipe import Evaluation, read_recipe

SCHEMA = 1
PLACE = "{runs}"  # stands in a setting for the folder of the paper's runs
LARGEST = 4_000_000  # bytes of weights that are kept
AGAIN = Evaluation(examples=200, samples=200, generated=100)  # how kept weights are judged again


@dataclass(frozen=True)
class Made:
    """What there is of one run.

    Attributes:
        run: its name in the paper.
        seed: of it.
        command: that trains it alone.
        state: "finished and judged", "finished", "stopped" or "absent".
        steps: taken; of a stopped run those of its newest checkpoint.
        planned: steps in all, where they are known.
        results: those that a figure of the paper is about.
        seconds, processor_seconds: that training took; None where its journal does not say.
        samples: K of its importance bound.
        torch: version.
        machine: kind of processor.
        threads: of its training.
    """

    run: str
    seed: int
    command: str
    state: str
    steps: int = 0
    planned: int | None = None
    results: dict[str, dict[str, Any]] | None = None
    seconds: float | None = None
    processor_seconds: float | None = None
    samples: int | None = None
    torch: str = ""
    machine: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class Comparison:
    """A figure beside ours.

    Attributes:
        what, where, published, aim, number, better: of the figure.
        run, over: of ours.
        value: ours, the mean over seeds; None where a run is missing.
        stderr: over the rows that were judged; of a difference, as if its two runs had been judged on other rows.
        spread: standard deviation over seeds; None for one seed.
        seeds, rows: so many.
        reached: whether the aim was.
    """

    what: str
    where: str
    published: float | None
    aim: float
    number: str
    better: str
    run: str
    over: str | None
    value: float | None = None
    stderr: float | None = None
    spread: float | None = None
    seeds: int = 0
    rows: int = 0
    reached: bool = False


def plan_paper(paper: Paper, name: str, out: Path, seeds: int | None = None, only: Sequence[str] = ()) -> list[Trial]:
    """All runs of a paper, in order; every recipe is read before anything is trained.

    Args:
        paper: read from its file.
        name: of the paper; its runs live in `out/runs/name`.
        out: the folder of all papers.
        seeds: for every run, instead of the paper's.
        only: names of runs; all where none is named.

    Raises:
        RecipeError: the paper has no such run, or a setting is wrong.
    """
    trials, place = [], out / "runs" / name
    for title, run in chosen_runs(paper, only).items():
        settings = [setting.replace(PLACE, str(place)) for setting in run.settings]
        first = read_recipe(run.recipe, settings).seed
        for seed in range(first, first + (seeds or run.seeds)):
            recipe = read_recipe(run.recipe, [*settings, f"seed={seed}"])
            trials.append(Trial(title, recipe, place / f"{title}-{seed}"))
    return trials


def make_trial(
    trial: Trial,
    data_dir: Path | None = None,
    device: str = "cpu",
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> str | None:
    """Train and judge one run, or take what is there; what failed, or None where it was stopped.

    Raises:
        RunError: the folder holds a run of another recipe.
    """
    found = run_trial(trial, data_dir, device, watch, stop)
    return None if found is None else found.failed


def look_at_trial(paper: Paper, trial: Trial) -> Made:
    """What there is of a run, without training or judging anything."""
    run, recipe = Run(trial.path), trial.recipe
    source = paper.runs[trial.value]
    settings = [*source.settings, *([f"seed={recipe.seed}"] if recipe.seed else [])]
    command = shlex.join(["lowerbound", "train", source.recipe, *(w for s in settings for w in ("--set", s))])
    begun = Made(trial.value, recipe.seed, command, "absent", planned=recipe.training.steps)
    if not run.recipe_path.exists():
        return begun
    times: dict[str, Any] = last_times(run.journal_path)
    if not run.finished:
        newest = checkpoint.newest(run.checkpoints)
        step = 0 if newest is None else int(newest.name.removeprefix("step-"))
        return Made(**{**asdict(begun), **times, "state": "stopped", "steps": step})
    record = read_json(run.path / "run.json")
    where = record["environment"]
    facts = {
        "steps": record["steps"],
        "planned": record["steps"],
        "torch": where["torch"],
        "machine": f"{where['machine']}, {where['cpu']}",
        "threads": where["threads"],
    }
    judged = judged_as(run, recipe.evaluation)
    if judged is None:
        return Made(**{**asdict(begun), **times, **facts, "state": "finished"})
    wanted = {figure.number for figure in paper.figures} & judged["results"].keys()
    results = {number: judged["results"][number] for number in sorted(wanted)}
    facts |= {"state": "finished and judged", "results": results, "samples": judged["protocol"]["samples"]}
    return Made(**{**asdict(begun), **times, **facts})


def compare_figures(paper: Paper, made: Sequence[Made]) -> list[Comparison]:
    """Each figure of a paper beside ours, as far as its runs are finished and judged."""
    return [_beside(figure, made) for figure in paper.figures]


def write_reproduction(path: Path, name: str, paper: Paper, made: Sequence[Made]) -> dict[str, Any]:
    """Write the record of a paper, and return it: what was published, what was run, what came out."""
    record = {
        "schema": SCHEMA,
        "name": name,
        "title": paper.title,
        "citation": paper.citation,
        "differs": paper.differs,
        "cores": os.cpu_count(),
        "figures": [asdict(comparison) for comparison in compare_figures(paper, made)],
        "runs": [asdict(one) for one in made],
        "more": {title: run.more for title, run in paper.runs.items() if run.more},
    }
    write_json(path, record)
    return record


def read_reproductions(folder: Path) -> list[dict[str, Any]]:
    """The records of all papers that were written to a folder, by name.

    Raises:
        DataError: a file of another version.
    """
    records = [read_json(path) for path in sorted(folder.glob("*.json"))]
    for record in records:
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or "figures" not in record:
            raise DataError(f"{folder} holds a JSON file that is no reproduction of this version; keep it elsewhere.")
    return records


def keep_weights(trial: Trial, folder: Path, data_dir: Path | None = None) -> Path:
    """Copy a finished run, its weights and what tells how they are used, and judge the copy on a few rows.

    Weights of more than 4 MB are rounded to 16 bits; it is the copy that is judged, as it is.

    Args:
        trial: whose run is finished.
        folder: of the copy.
        data_dir: where data lie.

    Raises:
        DataError: they are larger than 4 MB even so.
    """
    run, copy = Run(trial.path), Run(folder)
    record = read_json(run.path / "run.json")
    if copy.finished and read_json(folder / "run.json").get("copy_of") == record["files"]:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tensors = read_tensors(run.weights_path)
    if sum(value.nbytes for value in tensors.values()) > LARGEST:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    if sum(value.nbytes for value in tensors.values()) > LARGEST:
        raise DataError(f"the weights of {run.path} are larger than 4 MB even at 16 bits; do not keep that run.")
    write_tensors(copy.weights_path, tensors)
    write_bytes(copy.recipe_path, run.recipe_path.read_bytes())
    files = {path.name: sha256(path) for path in (copy.recipe_path, copy.weights_path)}
    write_json(folder / "run.json", {**record, "files": files, "copy_of": record["files"]})
    judge.evaluate(copy, AGAIN, data_dir=data_dir)
    return folder


def _beside(figure: PaperFigure, made: Sequence[Made]) -> Comparison:
    assert figure.aim is not None, "the record was checked"
    facts = (figure.what, figure.where, figure.published, figure.aim, figure.number, figure.better)
    empty = Comparison(*facts, figure.run, figure.over)
    found = [_of(name, figure.number, made) for name in (figure.run, figure.over) if name is not None]
    if not all(found):
        return empty
    means = [statistics.mean(one["value"] for one in seeds) for seeds in found]
    value = means[0] - means[1] if figure.over else means[0]
    errors = [[one["stderr"] for one in seeds if one["stderr"] is not None] for seeds in found]
    spreads = [statistics.stdev(one["value"] for one in seeds) if len(seeds) > 1 else None for seeds in found]
    return Comparison(
        *facts,
        figure.run,
        figure.over,
        value,
        # seeds are judged on the same rows, so that their mean is no surer than one of them
        _together([statistics.mean(some) for some in errors]) if all(errors) else None,
        _together([spread for spread in spreads if spread is not None]) if None not in spreads else None,
        min(map(len, found)),
        min(one["n"] for seeds in found for one in seeds),
        figure.reached(value),
    )


def _of(run: str, number: str, made: Sequence[Made]) -> list[dict[str, Any]]:
    """A number of every seed of a run that has it."""
    return [one.results[number] for one in made if one.run == run and one.results and number in one.results]


def _together(errors: Sequence[float]) -> float:
    return math.sqrt(sum(error**2 for error in errors))

"""One recipe with several values of one setting and several seeds: trained, judged, and collected in `sweep.json`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lowerbound.errors import DataError, NotSupportedError, RunError, TrainingFailedError, UsageError
from lowerbound.files import read_json, write_json
from lowerbound.lab import judge
from lowerbound.lab.data.load import load_data
from lowerbound.lab.device import find_device
from lowerbound.lab.evaluation.case import Case
from lowerbound.lab.evaluation.disentanglement import unsupervised_disentanglement_ranking
from lowerbound.lab.evaluation.latents import points
from lowerbound.lab.experiment import make_loop, train
from lowerbound.lab.recorder import Progress
from lowerbound.lab.run import Run
from lowerbound.recipe import Evaluation, Recipe, read_recipe

SCHEMA = 1
RANKED_ROWS = 1000  # rows whose codes by several seeds are compared
SETTING = re.compile(r"[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        value: of the setting, as it was given.
        recipe: with that value and a seed.
        path: of its folder.
    """

    value: str
    recipe: Recipe
    path: Path


@dataclass(frozen=True)
class Finding:
    """What one run of a sweep was found to be worth.

    Attributes:
        value, seed: of the run.
        run: its folder's name.
        results: numbers by name; lists are left out.
        failed: what went wrong; empty if nothing did.
    """

    value: str
    seed: int
    run: str
    results: dict[str, float]
    failed: str = ""


def parse_over(text: str) -> tuple[str, list[str]]:
    """A setting and its values from `key=a,b,c`; commas within brackets, braces and quotes belong to a value.

    Raises:
        UsageError: another form, or a value that is given twice.
    """
    key, equals, rest = text.partition("=")
    values = [value.strip() for value in _split(rest)]
    if not equals or not SETTING.fullmatch(key.strip()) or not all(values):
        raise UsageError(f"--over {text} was given; write a setting and its values: objective.beta=0.5,1,2.")
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise UsageError(f"--over {text} has the value {twice[0]} twice; give each once.")
    return key.strip(), values


def plan_sweep(
    source: str, key: str, values: Sequence[str], seeds: int, out: Path, overrides: Sequence[str] = ()
) -> list[Trial]:
    """All runs of a sweep, in order; every recipe is read before anything is trained.

    Args:
        source: a recipe's name or file.
        key, values: the setting and its values, TOML literals.
        seeds: how many for each value, from the recipe's own on.
        out: the folder of the runs.
        overrides: further settings, the same for all.

    Raises:
        RecipeError: a setting or value that the recipe cannot have.
        UsageError: seeds of seeds, or values that are the same but for how they are written.
    """
    if key == "seed" and seeds > 1:
        raise UsageError("the setting swept over is the seed itself: leave --seeds out.")
    trials = []
    for value in values:
        first = read_recipe(source, [*overrides, f"{key}={value}"])
        for seed in range(first.seed, first.seed + seeds):
            recipe = (
                first if seed == first.seed else read_recipe(source, [*overrides, f"{key}={value}", f"seed={seed}"])
            )
            trials.append(Trial(value, recipe, out / f"{_slug(value)}-{seed}"))
    places = [trial.path for trial in trials]
    if len(set(places)) < len(places):
        raise UsageError(f"the values {', '.join(values)} would share folders; write them in another way.")
    return trials


def check_trials(trials: Sequence[Trial], data_dir: Path | None = None) -> None:
    """Build what each value would train, so that a wrong one is found before an hour is spent on the others.

    Raises:
        RecipeError, ShapeError, DataError: as for training.
    """
    for trial in {trial.value: trial for trial in reversed(trials)}.values():
        make_loop(trial.recipe, load_data(trial.recipe.data, data_dir))


def run_trial(
    trial: Trial,
    data_dir: Path | None = None,
    device: str = "cpu",
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Finding | None:
    """Train and judge one run, or take what is there; None where it was stopped.

    A run that could not go on, or whose posterior collapsed, is a finding too: it says what failed.

    Raises:
        RunError: the folder holds a run of another recipe.
    """
    run = Run(trial.path)
    if run.finished and not trained_alike(run.recipe(), trial.recipe):
        raise RunError(
            f"{run.path} was trained with another recipe; sweep into another folder, or remove it to train it anew."
        )
    if not run.finished:
        try:
            train(trial.recipe, run.path, resume=True, data_dir=data_dir, device=device, watch=watch, stop=stop)
        except TrainingFailedError as error:
            return Finding(trial.value, trial.recipe.seed, run.path.name, {}, str(error))
    if not run.finished:
        return None
    settings = trial.recipe.evaluation
    judged = judged_as(run, settings) or judge.evaluate(run, settings, data_dir=data_dir, device=device).json()
    results = _scalars(judged["results"])
    collapsed = [name for name in results if name.startswith("active_units") and results[name] == 0]
    failed = f"posterior collapse: {collapsed[0]} is 0" if collapsed else ""
    return Finding(trial.value, trial.recipe.seed, run.path.name, results, failed)


def rank_seeds(
    trials: Sequence[Trial], findings: Sequence[Finding], data_dir: Path | None = None, device: str = "cpu"
) -> list[Finding]:
    """The findings, with `udr` where several seeds of a value have continuous codes with rates per unit.

    Args:
        trials: of the sweep.
        findings: of their first so many.
        data_dir: where data lie.
        device: a torch device.
    """
    ranked = list(findings)
    for value in dict.fromkeys(finding.value for finding in findings):
        seeds = [place for place, finding in enumerate(findings) if finding.value == value and finding.results]
        if len(seeds) < 2:
            continue
        try:
            seen = [_units(trials[place], data_dir, device) for place in seeds]
        except NotSupportedError:
            continue
        scores = unsupervised_disentanglement_ranking(*zip(*seen, strict=True))
        for place, score in zip(seeds, scores, strict=True):
            ranked[place] = replace(ranked[place], results={**ranked[place].results, "udr": score})
    return ranked


def _units(trial: Trial, data_dir: Path | None, device: str) -> tuple[Any, Any]:
    """Codes of held-out rows, (N, units), and the rate of each unit, nats."""
    run = Run(trial.path)
    data = load_data(trial.recipe.data, data_dir, run.quarantine_path)
    settings = trial.recipe.evaluation.model_copy(update={"examples": RANKED_ROWS})
    case = Case(run.model().to(find_device(device)), data, settings)
    if not all(group.rates and group.draws.is_floating_point() for group in case.groups.values()):
        raise NotSupportedError("its codes have no rate per unit.")
    rates = [torch.cat(group.rates).mean(dim=0).flatten() for group in case.groups.values()]
    return points(case.groups).numpy(), torch.cat(rates).double().cpu().numpy()


def write_sweep(path: Path, source: str, key: str, findings: Sequence[Finding]) -> None:
    """Write `sweep.json`: what was swept over, and a record per finished run."""
    record = {"schema": SCHEMA, "recipe": source, "key": key, "runs": [finding.__dict__ for finding in findings]}
    write_json(path, record)


def trained_alike(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes train the same: what they are called, and how they are judged, is no part of that."""
    beside = {"name", "description", "evaluation"}
    return one.model_dump(exclude=beside) == other.model_dump(exclude=beside)


def judged_as(run: Run, settings: Evaluation) -> dict[str, Any] | None:
    """The judgement of a finished run, if it is there, whole, and made as the recipe says."""
    try:
        found = read_json(run.evaluation_path)
    except DataError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict):
        return None
    protocol = found.get("protocol")
    return found if isinstance(protocol, dict) and protocol.get("settings") == settings.model_dump() else None


def _scalars(results: dict[str, Any]) -> dict[str, float]:
    return {name: result["value"] for name, result in results.items() if isinstance(result["value"], int | float)}


def _slug(value: str) -> str:
    """A value as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "_", value).strip("_") or "value"


def _split(text: str) -> list[str]:
    """Split at commas that are in no bracket, brace or quote."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += (letter in "[{") - (letter in "]}") if not quote else 0
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts

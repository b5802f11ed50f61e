"""What a trained run is worth: `evaluation.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowerbound.errors import NotABoundError, NotSupportedError
from lowerbound.files import write_json
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.device import find_device
from lowerbound.lab.evaluation.aggregate import aggregate_results
from lowerbound.lab.evaluation.annealing import sandwich, sandwich_results
from lowerbound.lab.evaluation.bounds import bound_results, bounds, convergence
from lowerbound.lab.evaluation.latents import Group, collect, latent_results
from lowerbound.lab.evaluation.modes import mode_results, true_nll
from lowerbound.lab.evaluation.result import Result
from lowerbound.lab.generation import use
from lowerbound.lab.run import Run, environment
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import BatchNoise, Noise
from lowerbound.recipe import Evaluation

Prepared = tuple[Tensor, Context | None, Noise]
SIMULATED = 100  # rows that a model makes to be judged on


@dataclass(frozen=True)
class Judgement:
    """The content of `evaluation.json`.

    Attributes:
        protocol: on what the numbers stand.
        results: by name, with the unit in it.
        curves: series behind a number.
        refused: numbers that this model cannot have, and why.
    """

    protocol: dict[str, Any]
    results: dict[str, Result]
    curves: dict[str, list[dict[str, float | None]]]
    refused: dict[str, str]

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def evaluate(
    run: Run | Path | str,
    settings: Evaluation | None = None,
    *,
    data: Dataset | None = None,
    data_dir: Path | None = None,
    model: Family | None = None,
    device: str = "cpu",
    watch: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge a finished run and write its `evaluation.json`.

    Args:
        run: the run or its folder.
        settings: how to judge; by default what the recipe says.
        data: rows of one's own instead of the recipe's data.
        data_dir: where the recipe's data lie.
        model: a model of one's own that the recipe cannot build.
        device: a torch device.
        watch: told how many batches of how many are done.

    Raises:
        RunError, TamperedError, DataError: as for loading a run and data.
    """
    run = run if isinstance(run, Run) else Run(run)
    recipe = run.recipe()
    settings = settings or recipe.evaluation
    trained = run.model(model).to(find_device(device))
    dataset = data or load_data(recipe.data, data_dir, run.quarantine_path)
    protocol = {
        "data": recipe.data,
        "split": settings.split,
        "examples": _count(dataset, settings),
        "preparation": _preparation(trained),
        "samples": settings.samples,
        "batch_size": settings.batch_size,
        "annealing": settings.annealing,
        "seed": settings.seed,
        "weights": "average" if recipe.training.ema else "last",
        "precision": "fp32",
        **environment(),
    }
    judgement = judge(trained, dataset, settings, protocol, watch)
    write_json(run.evaluation_path, judgement.json())
    return judgement


def judge(
    model: Family,
    dataset: Dataset,
    settings: Evaluation,
    protocol: dict[str, Any],
    watch: Callable[[int, int], None] | None = None,
) -> Judgement:
    """The judgement of a model on data: the suite, one line a metric."""
    results: dict[str, Result] = {}
    curves: dict[str, list[dict[str, float | None]]] = {}
    refused: dict[str, str] = {}
    preparation = model.preparation
    dimensions = None if model.data.levels is None else model.data.size
    try:
        found = bounds(model, _batches(model, dataset, settings, watch), settings.samples)
        results |= bound_results(found, preparation.log_jacobian, dimensions)
        curves["importance_bound_nats"] = convergence(found)
        protocol = {**protocol, "rate": found.rate_kind}
        if found.refused:
            refused["nll_nats"] = found.refused
    except NotABoundError as error:
        refused["elbo_nats"] = str(error)
    if settings.annealing is not None:
        _add_sandwich(results, refused, model, dataset, settings)
    groups = collect(model, _batches(model, dataset, settings))
    results |= latent_results(groups)
    for name, group in groups.items():
        _add_aggregate(results, refused, group, f"_{name}" if len(groups) > 1 else "", settings.seed)
    if dataset.truth is not None:
        observations: dict[str, use.Observe] = {"generated": "point", "observed": "sample"}
        for prefix, observe in observations.items():
            points = use.sample(model, settings.generated, settings.seed, observe=observe).cpu()
            results |= mode_results(points, dataset.truth.centres, prefix)
        real = dataset.split(settings.split).take(torch.arange(_count(dataset, settings))).raw
        results |= mode_results(real, dataset.truth.centres, "real")
        results["true_nll_nats"] = true_nll(real, dataset.truth.centres, dataset.truth.sigma)
    return Judgement(protocol, results, curves, refused)


def _add_sandwich(
    results: dict[str, Result], refused: dict[str, str], model: Family, dataset: Dataset, settings: Evaluation
) -> None:
    """Add log p(x) of rows that the model made, from both sides, or why it cannot be had."""
    few = settings.model_copy(update={"examples": min(SIMULATED, _count(dataset, settings)), "batch_size": SIMULATED})
    x, context, noise = next(iter(_batches(model, dataset, few)))
    try:
        found = sandwich(model, x, context, noise.child("annealing"), settings.annealing or 0)
    except NotSupportedError as error:
        refused["simulated_annealed_lower_nats"] = str(error)
        return
    usual = bounds(model, [(found.x, context, noise.child("simulated"))], settings.samples)
    results.update(sandwich_results(found, usual.elbo, usual.importance[settings.samples]))


def _add_aggregate(results: dict[str, Result], refused: dict[str, str], group: Group, suffix: str, seed: int) -> None:
    """Add what the aggregate posterior says, or why it cannot be had."""
    if not group.draws.is_floating_point():
        return  # discrete codes have their own results
    try:
        results.update(aggregate_results(group, suffix, seed))
    except NotSupportedError as error:
        refused[f"mutual_information{suffix}_nats"] = str(error)


def _count(dataset: Dataset, settings: Evaluation) -> int:
    rows = len(dataset.split(settings.split))
    return rows if settings.examples is None else min(settings.examples, rows)


def _preparation(model: Family) -> str:
    preparation = model.preparation
    name = type(preparation).__name__.lower()
    return f"{name}, drawn by seed" if preparation.bound_needs_noise else name


def _batches(
    model: Family, dataset: Dataset, settings: Evaluation, watch: Callable[[int, int], None] | None = None
) -> Iterator[Prepared]:
    """Prepared rows with their noise; the noise of a batch is a function of (seed, number of the batch)."""
    device = use.device_of(model)
    rows, count = dataset.split(settings.split), _count(dataset, settings)
    starts = range(0, count, settings.batch_size)
    for number, start in enumerate(starts):
        batch = rows.take(torch.arange(start, min(start + settings.batch_size, count))).to(device)
        model.check(batch.raw)
        noise = BatchNoise(settings.seed, number, len(batch.raw), device=device)
        yield model.preparation.prepare(batch.raw, noise.child("prepare")), batch.context, noise
        if watch is not None:
            watch(number + 1, len(starts))

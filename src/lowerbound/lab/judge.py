"""What a trained run is worth: `evaluation.json`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowerbound.errors import NotABoundError, NotSupportedError, UsageError
from lowerbound.files import sha256, write_json
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset, Mixture
from lowerbound.lab.device import find_device
from lowerbound.lab.evaluation.aggregate import aggregate_results, conditional_results
from lowerbound.lab.evaluation.annealing import sandwich, sandwich_results
from lowerbound.lab.evaluation.asked import asked_results
from lowerbound.lab.evaluation.bounds import bound_results, bounds, convergence
from lowerbound.lab.evaluation.case import KNOWN_ROWS, Case
from lowerbound.lab.evaluation.disentanglement import disentanglement_results
from lowerbound.lab.evaluation.distances import FEWEST
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.evaluation.latents import Group, latent_results, points
from lowerbound.lab.evaluation.modes import mode_results, true_log_density
from lowerbound.lab.evaluation.perceptual import Perceptual, perceptual_results
from lowerbound.lab.evaluation.probes import linear_probe, path_results, small_prior_gain
from lowerbound.lab.evaluation.quality import quality_results, sample_holes
from lowerbound.lab.evaluation.reconstruction import INTERVAL_ROWS, interval_results, reconstruction_results
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.lab.evaluation.solids import cloud_results
from lowerbound.lab.generation import use
from lowerbound.lab.run import Run, environment
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.recipe import Evaluation

SIMULATED = 100  # rows that a model makes to be judged on
MADE_VALUES = 1e8  # values of made rows, at most


# Results by name; and, of what was tried, what cannot be had and why.
Found = dict[str, Result] | tuple[dict[str, Result], dict[str, str]]


@dataclass(frozen=True)
class Judgement:
    """The content of `evaluation.json`.

    Attributes:
        protocol: on what the numbers stand.
        results: by name, with the unit in it.
        curves: series behind a number.
        refused: numbers that this model cannot have, and why.
        latents: the results about each group of latents once more, by group.
    """

    protocol: dict[str, Any]
    results: dict[str, Result]
    curves: dict[str, list[dict[str, float | None]]]
    refused: dict[str, str]
    latents: dict[str, dict[str, Result]] = field(default_factory=dict)

    def attempt(self, name: str, make: Callable[[], Found]) -> None:
        """Take what is found, or why `name` and what belongs to it cannot be had."""
        try:
            found = make()
        except NotSupportedError as error:
            self.refused[name] = str(error)
            return
        results, refused = found if isinstance(found, tuple) else (found, {})
        self.results.update(results)
        self.refused.update(refused)

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
    write: bool = True,
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
        write: whether to write.

    Raises:
        RunError, TamperedError, DataError: as for loading a run and data.
    """
    run = run if isinstance(run, Run) else Run(run)
    recipe = run.recipe()
    settings = settings or recipe.evaluation
    trained = run.model(model).to(find_device(device))
    dataset = data or load_data(recipe.data, data_dir, run.quarantine_path)
    protocol = {
        "data": recipe.data if data is None else {"kind": data.name, "source": str(data.source)},
        "split": settings.split,
        "examples": Case(trained, dataset, settings).count,
        "preparation": _preparation(trained),
        "samples": settings.samples,
        "batch_size": settings.batch_size,
        "annealing": settings.annealing,
        "seed": settings.seed,
        "settings": settings.model_dump(),
        "weights": "average" if recipe.training.ema else "last",
        "precision": "fp32",
        **environment(),
    }
    judgement = judge(trained, dataset, settings, protocol, watch)
    if write:
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
    case = Case(model, dataset, settings)
    _check_files(settings, model)
    judgement = Judgement(dict(protocol), {}, {}, {})
    best = _add_bounds(judgement, case, watch)
    judgement.attempt("simulated_annealed_lower_nats", lambda: _sandwich(case))
    for name, group in case.groups.items():
        _add_group(judgement, case, name, group)
    judgement.attempt("squared_error", lambda: _reconstructions(case))
    if settings.perceptual is not None:
        weights = Path(settings.perceptual)
        judgement.attempt("lpips", lambda: perceptual_results(weights, *case.shown, model.data))
        judgement.protocol["perceptual"] = sha256(weights)
    first = case.first(INTERVAL_ROWS)
    judgement.attempt("interval_90_coverage", lambda: interval_results(model, first.raw, first.context, settings.seed))
    _add_quality(judgement, case)
    _add_labels(judgement, case)
    judgement.attempt("path_length", lambda: path_results(model, first.raw, first.context, settings.seed))
    if dataset.truth is not None:
        judgement.results.update(_modes(case, dataset.truth, best))
    return judgement


def _reconstructions(case: Case) -> Found:
    """How near reconstructions are; rows in no order have no values to compare one by one."""
    geometry = case.model.data.geometry
    if geometry == "cloud":
        return cloud_results(*case.shown)
    if geometry == "queries":
        raise NotSupportedError(
            "a reconstruction answers other queries than were asked; compare the solids by `shape`."
        )
    return reconstruction_results(*case.shown, case.model.data)


def _check_files(settings: Evaluation, model: Family) -> None:
    """Find what is wrong with files of features before an hour is spent on bounds."""
    names = []
    for wanted in settings.features:
        with contextlib.suppress(NotSupportedError):
            names.append(make_extractor(wanted, model.data, model).name)
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two extractors of features are called {twice[0]}; rename one of them.")
    if settings.perceptual is not None:
        Perceptual(Path(settings.perceptual))


def _add_bounds(judgement: Judgement, case: Case, watch: Callable[[int, int], None] | None) -> Tensor | None:
    """Add what is known of the likelihood; returns the best bound on that of each row, (N,) nats, if there is one."""
    model = case.model
    try:
        found = bounds(model, case.batches(watch=watch), case.settings.samples)
    except NotABoundError as error:
        judgement.refused["elbo_nats"] = str(error)
        if case.groups and all(group.rates for group in case.groups.values()):
            rates = [torch.cat(group.rates).double().sum(dim=1) for group in case.groups.values()]
            judgement.results["rate_nats"] = mean_result(torch.stack(rates).sum(dim=0), "estimate")
        return None
    dimensions, way = None if model.data.levels is None else model.data.size, model.preparation
    judgement.results.update(bound_results(found, way.log_jacobian, dimensions, way.bound_needs_noise))
    judgement.curves["importance_bound_nats"] = convergence(found)
    judgement.protocol["rate"] = found.rate_kind
    if found.refused:
        judgement.refused["nll_nats"] = found.refused
    return found.best


def _sandwich(case: Case) -> dict[str, Result]:
    """log p(x) of rows that the model made, from both sides."""
    settings = case.settings
    if settings.annealing is None:
        return {}
    few = settings.model_copy(update={"batch_size": SIMULATED})
    x, context, noise = next(Case(case.model, case.dataset, few).batches(SIMULATED))
    found = sandwich(case.model, x, context, noise.child("annealing"), settings.annealing)
    usual = bounds(case.model, [(found.x, context, noise.child("simulated"))], settings.samples)
    return sandwich_results(found, usual.elbo, usual.importance[settings.samples])


def _add_group(judgement: Judgement, case: Case, name: str, group: Group) -> None:
    """Add what is found of one group of latents, with its name where there are several, and its own block."""
    own = Judgement({}, latent_results({name: group}), {}, {})
    if group.draws.is_floating_point():
        seed = case.settings.seed
        own.attempt("mutual_information_nats", lambda: aggregate_results(group, seed=seed))
        if group.contexts:
            own.attempt("conditional_mutual_information_nats", lambda: conditional_results(group))
        own.attempt(
            "small_prior_gain_nats",
            lambda: {"small_prior_gain_nats": _small_prior_gain(case, name, group)},
        )
    judgement.latents[name] = own.results
    several = len(case.groups) > 1
    judgement.results.update({_of(name, key) if several else key: found for key, found in own.results.items()})
    judgement.refused.update({_of(name, key) if several else key: reason for key, reason in own.refused.items()})


def _small_prior_gain(case: Case, name: str, group: Group) -> Result:
    case.needs_other_rows()
    return small_prior_gain(case.known_groups[name], group, case.settings.seed)


def _of(group: str, name: str) -> str:
    """A result's name with the group in it, before the unit."""
    return f"{name.removesuffix('_nats')}_{group}_nats" if name.endswith("_nats") else f"{name}_{group}"


def _add_quality(judgement: Judgement, case: Case) -> None:
    """Made rows against judged ones, equally many, by the features of each extractor."""
    model, settings = case.model, case.settings
    if model.data.vocabulary or model.data.columns:
        judgement.refused["two_sample_accuracy"] = (
            "samples are compared as images or real numbers, not as text or columns."
        )
        return
    rows = case.first(min(settings.generated, max(FEWEST, int(MADE_VALUES / model.data.size))))
    observe: use.Observe = "point" if model.data.geometry == "grid" else "sample"
    try:
        made = use.sample(model, len(rows.raw), settings.seed, rows.context, observe)
    except NotSupportedError as error:
        judgement.refused["two_sample_accuracy"] = str(error)
        return
    judgement.protocol["generated"] = {"rows": len(made), "observe": observe}
    judgement.attempt("sample_hole_share", lambda: {"sample_hole_share": _sample_holes(case, made)})
    compare_sets(judgement, settings, rows.raw, made, model.data, model)
    labels, read = case.labels(len(made)), case.dataset.read
    if read is not None and labels is not None and rows.context is not None:
        found = read(made)
        judgement.results.update(asked_results(found, labels[:, : found.shape[1]]))


def _sample_holes(case: Case, made: Tensor) -> Result:
    case.needs_other_rows()
    if case.model.data.geometry != "grid":
        raise NotSupportedError("the points of a row have no order, so rows have no distance from one another.")
    known = case.first(len(made), "train").raw
    return sample_holes(*(rows.flatten(1).float() for rows in (known, case.shown[1], made)))


def compare_sets(
    judgement: Judgement, settings: Evaluation, real: Tensor, made: Tensor, spec: DataSpec, model: Family | None = None
) -> None:
    """Add the distances of made rows from equally many real ones, by each extractor that `settings` names."""
    extractors = judgement.protocol.setdefault("extractors", {})

    def compared(wanted: str) -> Found:
        extractor = make_extractor(wanted, spec, model)
        extractors[extractor.name] = extractor.hash
        return quality_results(extractor(real), extractor(made), extractor.name, settings.seed)

    for wanted in settings.features:
        judgement.attempt(f"two_sample_accuracy_{Path(wanted).stem}", partial(compared, wanted))


def _add_labels(judgement: Judgement, case: Case) -> None:
    """What codes say of labels: of factors, how they are divided among the units; of classes, a linear probe."""
    if case.model.infers_context:
        _add_inferred(judgement, case)
    known, asked = case.labels(KNOWN_ROWS, "train"), case.labels(KNOWN_ROWS)
    if known is None or asked is None:
        return
    if not case.groups:
        judgement.refused["linear_probe_accuracy"] = "the model has no codes of rows."
        return
    if not all(group.draws.is_floating_point() for group in case.groups.values()):
        judgement.refused["linear_probe_accuracy"] = "the codes are discrete; probes are of real numbers."
        return
    means, seed = points(case.groups)[: len(asked)], case.settings.seed
    if asked.ndim == 2:
        judgement.attempt("mig", lambda: disentanglement_results(means.numpy(), asked.numpy(), seed))
        return
    codes, raw = points(case.known_groups), case.first(KNOWN_ROWS, "train").raw
    pairs = {"linear_probe_accuracy": (codes, means)}
    if not raw.isnan().any() and case.model.data.geometry == "grid":
        pairs["linear_probe_raw_accuracy"] = raw.flatten(1), case.first(KNOWN_ROWS).raw.flatten(1)
    for name, (learnt, judged) in pairs.items():
        judgement.attempt(name, lambda: _probe(case, name, learnt, known, judged, asked))  # noqa: B023


def _add_inferred(judgement: Judgement, case: Case) -> None:
    """How often the label that a model infers by itself is wrong, of all judged rows."""
    truth = case.labels(case.count)
    if truth is not None:
        guess = use.encode(case.model, case.first(case.count).raw)["y"]
        judgement.results["label_error"] = mean_result((guess != truth).double(), "estimate")


def _probe(case: Case, name: str, learnt: Tensor, known: Tensor, judged: Tensor, asked: Tensor) -> dict[str, Result]:
    case.needs_other_rows()
    return {name: linear_probe(learnt, known, judged, asked)}


def _modes(case: Case, truth: Mixture, log_q: Tensor | None) -> dict[str, Result]:
    """How made and real rows lie around the known centres, and how far log q of the judged rows is below the truth."""
    settings = case.settings
    results: dict[str, Result] = {}
    observations: dict[str, use.Observe] = {"generated": "point", "observed": "sample"}
    for prefix, observe in observations.items():
        made = use.sample(case.model, settings.generated, settings.seed, observe=observe).cpu()
        results |= mode_results(made, truth.centres, truth.sigma, prefix)
    real = case.first(case.count).raw
    results |= mode_results(real, truth.centres, truth.sigma, "real")
    log_p = true_log_density(real, truth.centres, truth.sigma)
    results["true_nll_nats"] = mean_result(log_p, "exact", -1.0)
    if log_q is not None:
        above = log_p - (log_q + case.model.preparation.log_jacobian)
        results["nll_above_true_nats"] = mean_result(above, "upper_bound")
    return results


def _preparation(model: Family) -> str:
    preparation = model.preparation
    name = type(preparation).__name__.lower()
    return f"{name}, drawn by seed" if preparation.bound_needs_noise else name

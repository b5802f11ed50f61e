"""The reference of a model: what ordinary rows look like to it, from rows that it was not trained on.

Limits and p-values are conformal (Vovk et al. 2005): they hold for new rows that are drawn as the reference's were,
whatever the model, on average over references. They say nothing of rows whose distribution has drifted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lowerbound.errors import DataError, NotSupportedError, ShapeError, TamperedError, UsageError
from lowerbound.files import read_json, write_json
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.data.rows import Rows
from lowerbound.lab.device import find_device
from lowerbound.lab.evaluation.anomaly import left_out, likelihood_scores, mahalanobis, precision_of
from lowerbound.lab.evaluation.conformal import conformal_p_values, conformal_threshold
from lowerbound.lab.evaluation.latents import moments_of
from lowerbound.lab.facts import CHUNK_ROWS, Facts, facts_of
from lowerbound.lab.generation.use import device_of
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import derive_seed, generator

Side = Literal["upper", "lower", "both"]
ROWS = 10_000  # of a reference, at most
VALUES = 2e7  # of codes in a reference, at most
WIDEST = 2048  # units, up to which a reference knows how each varies with each
ELBO_SAMPLES = 4  # draws of the posterior, the same for every row
LEVELS = 101  # of the quantiles, from 0 to 1


@dataclass(frozen=True)
class Limit:
    """What a score of an ordinary row stays within.

    Attributes:
        name: of the score.
        level: the share of ordinary rows beyond it, at most.
        low, high: its ends; None where a side is open.
        rows: of the reference that it is from.
    """

    name: str
    level: float
    low: float | None
    high: float | None
    rows: int

    def beyond(self, values: Tensor) -> Tensor:
        """Which scores lie beyond it, (N,)."""
        outside = torch.zeros_like(values, dtype=torch.bool)
        if self.low is not None:
            outside |= values < self.low
        if self.high is not None:
            outside |= values > self.high
        return outside

    @property
    def validity(self) -> str:
        """For what it holds, as a sentence."""
        return (
            f"Of rows drawn as the {self.rows:,} of the reference were, at most {self.level:.3%} lie beyond, on "
            "average over references; of rows that have drifted nothing is said."
        )


@dataclass(frozen=True)
class Reference:
    """What a model knows of N ordinary rows with codes of D continuous units and P discrete positions.

    Attributes:
        points: codes, all continuous groups side by side, (N, D), single precision.
        indices: codes of discrete groups, (N, P), integers.
        quantiles: of each unit at 0, 0.01, ..., 1, (101, D).
        mean: of the points, (D,): the mean of the aggregate posterior.
        covariance: of the points, (D, D); (D,), the variances alone, where there are too few rows or too many units.
        precision: its inverse, of the same shape.
        variance_of_means: Var(mu) of each unit, (D,).
        mean_of_variances: E[sigma^2] of each unit, (D,), NaN where a family does not show its posteriors; the aggregate
            posterior's variance is the sum of both.
        scores: of the rows by name, each sorted, (N,). "error" and "rate" are facts; "norm" is the Mahalanobis norm
            of a row's code, by the moments of all other rows; "elbo" is minus the ELBO, from draws that every row
            shares, where it is exact; "pixel_mean_C" and "pixel_variance_C" are of the values of channel C of the row
            itself, on [0, 1] where raw values have levels.
        levels: of a raw value, None for real numbers.
        groups: shape of each group of latents; those in `discrete` are integers.
        samples: draws behind "elbo".
        facts: of the rows in one order, by name: "error" (N,), "rates" (N, D), "variances" of the posteriors (N, D) and
            "inputs", the statistics of the rows themselves, (N, C); what a model does not give is absent, of codes of
            more than 2,048 units as well, and all of them in versions registered before they were kept.
    """

    points: Tensor
    indices: Tensor
    quantiles: Tensor
    mean: Tensor
    covariance: Tensor
    precision: Tensor
    variance_of_means: Tensor
    mean_of_variances: Tensor
    scores: dict[str, Tensor]
    levels: int | None
    groups: dict[str, tuple[int, ...]]
    discrete: tuple[str, ...]
    samples: int = ELBO_SAMPLES
    facts: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(model: Family, raw: Tensor, context: Context | None = None) -> Reference:
        """The reference of ordinary rows (N, *event), which the model was not trained on.

        Raises:
            NotSupportedError: the model has no codes.
            DataError: there are fewer than two rows, or a score is no finite number.
        """
        if len(raw) < 2:
            raise DataError(f"{len(raw)} rows make no reference; give at least two that the model was not trained on.")
        facts = Facts(model)
        found = facts_of(facts, raw, context)
        discrete = tuple(name for name in facts.groups if not found[name].is_floating_point())
        groups = {name: tuple(found[name].shape[1:]) for name in facts.groups}
        points = _side_by_side(found, [name for name in groups if name not in discrete], len(raw)).double()
        indices = _side_by_side(found, discrete, len(raw)).int()
        full = 0 < points.shape[1] <= WIDEST and len(points) > 2 * (points.shape[1] + 1)
        variances = points.var(dim=0) if points.numel() else points.new_zeros(0)
        covariance = torch.cov(points.T).reshape(2 * points.shape[1:]) if full else variances
        precision = precision_of(points) if full else _inverse(variances)
        mean = points.mean(dim=0)
        scores: dict[str, Tensor] = {name: found[name] for name in ("error", "rate") if name in found}
        if points.shape[1]:
            apart = _squared_distances(points, mean, precision)
            scores["norm"] = (left_out(apart) if apart.ndim == 1 else left_out(apart).sum(dim=1)).clamp_min(0).sqrt()
        statistics = input_statistics(raw, model.data)
        scores |= _elbo(model, raw, context) | statistics
        return Reference(
            points=points.float(),
            indices=indices,
            quantiles=_quantiles(points),
            mean=mean,
            covariance=covariance,
            precision=precision,
            variance_of_means=variances,
            mean_of_variances=_posterior_variances(model, raw, context, points.shape[1]),
            scores={name: _sorted(values, name) for name, values in scores.items()},
            levels=model.data.levels,
            groups=groups,
            discrete=discrete,
            facts=_by_row(found, statistics),
        )

    @property
    def rows(self) -> int:
        """N."""
        return len(self.points)

    @property
    def aggregate_variance(self) -> Tensor:
        """Of the aggregate posterior, Var(mu) + E[sigma^2] of each unit, (D,)."""
        return self.variance_of_means + self.mean_of_variances

    def flatten(self, codes: Mapping[str, Tensor]) -> Tensor:
        """Codes by group as points, (B, D), double precision."""
        names = [name for name in self.groups if name not in self.discrete]
        return _side_by_side(codes, names, len(codes[next(iter(self.groups))])).double()

    def norm(self, points: Tensor) -> Tensor:
        """The Mahalanobis norm of points (B, D), (B,)."""
        apart = _squared_distances(points.double(), self.mean, self.precision)
        return (apart if apart.ndim == 1 else apart.sum(dim=1)).clamp_min(0).sqrt()

    def score(self, facts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores "error", "rate" and "norm" from facts, those that there are, (B,) each."""
        shared = [name for name in ("error", "rate") if name in facts and name in self.scores]
        found: dict[str, Tensor] = {name: facts[name].double() for name in shared}
        if "norm" in self.scores and all(name in facts for name in self.groups):
            found["norm"] = self.norm(self.flatten(facts))
        return found

    def limit(self, name: str, level: float, side: Side | None = None) -> Limit:
        """The limit that at most a share `level` of ordinary rows lie beyond: an order statistic of the reference.

        Args:
            name: of a score.
            level: in (0, 1).
            side: which ends it has; by default "both" for the rate and for statistics of the input, else "upper".

        Raises:
            UsageError: there is no such score, or the level is no share.
            DataError: the reference has too few rows for this level.
        """
        known, side = self._score(name), side or side_of(name)
        if not 0 < level < 1:
            raise UsageError(f"the level is {level}; it is a share of ordinary rows, between 0 and 1.")
        each = level / 2 if side == "both" else level
        needed = math.ceil(1 / each - 1e-9) - 1
        if len(known) < needed:
            raise DataError(
                f"the reference has {len(known):,} rows, and a limit of `{name}` at level {level:g} needs {needed:,}: "
                "choose a larger level, or register the model with more validation rows."
            )
        high = None if side == "lower" else conformal_threshold(known, each)
        low = None if side == "upper" else -conformal_threshold(-known, each)
        return Limit(name, level, low, high, len(known))

    def smallest_level(self, name: str, side: Side | None = None) -> float:
        """The smallest level of which `limit` can be had."""
        return (2 if (side or side_of(name)) == "both" else 1) / (len(self._score(name)) + 1)

    def p_value(self, name: str, values: Tensor, side: Side | None = None) -> Tensor:
        """Conformal p-values of scores, (B,): of ordinary rows, a share of at most alpha has one of at most alpha.

        Raises:
            UsageError: there is no such score.
            DataError: a score is not a number.
        """
        known, side = self._score(name), side or side_of(name)
        upper, lower = conformal_p_values(known, values), conformal_p_values(-known, -values)
        if side == "both":
            return (2 * torch.minimum(upper, lower)).clamp_max(1)
        return upper if side == "upper" else lower

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write `reference.safetensors` and `reference.json`; returns their paths."""
        tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
        tensors |= {f"score.{name}": values.contiguous() for name, values in self.scores.items()}
        tensors |= {f"fact.{name}": values.contiguous() for name, values in self.facts.items()}
        groups = {name: list(shape) for name, shape in self.groups.items()}
        numbers: dict[str, Any] = {"rows": self.rows, "units": self.points.shape[1], "positions": self.indices.shape[1]}
        numbers |= {"scores": list(self.scores), "levels": self.levels, "groups": groups}
        numbers |= {"discrete": list(self.discrete), "samples": self.samples}
        paths = folder / "reference.safetensors", folder / "reference.json"
        write_tensors(paths[0], tensors)
        write_json(paths[1], numbers)
        return paths

    @staticmethod
    def load(folder: Path) -> Reference:
        """The reference of a folder; nothing that is read is executed.

        Raises:
            DataError, TamperedError: a file is missing, or not what was written.
        """
        path = folder / "reference.json"
        numbers, tensors = read_json(path), read_tensors(folder / "reference.safetensors")
        try:
            return Reference(
                **{name: tensors[name] for name in TENSORS},
                scores={name: tensors[f"score.{name}"] for name in numbers["scores"]},
                levels=numbers["levels"],
                groups={name: tuple(shape) for name, shape in numbers["groups"].items()},
                discrete=tuple(numbers["discrete"]),
                samples=numbers["samples"],
                facts={name.removeprefix("fact."): tensors[name] for name in tensors if name.startswith("fact.")},
            )
        except (KeyError, TypeError, AttributeError):
            raise TamperedError(f"{path} is not the reference of a model; register the run again.") from None

    def _score(self, name: str) -> Tensor:
        if name not in self.scores:
            raise UsageError(f"the reference has no score `{name}`; it has {', '.join(sorted(self.scores))}.")
        return self.scores[name]


TENSORS = (
    *("points", "indices", "quantiles", "mean", "covariance", "precision"),
    *("variance_of_means", "mean_of_variances"),
)


def make_reference(model: Family, rows: Rows, device: str = "cpu") -> Reference:
    """The reference of a model from rows that it was not trained on, at most 10,000 of them.

    Raises:
        NotSupportedError: the model has no codes.
        DataError: there are too few rows.
    """
    units = sum(math.prod(shape) for shape in model.latents.values())
    most = min(len(rows), ROWS, max(2, int(VALUES // max(1, units))))
    chosen = torch.arange(len(rows))
    if most < len(rows):
        chosen = torch.randperm(len(rows), generator=generator(derive_seed(0, "reference")))[:most].sort().values
    batch = rows.take(chosen)
    return Reference.of(model.to(find_device(device)), batch.raw, batch.context)


def side_of(name: str) -> Side:
    """Which ends the limit of a score has by default."""
    return "both" if name == "rate" or name.startswith("pixel_") else "upper"


def input_statistics(raw: Tensor, data: DataSpec) -> dict[str, Tensor]:
    """Mean and variance of the values of each channel of raw rows (B, *event), (B,) each, by name.

    None of tables, points and text. Values are on [0, 1] where they have levels.
    """
    if len(data.event) < 2:
        return {}
    values = raw.double() / (1 if data.levels is None else data.levels - 1)
    channels = values.flatten(2)
    mean, variance = channels.mean(dim=2), channels.var(dim=2, correction=0)
    found = {f"pixel_mean_{index}": mean[:, index] for index in range(mean.shape[1])}
    return found | {f"pixel_variance_{index}": variance[:, index] for index in range(mean.shape[1])}


def _side_by_side(codes: Mapping[str, Tensor], names: tuple[str, ...] | list[str], rows: int) -> Tensor:
    parts = [codes[name].flatten(1) if codes[name].ndim > 1 else codes[name][:, None] for name in names]
    return torch.cat(parts, dim=1).cpu() if parts else torch.zeros(rows, 0)


def _squared_distances(points: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """(B,), or of each unit, (B, D), where units are known apart."""
    return (points - mean).square() * precision if precision.ndim == 1 else mahalanobis(points, mean, precision)


def _inverse(variances: Tensor) -> Tensor:
    """One over each variance; 0 for a unit that never changes."""
    return torch.where(variances > 0, 1 / variances, 0)


def _quantiles(points: Tensor) -> Tensor:
    levels = torch.linspace(0, 1, LEVELS, dtype=points.dtype)
    if not points.shape[1]:
        return torch.zeros(LEVELS, 0)
    return torch.cat([torch.quantile(part, levels, dim=0) for part in points.split(64, dim=1)], dim=1)


def _elbo(model: Family, raw: Tensor, context: Context | None) -> dict[str, Tensor]:
    """Minus the ELBO of each row, where it is no estimate."""
    try:
        found = likelihood_scores(model, raw, context, ELBO_SAMPLES)
    except (NotSupportedError, ShapeError):  # no bound, or one from a single draw only
        return {}
    return {"elbo": found["elbo"]} if "nll" in found else {}


def _by_row(found: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The facts that are kept of each row, single precision."""
    facts = {"error": found["error"]}
    facts |= {name: found[name] for name in ("rates", "variances") if name in found and found[name].shape[1] <= WIDEST}
    if statistics:
        facts["inputs"] = torch.stack(list(statistics.values()), dim=1)
    return {name: values.float().cpu() for name, values in facts.items()}


@torch.no_grad()
def _posterior_variances(model: Family, raw: Tensor, context: Context | None, units: int) -> Tensor:
    """E[sigma^2] of each continuous unit, (D,); NaN where a family does not show its posteriors."""
    device, total = device_of(model), torch.zeros(units, dtype=torch.float64)
    for start in range(0, len(raw), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        known = None if context is None else context.select(rows).to(device)
        parts = [
            moments_of(latent.q)[1].flatten(1).double().sum(dim=0).cpu()
            for latent in model.at_point(model.preparation.prepare(raw[rows].to(device), None), known).values()
            if latent.z.is_floating_point()
        ]
        total += torch.cat(parts) if parts else math.nan
    return total / len(raw)


def _sorted(values: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"the score `{name}` of a reference row is not a finite number: see `lowerbound doctor`.")
    return values.double().cpu().sort().values

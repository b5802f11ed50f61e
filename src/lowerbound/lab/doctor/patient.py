"""What the checks look at, each measured once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.lab.evaluation.aggregate import aggregate_results
from lowerbound.lab.evaluation.bounds import bounds
from lowerbound.lab.evaluation.case import SHOWN_ROWS, Case
from lowerbound.lab.evaluation.latents import latent_results
from lowerbound.lab.evaluation.result import Result
from lowerbound.lab.generation import use
from lowerbound.model.families.family import Family
from lowerbound.recipe import Recipe

ROWS = 1000  # rows of each kind, at most
DRAWS = 16  # of the posterior, for a bound
SAMPLES = 400


@dataclass(frozen=True)
class Diagnosis:
    """A symptom that was found.

    Attributes:
        symptom: its name.
        evidence: the number, and the healthy range for these data.
        causes: likely ones, the likeliest first.
        treatment: commands and changes of the recipe, to try in this order.
        rows: what shows it, equally many rows of each kind, (N, *event); empty where a number says all.
    """

    symptom: str
    evidence: str
    causes: list[str]
    treatment: list[str]
    rows: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Patient:
    """A model with its data, its journal and its recipe, as far as there are any.

    Attributes:
        case: the model and the rows.
        journal: rows of its training; empty for a model of others.
        recipe: what it was trained by; None for a model of others.
        path: what a person calls it.
    """

    case: Case
    journal: Sequence[dict[str, Any]] = ()
    recipe: Recipe | None = None
    path: str = "RUN"

    @property
    def model(self) -> Family:
        """The model."""
        return self.case.model

    @cached_property
    def health(self) -> dict[str, Result]:
        """The results about latents, with the name of the group at the end of each."""
        results: dict[str, Result] = {}
        for name, group in self.case.groups.items():
            found = latent_results({name: group})
            with contextlib.suppress(NotSupportedError):
                found |= aggregate_results(group)
            results |= {f"{key} {name}": result for key, result in found.items()}
        return results

    def of_groups(self, name: str) -> dict[str, Any]:
        """A result of each group that has it, by group."""
        return {key.split(" ")[1]: found.value for key, found in self.health.items() if key.split(" ")[0] == name}

    @cached_property
    def real(self) -> Tensor:
        """Held-out rows of real numbers or levels, (N, *event), in double precision.

        Raises:
            NotSupportedError: text, columns of a table, or values that are missing.
        """
        spec = self.model.data
        if spec.vocabulary or spec.columns:
            raise NotSupportedError("text and columns of a table are not looked at as pictures.")
        rows = self.case.first(SHOWN_ROWS).raw.double()
        if not bool(torch.isfinite(rows).all()):
            raise NotSupportedError("values are missing.")
        return rows

    @cached_property
    def made(self) -> Tensor:
        """What the model makes of them.

        Raises:
            DataError: it is not a number.
        """
        rows = self.case.shown[1].double()
        if not bool(torch.isfinite(rows).all()):
            raise DataError(f"reconstructions of {self.path} hold NaN or an infinity: its weights are broken.")
        return rows

    @cached_property
    def known(self) -> Tensor:
        """Training rows, (M, *event), in double precision."""
        return self.case.first(ROWS, "train").raw.double()

    @cached_property
    def samples(self) -> Tensor:
        """Decoded prior samples, (S, *event), in double precision."""
        rows = self.case.first(SAMPLES)
        return use.sample(self.model, len(rows.raw), self.case.settings.seed, rows.context).double()

    @cached_property
    def draws(self) -> Tensor:
        """Draws of p(x|z) for prior samples, (S, *event), in double precision; they should lie where rows do."""
        rows = self.case.first(SAMPLES)
        return use.sample(self.model, len(rows.raw), self.case.settings.seed, rows.context, "sample").double()

    @property
    def peak(self) -> float:
        """The difference of the largest and smallest value there can be; of real numbers, that of the rows."""
        levels = self.model.data.levels
        return float(levels - 1) if levels else float(self.real.max() - self.real.min())

    @cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Real and made images, (N, C, H, W); the frames of clips one by one.

        Raises:
            NotSupportedError: other data.
        """
        if self.real.ndim == 5:
            real, made = (clips.movedim(2, 1).flatten(0, 1) for clips in (self.real, self.made))
            return real, made
        if self.real.ndim != 4:
            raise NotSupportedError("these data are no images.")
        return self.real, self.made

    @cached_property
    def explained(self) -> float:
        """Share of the variance of held-out rows, about the mean of training rows, that reconstructions explain."""
        return explained(self.real, self.made, self.known.mean(dim=0))

    @cached_property
    def explained_linearly(self) -> float:
        """The same by as many principal components as the code has units."""
        units = sum(shape.numel() for shape in map(torch.Size, self.model.latents.values()))
        mean = self.known.mean(dim=0)
        centred = (self.known - mean).flatten(1)
        basis = torch.linalg.svd(centred, full_matrices=False).Vh[: max(1, units)]
        rows = (self.real - mean).flatten(1)
        return explained(rows, rows @ basis.T @ basis, torch.zeros_like(rows[0]))

    def elbos(self, split: str | None = None) -> Tensor:
        """The ELBO of some rows of a split, by default of those that are judged, (N,), nats.

        Raises:
            NotABoundError: the model has none.
        """
        return bounds(self.model, self.case.batches(ROWS, split), DRAWS).elbo

    def worst(self, score: Tensor, count: int = 8) -> dict[str, Tensor]:
        """The rows with the largest scores, as they are and as they were made."""
        rows = score.argsort(descending=True)[:count]
        return {"data": self.real[rows], "made": self.made[rows]}

    def first(self, count: int = 8) -> dict[str, Tensor]:
        """The first rows, as they are and as they were made."""
        return {"data": self.real[:count], "made": self.made[:count]}


def explained(real: Tensor, made: Tensor, mean: Tensor) -> float:
    """1 less the squared error over the squared distance to a mean."""
    return 1 - float((real - made).square().sum() / (real - mean).square().sum().clamp(min=1e-300))

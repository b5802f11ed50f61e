"""What a model must know of its data, and what it conditions on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lowerbound.errors import NotSupportedError
from lowerbound.noise import Noise

Shape = tuple[int, ...]

# Types of settings with their ranges; a recipe's values are checked against them.
Count = Annotated[int, Field(gt=0)]
Whole = Annotated[int, Field(ge=0)]
Widths = Annotated[Sequence[Count], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


ColumnKind = Literal["real", "category", "count", "binary"]
# What the axes of a row are: places in a grid (or columns, or times); points of a cloud, in no order; points of space
# in no order, each with whether it lies inside.
Geometry = Literal["grid", "cloud", "queries"]
Contexts = Literal["labels", "texts", "numbers"]


@dataclass(frozen=True)
class Column:
    """One column of a table; a value that is missing is NaN in every kind.

    Attributes:
        name: as in the file.
        kind: "real" numbers; "category", integers 0 ... categories - 1; "count", integers from 0; "binary", 0 or 1.
        categories: how many there are, 0 unless the kind is "category".
        labels: what the integers stand for in the file ("category", "binary"); empty where they stand for themselves.
    """

    name: str
    kind: ColumnKind
    categories: int = 0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSpec:
    """The facts about a data set that shape a model; saved with it.

    Attributes:
        event: shape of one raw row, channels first: (D,), (C, H, W), (T,) for tokens.
        levels: number of integer levels of a raw value (256 for 8-bit pixels, the vocabulary's size for tokens);
            None for real numbers.
        context: size of the context vector, 0 where there is none.
        examples: rows in the training set (estimators of the aggregate posterior need it).
        columns: of a table, one for each value of a row (D,); empty for other data.
        vocabulary: what each token stands for, where tokens are text; the first is the padding. Empty for other data.
        words: what each number of a context stands for, where contexts are texts; the first is none. Else empty.
        contexts: what a context says: a label (one-hot), a text, or other numbers, as given pixels or a direction.
        geometry: "grid" where a value has its place in the row; "cloud" for points (P, D) and "queries" for points with
            an occupancy (P, D + 1), both in no order.
    """

    event: Shape
    levels: int | None = None
    context: int = 0
    examples: int = 1
    columns: tuple[Column, ...] = ()
    vocabulary: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    contexts: Contexts = "labels"
    geometry: Geometry = "grid"

    @property
    def size(self) -> int:
        """Values in one row."""
        return math.prod(self.event)

    def conditioning(self, other: DataSpec) -> DataSpec:
        """Another's facts, with the contexts of this one."""
        return replace(other, context=self.context, contexts=self.contexts, words=self.words)

    @property
    def context_features(self) -> int:
        """Width of `Context.features()`: the vector and its `present` flag; 0 without a context."""
        return self.context + 1 if self.context else 0


def _nothing(name: str) -> Any:
    raise NotSupportedError(f"{name} cannot be read here; train by `lowerbound.train`, which reads files and runs.")


@dataclass(frozen=True)
class Outside:
    """What a part may ask for that lies outside of the recipe, by its path; by default nothing can be had.

    Attributes:
        weights: the tensors of a file by name.
        model: the trained model of a run, in evaluation mode.
    """

    weights: Callable[[str], Mapping[str, Tensor]] = _nothing
    model: Callable[[str], nn.Module] = _nothing


def _as_it_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Settings:
    """What the assembly hands to an objective.

    Attributes:
        data: the facts about the data.
        latents: shape of each group of the model's latents.
        roles: those of the model that have parameters to train.
        restore: from x to the scale of raw values, with gradient.
        outside: where weights and models are read from.
    """

    data: DataSpec
    latents: dict[str, Shape] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    restore: Callable[[Tensor], Tensor] = _as_it_is
    outside: Outside = Outside()


@dataclass(frozen=True)
class Context:
    """What each row is conditioned on: a label (one-hot), a vector, an embedding, or the numbers of a text's words.

    Attributes:
        vector: (B, C).
        present: (B,), bool; where False the row is unconditional and its vector is ignored.
    """

    vector: Tensor
    present: Tensor

    @staticmethod
    def of(vector: Tensor) -> Context:
        """A context that is present in every row."""
        return Context(vector, torch.ones(vector.shape[0], dtype=torch.bool, device=vector.device))

    @staticmethod
    def labels(labels: Tensor, classes: int, present: Tensor | None = None) -> Context:
        """One-hot context from integer labels (B,); rows with `present` False are unlabelled."""
        vector = torch.nn.functional.one_hot(labels.clamp(0, classes - 1).long(), classes).float()
        return Context(vector, torch.ones_like(labels, dtype=torch.bool) if present is None else present)

    def features(self) -> Tensor:
        """(B, C + 1): the vector, zeros where absent, and the flag, so that absence differs from a zero vector."""
        flag = self.present.to(self.vector.dtype)[:, None]
        return torch.cat([self.vector * flag, flag], dim=1)

    def dropped(self, rate: float, noise: Noise) -> Context:
        """The context with a share of its rows made absent, so that a model learns to do without it as well."""
        kept = noise.uniform()[0] >= rate
        return Context(self.vector, self.present & kept)

    def select(self, rows: Tensor | slice) -> Context:
        """The context of some rows."""
        return Context(self.vector[rows], self.present[rows])

    def to(self, device: torch.device | str) -> Context:
        """The context on `device`."""
        return Context(self.vector.to(device), self.present.to(device))

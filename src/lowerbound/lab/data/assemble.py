"""From all rows of a source to a data set in three parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowerbound.errors import DataError, RecipeError
from lowerbound.lab.data.findings import Finding, divided
from lowerbound.lab.data.labelled import ContextKind
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.data.splits import Split, Values
from lowerbound.model.spec import Column, Context, DataSpec


def assemble(
    name: str,
    raw: Tensor,
    split: Split,
    *,
    levels: int | None = None,
    labels: Tensor | None = None,
    context: ContextKind = "none",
    vectors: Tensor | None = None,
    names: Callable[[int], str] | None = None,
    columns: tuple[Column, ...] = (),
    vocabulary: tuple[str, ...] = (),
    source: Path | None = None,
    findings: Sequence[Finding] = (),
) -> Dataset:
    """A data set from all rows and the numbers of those that go to each part.

    Args:
        name: for records.
        raw: (N, *event).
        split: which row goes where.
        levels, columns, vocabulary: facts of the data, see `DataSpec`.
        labels: (N,) of integers from 0, or (N, K) of factors.
        context: "label" makes models conditional on the label.
        vectors: (N, C), what models are conditional on instead; a row with a NaN has no context.
        names: what a person calls a row of the source.
        source: where it was read from.
        findings: about rows of the source, or files.

    Raises:
        RecipeError: a context without labels, or two contexts.
    """
    classes = 0
    if context == "label" and vectors is not None:
        raise RecipeError("`data.context` and `data.vectors` were both given; a row has one context, so name one.")
    if context == "label":
        if labels is None or labels.ndim != 1:
            raise RecipeError('`data.context` is "label", but these data have no labels; say where they are.')
        classes = int(labels.max()) + 1

    def part(index: Tensor) -> InMemory:
        own = None if labels is None else labels[index]
        given = Context.labels(own, classes, own >= 0) if own is not None and classes else _of(vectors, index)
        call = names or (lambda row: f"row {row}")
        return InMemory(raw[index], given, own, lambda row: call(int(index[row])))

    width = classes if vectors is None else vectors.shape[1]
    spec = DataSpec(tuple(raw.shape[1:]), levels, width, len(split.train), columns, vocabulary)
    if vectors is not None:
        spec = replace(spec, contexts="numbers")
    found = divided(findings, placed(split)) if findings else ()
    rows = {part_name: part(index) for part_name, index in split.parts().items()}
    return Dataset(name, spec, **rows, source=source, findings=found)  # type: ignore[arg-type]


def _of(vectors: Tensor | None, index: Tensor) -> Context | None:
    """The vectors of some rows as their context; absent where a value is missing."""
    if vectors is None:
        return None
    own = vectors[index]
    return Context(own.nan_to_num(0.0), ~own.isnan().any(dim=1))


def placed(split: Split) -> dict[str, dict[int, int]]:
    """For each part, from the number of a row in the source to its place in the part."""
    return {name: {row: place for place, row in enumerate(index.tolist())} for name, index in split.parts().items()}


def located(path: str, data_dir: Path | None) -> Path:
    """Where one's own file or folder is: a relative path starts at the data folder, where one was named.

    Raises:
        DataError: there is nothing there.
    """
    found = (data_dir or Path()) / path if not Path(path).is_absolute() else Path(path)
    if not found.exists():
        raise DataError(f"{found} does not exist; `data.path` must name it (a relative path starts at --data-dir).")
    return found


def by_name(values: dict[str, NDArray[Any]]) -> Values:
    """The values that rows may be divided by."""

    def named(name: str) -> NDArray[Any]:
        if name not in values:
            raise DataError(
                f"there is nothing called `{name}` to divide the rows by; there are: {', '.join(values) or 'none'}."
            )
        return values[name]

    return named


def as_labels(values: NDArray[Any], where: str) -> Tensor:
    """Labels as integers: whole numbers stay, words are numbered in alphabetical order.

    Raises:
        DataError: numbers that are not whole.
    """
    if values.dtype.kind in "iub":
        return torch.from_numpy(values.astype(np.int64))
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise DataError(f"{where} holds labels that are not whole numbers; a label is an integer from 0.")
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(np.unique(values.astype(str), return_inverse=True)[1].astype(np.int64))

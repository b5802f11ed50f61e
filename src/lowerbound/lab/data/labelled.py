"""Rows with labels: how labels become a context."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lowerbound.errors import RecipeError
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import derive_seed, generator

ContextKind = Literal["none", "label"]


def labelled_rows(
    name: str,
    splits: dict[str, tuple[Tensor, Tensor]],
    levels: int | None,
    classes: int,
    context: ContextKind,
    labelled: int | None,
    source: Path | None = None,
) -> Dataset:
    """A data set of rows whose labels may be the context.

    Args:
        name: for records.
        splits: rows (N, *event) and labels (N,) by split; -1 where there are none.
        levels: number of levels of a pixel; None for real numbers.
        classes: number of labels.
        context: "label" makes models conditional on the label.
        labelled: with a context, only so many training rows, the same number of each class, keep their label.
        source: where the files lie.

    Raises:
        RecipeError: `labelled` does not fit the context or the classes.
    """
    if labelled is not None and (context == "none" or labelled % classes):
        raise RecipeError(
            f'`data.labelled` is {labelled} with the context "{context}"; it needs `context = "label"` and must be '
            f"a multiple of the {classes} classes."
        )

    def rows(split: str) -> InMemory:
        images, labels = splits[split]
        if context == "none":
            return InMemory(images, labels=labels)
        present = labels >= 0
        if split == "train" and labelled is not None:
            present = _some_of_each(labels, classes, labelled)
        return InMemory(images, Context.labels(labels, classes, present), labels)

    images, _ = splits["train"]
    width = classes if context == "label" else 0
    spec = DataSpec(tuple(images.shape[1:]), levels, width, len(images))
    return Dataset(name, spec, rows("train"), rows("validation"), rows("test"), source=source)


def _some_of_each(labels: Tensor, classes: int, count: int) -> Tensor:
    """A mask of `count` rows with equal shares of the classes, the same at every call."""
    order = torch.randperm(len(labels), generator=generator(derive_seed(0, "labelled", count)))
    present = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(classes):
        present[order[labels[order] == label][: count // classes]] = True
    return present

"""Codes of a trained run as data: what a second stage is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lowerbound.errors import DataError, ShapeError
from lowerbound.lab.data.labelled import ContextKind, labelled_rows
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.generation import use
from lowerbound.model.families.family import Family

CHUNK = 1000  # rows that are encoded together


def latents_of(
    model: Family,
    source: Dataset,
    context: ContextKind = "none",
    labelled: int | None = None,
    where: Path | None = None,
) -> Dataset:
    """The points of a model's posteriors of the rows of a data set, split by split, (N, *units).

    Args:
        model: with one group of latents, and no context; whole numbers (the codes of a quantiser) stay what they are.
        source: the rows; their labels stay with them.
        context: "label" makes models of the codes conditional on the label.
        labelled: number of training rows that keep their label as context.
        where: the model's run lies.

    Raises:
        ShapeError: a model with several groups of latents.
        DataError: a context is asked for, and the rows have no labels.
    """
    if len(model.latents) != 1:
        raise ShapeError(
            f"the codes of a run are data where it has one group of latents, and this one has {len(model.latents)}; "
            "choose a run of the family `vae` or `vq-vae`."
        )
    (group,) = model.latents
    splits, classes = {}, 0
    for split in ("train", "validation", "test"):
        rows = source.split(split)
        parts = [use.encode(model, rows.take(index).raw)[group] for index in torch.arange(len(rows)).split(CHUNK)]
        labels = rows.labels
        if labels is None or labels.ndim != 1:
            if context == "label":
                raise DataError('`data.context` is "label", but the rows of that run have no labels; use "none".')
            labels = torch.full((len(rows),), -1)
        classes = max(classes, int(labels.max()) + 1)
        splits[split] = (torch.cat(parts), labels)
    return labelled_rows("latents", splits, model.values.get(group), classes, context, labelled, where)


def with_contexts(codes: Dataset, source: Dataset) -> Dataset:
    """Codes with the contexts of the rows that they are of, as they stand there."""
    parts = {}
    for split in ("train", "validation", "test"):
        every = torch.arange(len(codes.split(split)))
        rows = codes.split(split)
        parts[split] = InMemory(rows.take(every).raw, source.split(split).take(every).context, rows.labels)
    spec = source.spec.conditioning(codes.spec)
    return replace(codes, spec=spec, train=parts["train"], validation=parts["validation"], test=parts["test"])

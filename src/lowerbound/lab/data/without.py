"""Rows of other data, but for those of some labels: a world in which a kind does not exist yet."""

from __future__ import annotations

from dataclasses import replace

import torch

from lowerbound.errors import DataError
from lowerbound.lab.data.rows import Dataset, InMemory, Rows


def without_labels(source: Dataset, labels: list[int]) -> Dataset:
    """The same data without the rows of some labels, in every split; the other labels stay what they were.

    Raises:
        DataError: rows without labels, or with several; or no rows are left.
    """
    return replace(
        source,
        spec=replace(source.spec, examples=len(_left(source.train, labels))),
        train=_left(source.train, labels),
        validation=_left(source.validation, labels),
        test=_left(source.test, labels),
    )


def _left(rows: Rows, labels: list[int]) -> InMemory:
    if rows.labels is None or rows.labels.ndim != 1:
        raise DataError("rows of some labels are to be left out, but the rows have no labels; choose other data.")
    left = torch.nonzero(~torch.isin(rows.labels, torch.tensor(labels)))[:, 0]
    if not len(left):
        raise DataError(f"all rows have one of the labels {', '.join(map(str, labels))}; leave fewer out.")
    batch = rows.take(left)
    return InMemory(batch.raw, batch.context, rows.labels[left])

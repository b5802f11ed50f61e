"""The handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels with 17 levels; no download."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from lowerbound.lab.data.labelled import ContextKind, labelled_rows
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count
from lowerbound.noise import derive_seed, generator

VALIDATION, TEST = 200, 300


def digits(data_dir: Path | None, *, context: ContextKind = "none", labelled: Count | None = None) -> Dataset:
    """1,297 training, 200 validation and 300 test images, split once at random (Alpaydin & Kaynak 1998).

    Args:
        data_dir: not used; the data are part of an installed package.
        context: "label" makes models conditional on the digit.
        labelled: number of training rows that keep their label as context.
    """
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.uint8)[:, None]
    labels = torch.tensor(found.target)
    order = torch.randperm(len(images), generator=generator(derive_seed(0, "digits")))
    cuts = {
        "test": order[:TEST],
        "validation": order[TEST : TEST + VALIDATION],
        "train": order[TEST + VALIDATION :],
    }
    splits = {name: (images[index], labels[index]) for name, index in cuts.items()}
    return labelled_rows("digits", splits, 17, 10, context, labelled)

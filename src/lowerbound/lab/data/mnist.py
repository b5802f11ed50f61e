"""MNIST: 70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes & Burges)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.lab.data.idx import read_idx
from lowerbound.lab.data.labelled import ContextKind, labelled_images
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count

VALIDATION, CLASSES = 5000, 10


def mnist(data_dir: Path | None, *, context: ContextKind = "none", labelled: Count | None = None) -> Dataset:
    """The 10,000 test images as they are; the last 5,000 of the 60,000 training images are for validation.

    Args:
        data_dir: the folder that holds `mnist/` with the four IDX files, gzipped or not.
        context: "label" makes models conditional on the digit.
        labelled: number of training rows that keep their label as context.
    """
    if data_dir is None:
        raise DataError(
            "MNIST's files were not found: say where they are with --data-dir DIR or the environment variable "
            "LOWERBOUND_DATA; DIR/mnist must hold train-images-idx3-ubyte.gz and its three siblings."
        )
    folder = data_dir / "mnist"
    images, labels = _pair(folder, "train")
    test = _pair(folder, "t10k")
    if len(images) <= VALIDATION or images.shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{folder} has training images of shape {list(images[:, 0].shape)} and test images of shape "
            f"{list(test[0][:, 0].shape)}; there must be more than {VALIDATION:,} of the first, "
            "and all of one size: fetch them again."
        )
    splits = {
        "train": (images[:-VALIDATION], labels[:-VALIDATION]),
        "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
        "test": test,
    }
    return labelled_images("mnist", splits, 256, CLASSES, context, labelled, folder)


def _pair(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images = read_idx(_present(folder / f"{part}-images-idx3-ubyte"))
    labels = read_idx(_present(folder / f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {part} has images of shape {list(images.shape)} and labels of shape {list(labels.shape)}; "
            "they do not belong together: fetch them again."
        )
    if not len(labels) or labels.max() >= CLASSES:
        raise DataError(f"{folder}: {part} has no labels, or some above {CLASSES - 1}; fetch it again.")
    return images[:, None], labels.long()


def _present(path: Path) -> Path:
    """The file or its gzipped form."""
    return path if path.exists() else path.with_name(path.name + ".gz")

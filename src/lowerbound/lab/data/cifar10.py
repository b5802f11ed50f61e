"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes (Krizhevsky 2009)."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.files import replacing_folder
from lowerbound.lab.data.arrays import read_arrays
from lowerbound.lab.data.download import Remote, cache, fetch
from lowerbound.lab.data.labelled import ContextKind, labelled_rows
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count

CLASSES, SIDE = 10, 32
RECORD = 1 + 3 * SIDE * SIDE  # bytes: the label and the pixels, channel by channel
FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
ARCHIVE = Remote(
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)

Images = tuple[Tensor, Tensor]


def cifar10(
    data_dir: Path | None,
    *,
    context: ContextKind = "none",
    labelled: Count | None = None,
    download: bool = False,
) -> Dataset:
    """Colour pictures (3, 32, 32) with 256 levels.

    The folder holds the binary files, and then the 10,000 test images are as they are and the last 5,000 of the 50,000
    training images are for validation; or it holds the first training images as lossless PNG files (each row of which
    is one image) with a .npy file of labels, and then the last tenths of these are for validation and testing. The
    second way is for trials: its numbers are not those of the literature.

    Args:
        data_dir: the folder that holds `cifar10/`.
        context: "label" makes models conditional on the class.
        labelled: number of training rows that keep their label as context.
        download: fetch the binary files where they are missing (162 MiB).
    """
    folder = data_dir / "cifar10" if data_dir else cache("cifar10", None)
    binary = next((place for place in (folder, folder / "cifar-10-batches-bin") if (place / FILES[-1]).exists()), None)
    pictures = sorted(folder.glob("cifar10_batch_*.png"))
    if binary is None and download:
        binary = _download(folder)
    if binary is not None:
        images, labels = _joined([_records(binary / name) for name in FILES[:-1]])
        test = _records(binary / FILES[-1])
        cut = len(images) - len(images) // 10
    elif pictures:
        images, labels = _pictures(pictures, folder)
        share = len(images) // 10
        test = images[len(images) - share :], labels[len(images) - share :]
        images, labels = images[: len(images) - share], labels[: len(images) - share]
        cut = len(images) - share
    else:
        raise DataError(
            f"CIFAR-10's files were not found in {folder}: put data_batch_1.bin and its five siblings there, say where "
            "they are with --data-dir or LOWERBOUND_DATA, or have them downloaded with --set data.download=true."
        )
    parts = {"train": (images[:cut], labels[:cut]), "validation": (images[cut:], labels[cut:]), "test": test}
    return labelled_rows("cifar10", parts, 256, CLASSES, context, labelled, folder)


def _download(folder: Path) -> Path:
    """The folder of the binary files, after fetching and unpacking their archive."""
    archive = fetch(ARCHIVE, folder / "cifar-10-binary.tar.gz")
    place = folder / "cifar-10-batches-bin"
    with replacing_folder(place) as draft, tarfile.open(archive) as packed:
        for name in FILES:
            member = packed.extractfile(f"cifar-10-batches-bin/{name}")
            assert member is not None  # the archive's hash was checked
            (draft / name).write_bytes(member.read())
    return place


def _records(file: Path) -> Images:
    """Images (N, 3, 32, 32) and labels (N,) of a binary file."""
    try:
        content = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); fetch it again.") from None
    if not len(content) or len(content) % RECORD or (content[::RECORD] >= CLASSES).any():
        raise DataError(
            f"{file} is not a binary file of CIFAR-10 ({len(content):,} bytes; it has a label below {CLASSES} and "
            f"{RECORD - 1:,} pixels for each image); fetch it again."
        )
    rows = content.reshape(-1, RECORD)
    pixels = rows[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return torch.from_numpy(pixels.copy()), torch.from_numpy(rows[:, 0].astype(np.int64))


def _joined(parts: list[Images]) -> Images:
    images, labels = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(labels)


def _pictures(files: list[Path], folder: Path) -> Images:
    """Images and labels of the PNG files, in order."""
    images = torch.from_numpy(np.concatenate([_picture(file) for file in files]))
    found = sorted(folder.glob("*labels*.npy"))
    if not found:
        raise DataError(f"{folder} has pictures and no .npy file of their labels; put it there.")
    labels = next(iter(read_arrays(found[0]).values()))
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.max() >= CLASSES:
        raise DataError(
            f"{found[0]} holds {labels.dtype} of shape {list(labels.shape)}; {folder} needs {len(images):,} labels "
            f"from 0 to {CLASSES - 1}."
        )
    return images, torch.from_numpy(labels.astype(np.int64))


def _picture(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a picture ({error}); fetch it again.") from None
    if pixels.shape[1] != SIDE * SIDE:
        raise DataError(f"{file} is {pixels.shape[1]} pixels wide; each row holds one image, {SIDE * SIDE} pixels.")
    return np.ascontiguousarray(pixels.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2))

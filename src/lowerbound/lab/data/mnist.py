"""MNIST (LeCun, Cortes & Burges) and Fashion-MNIST (Xiao et al. 2017): 70,000 images of 28 x 28 pixels each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.lab.data.download import Remote, cache, fetch
from lowerbound.lab.data.idx import read_idx
from lowerbound.lab.data.labelled import ContextKind, labelled_rows
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count

VALIDATION, CLASSES = 5000, 10


@dataclass(frozen=True)
class Source:
    """A data set in the format of MNIST.

    Attributes:
        name: its kind.
        title: what a person calls it.
        folders: where its files may lie, in the data folder.
        mirrors: where they are on the network.
        hashes: SHA-256 of each file, unzipped.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    hashes: dict[str, str]


MNIST = Source(
    "mnist",
    "MNIST",
    ("mnist",),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION = Source(
    "fashion-mnist",
    "Fashion-MNIST",
    ("fashion-mnist", "fashion_mnist"),
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)


def mnist(
    data_dir: Path | None,
    *,
    context: ContextKind = "none",
    labelled: Count | None = None,
    download: bool = False,
) -> Dataset:
    """The 10,000 test images as they are; the last 5,000 of the 60,000 training images are for validation.

    Args:
        data_dir: the folder that holds `mnist/` with the four IDX files, gzipped or not.
        context: "label" makes models conditional on the digit.
        labelled: number of training rows that keep their label as context.
        download: fetch files that are missing.
    """
    return _load(MNIST, data_dir, context, labelled, download)


def fashion_mnist(
    data_dir: Path | None,
    *,
    context: ContextKind = "none",
    labelled: Count | None = None,
    download: bool = False,
) -> Dataset:
    """Pictures of ten kinds of clothes, divided as MNIST is: 55,000, 5,000 and 10,000.

    Args:
        data_dir: the folder that holds `fashion-mnist/` with the four IDX files, gzipped or not.
        context: "label" makes models conditional on the kind of clothes.
        labelled: number of training rows that keep their label as context.
        download: fetch files that are missing.
    """
    return _load(FASHION, data_dir, context, labelled, download)


def _load(source: Source, data_dir: Path | None, context: ContextKind, labelled: int | None, download: bool) -> Dataset:
    folder = _folder(source, data_dir, download)
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
    return labelled_rows(source.name, splits, 256, CLASSES, context, labelled, folder)


def _folder(source: Source, data_dir: Path | None, download: bool) -> Path:
    """Where the files are; after a download, if one was asked for."""
    places = [(data_dir or Path()) / name for name in source.folders] if data_dir else []
    found = next((place for place in places if place.exists()), None)
    if download:
        found = found or cache(source.name, data_dir)
        for name, sha256 in source.hashes.items():
            if not _present(found / name).exists():
                fetch(Remote(tuple(f"{url}{name}.gz" for url in source.mirrors), sha256, gzipped=True), found / name)
    if found is None and data_dir is None:
        found = next((place for place in [cache(source.name, None)] if place.exists()), None)
    if found is None and data_dir is None:
        raise DataError(
            f"{source.title}'s files were not found: say where they are with --data-dir DIR or the environment "
            f"variable LOWERBOUND_DATA (DIR/{source.name} must hold train-images-idx3-ubyte.gz and its three "
            "siblings), or have them downloaded with --set data.download=true."
        )
    return found or places[0]


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

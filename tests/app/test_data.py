"""Data that are missing, damaged or do not belong together: one sentence that names the file."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import Cli, Result
from numpy.typing import NDArray

import lowerbound

TRAIN, TEST = 5020, 30  # the last 5,000 training images are for validation


def idx(array: NDArray[np.uint8], code: int = 0x08) -> bytes:
    """An IDX file."""
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + shape + array.tobytes()


def images(count: int, size: int = 4) -> NDArray[np.uint8]:
    """Small pictures."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)


def labels(count: int) -> NDArray[np.uint8]:
    """Labels of all classes."""
    return (np.arange(count) % 10).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of data like MNIST's, in small."""
    mnist = tmp_path / "data" / "mnist"
    mnist.mkdir(parents=True)
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        (mnist / f"{part}-images-idx3-ubyte").write_bytes(idx(images(count)))
        (mnist / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(count))))
    return mnist


def dry(cli: Cli, folder: Path) -> Result:
    """A dry run on the data of a folder."""
    return cli("train", "mnist", "--dry-run", "--data-dir", folder.parent)


def test_sound_files_are_read(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = dry(cli, folder)
    assert result.code == 0, result
    assert f"{TRAIN - 5000} training rows of shape [1, 4, 4]" in result.out
    monkeypatch.setenv("LOWERBOUND_DATA", str(folder.parent))
    data = lowerbound.load_data({"kind": "mnist", "context": "label"})
    assert (len(data.train), len(data.validation), len(data.test)) == (TRAIN - 5000, 5000, TEST)
    batch = data.split("test").take(data.split("test").labels.argsort())  # type: ignore[attr-defined]
    assert batch.context is not None
    assert batch.context.vector.shape == (TEST, 10)


def test_no_folder_was_named(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cli("train", "mnist", "--out", out).refused(2, "MNIST", "--data-dir", "LOWERBOUND_DATA", "train-images-idx3-ubyte")
    assert not out.exists()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz"])
def test_a_missing_file_is_named(cli: Cli, folder: Path, name: str) -> None:
    (folder / name).unlink()
    dry(cli, folder).refused(2, name, "does not exist", "--data-dir")


def test_a_missing_folder_is_named(cli: Cli, tmp_path: Path) -> None:
    dry(cli, tmp_path / "nowhere" / "mnist").refused(2, "nowhere", "does not exist", "--data-dir")


def truncated(path: Path) -> None:
    """Lose the last bytes."""
    path.write_bytes(path.read_bytes()[:-100])


def no_header(path: Path) -> None:
    """Lose all but the first bytes."""
    path.write_bytes(path.read_bytes()[:6])


def empty(path: Path) -> None:
    """Lose everything."""
    path.write_bytes(b"")


def web_page(path: Path) -> None:
    """What a download gives when it fails."""
    path.write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")


def other_type(path: Path) -> None:
    """Numbers of another type."""
    path.write_bytes(idx(images(TRAIN), code=0x0D))


def too_long(path: Path) -> None:
    """More than the header declares."""
    path.write_bytes(path.read_bytes() + b"\0")


def directory(path: Path) -> None:
    """A folder in the file's place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, ["declares 80,320 values of shape [5020, 4, 4] and holds 80,220", "fetch it again"]),
        (no_header, ["truncated or damaged"]),
        (empty, ["not an IDX file", "nothing"]),
        (web_page, ["not an IDX file", "3c21444f"]),
        (other_type, ["not an IDX file of unsigned bytes", "00000d03"]),
        (too_long, ["holds 80,321"]),
        (directory, ["cannot be read"]),
    ],
)
def test_a_damaged_file_is_named(cli: Cli, folder: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    path = folder / "train-images-idx3-ubyte"
    damage(path)
    dry(cli, folder).refused(2, path.name, *words)


@pytest.mark.parametrize(
    "damage", [truncated, empty, web_page, lambda path: path.write_bytes(path.read_bytes()[:40] + bytes(20))]
)
def test_a_damaged_archive_is_named(cli: Cli, folder: Path, damage: Callable[[Path], None]) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    damage(path)
    dry(cli, folder).refused(2, path.name)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("t10k-labels-idx1-ubyte.gz", labels(TEST - 1), ["[30, 4, 4]", "[29]", "do not belong together"]),
        ("t10k-labels-idx1-ubyte.gz", images(TEST), ["do not belong together"]),
        ("train-images-idx3-ubyte", labels(TRAIN), ["[5020]", "do not belong together"]),
        ("t10k-labels-idx1-ubyte.gz", labels(TEST) + np.uint8(5), ["above 9"]),
        ("t10k-images-idx3-ubyte", images(TEST, 5), ["[30, 5, 5]", "of one size"]),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    cli: Cli, folder: Path, name: str, array: NDArray[np.uint8], words: list[str]
) -> None:
    content = idx(array)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    dry(cli, folder).refused(2, *words)


def test_too_few_images_for_a_validation_set_are_refused(cli: Cli, folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(idx(images(50)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(50))))
    dry(cli, folder).refused(2, "[50, 4, 4]", "more than 5,000")


def test_no_test_images_are_refused(cli: Cli, folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images(0)))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(0))))
    dry(cli, folder).refused(2, "t10k", "no labels")

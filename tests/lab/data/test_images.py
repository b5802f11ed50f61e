"""Folders of pictures: what is read, how they fit, what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.errors import DataError, RecipeError
from lowerbound.lab.data.load import load_data, read_data
from lowerbound.lab.data.rows import Dataset


def picture(path: Path, seed: int, size: tuple[int, int] = (6, 5), channels: int = 3) -> Path:
    """Noise of a height and a width."""
    shape = (*size, 3) if channels == 3 else size
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(30):
        picture(tmp_path / "pictures" / f"{number:02}.png", number)
    return tmp_path / "pictures"


def read(folder: Path, **settings: Any) -> Dataset:
    return read_data({"kind": "images", "path": str(folder), **settings})


def test_pictures_are_rows(folder: Path) -> None:
    data = read(folder)
    assert data.spec.event == (3, 6, 5)
    assert data.spec.levels == 256
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 3, 3)
    for row in range(3):
        with Image.open(data.test.name(row)) as image:
            expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        assert torch.equal(data.test.take(torch.tensor([row])).raw[0], expected)


def test_pictures_on_disk_are_those_in_memory(folder: Path) -> None:
    held, decoded = read(folder), read(folder, memory=False)
    index = torch.tensor([5, 3, 3])
    assert held.spec == decoded.spec
    assert torch.equal(held.train.take(index).raw, decoded.train.take(index).raw)
    assert held.train.name(4) == decoded.train.name(4)


def test_what_gives_no_row_is_found_and_named(folder: Path) -> None:
    cut = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(cut[: len(cut) // 2])
    (folder / "notes.txt").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    picture(folder / "small.png", 1, (3, 3))
    picture(folder / "grey.png", 1, channels=1)
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "deep.png")
    (folder / ".hidden").write_text("not looked at")
    data = read(folder)
    found = {(finding.check, Path(name).name) for finding in data.findings for name in finding.names}
    assert found == {
        ("truncated", "03.png"),
        ("unreadable", "notes.txt"),
        ("unreadable", "empty.png"),
        ("size", "small.png"),
        ("channels", "grey.png"),
        ("channels", "deep.png"),
    }
    assert len(data.train) + len(data.validation) + len(data.test) == 29
    with pytest.raises(DataError, match=r"\.(png|txt).*more findings.*--check permissive"):
        load_data({"kind": "images", "path": str(folder)})


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_other_sizes_are_made_to_fit(folder: Path, fit: str) -> None:
    picture(folder / "wide.png", 1, (20, 50))
    picture(folder / "tiny.png", 1, (2, 3), channels=1)
    data = read(folder, fit=fit, size=[8, 4], channels=1)
    assert data.spec.event == (1, 8, 4)
    assert not data.findings
    assert len(data.train) == 26


def test_a_turned_photograph_stands_upright(folder: Path) -> None:
    pixels = np.zeros((5, 6, 3), np.uint8)
    pixels[:, 0] = 255  # a bright first column is, turned by a quarter, a bright first row
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "turned.png", exif=exif)
    data = read(folder)
    assert not data.findings
    rows = [(part, row) for part in (data.train, data.validation, data.test) for row in range(len(part))]
    part, row = next((part, row) for part, row in rows if part.name(row).endswith("turned.png"))
    assert bool((part.take(torch.tensor([row])).raw[0, :, 0] == 255).all())


def test_folders_are_parts_and_labels(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 4)):
        for number in range(count):
            picture(tmp_path / part / ("cat", "dog")[number % 2] / f"{number}.png", number)
    data = read(tmp_path, context="label")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)
    assert data.spec.context == 2
    assert all("/test/" in data.test.name(row) for row in range(4))
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [int("dog" in data.test.name(row)) for row in range(4)]


def test_strata_are_the_folders(tmp_path: Path) -> None:
    for number in range(40):
        picture(tmp_path / ("cat", "dog")[number % 4 == 0] / f"{number}.png", number)
    data = read(tmp_path, split={"kind": "stratum", "test": 0.2, "validation": 0.2})
    assert data.test.labels is not None
    assert data.test.labels.sum() == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({"size": [8]}, "data.size"),
        ({"fit": "stretch"}, "data.fit"),
        ({"size": [80, 80]}, "no picture of 80 x 80"),
        ({"context": "label"}, "no labels"),
    ],
)
def test_wrong_settings_are_refused(folder: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((DataError, RecipeError), match=words):
        read_data({"kind": "images", "path": str(folder), **settings})


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="holds no pictures"):
        read(tmp_path)

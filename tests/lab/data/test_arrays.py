"""Arrays and IDX files of one's own."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lowerbound.errors import DataError, RecipeError
from lowerbound.lab.data.load import read_data

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(50, 4))
BYTES = RANDOM.integers(0, 256, (50, 6, 5), np.uint8)


def read(path: Path, **settings: Any) -> Any:
    return read_data({"kind": "arrays", "path": str(path), **settings})


@pytest.mark.parametrize(
    ("array", "settings", "event", "levels"),
    [
        (VECTORS, {}, (4,), None),
        (VECTORS[:, 0], {}, (1,), None),
        (VECTORS.astype(">f8"), {}, (4,), None),
        (BYTES, {}, (1, 6, 5), 256),
        (BYTES > 100, {}, (1, 6, 5), 2),
        (BYTES[..., None].repeat(3, -1), {"channels_last": True}, (3, 6, 5), 256),
        (BYTES[:, 0].astype(np.int64), {"levels": 256}, (5,), 256),
        (BYTES[:, 0].astype(np.int64), {}, (5,), None),
        (BYTES[:, None, None], {}, (1, 1, 6, 5), 256),
    ],
)
def test_an_array_is_read(
    tmp_path: Path, array: Any, settings: dict[str, Any], event: tuple[int, ...], levels: int | None
) -> None:
    np.save(tmp_path / "a.npy", array)
    data = read(tmp_path / "a.npy", **settings)
    assert data.spec.event == event
    assert data.spec.levels == levels
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 5, 5)
    row = int(data.train.name(3).split()[-1]) - 1
    plain = np.moveaxis(array[row], -1, 0) if settings.get("channels_last") else array[row]
    assert np.allclose(data.train.take(torch.tensor([3])).raw[0].numpy().reshape(plain.shape), plain)


def test_rows_and_labels_of_an_archive(tmp_path: Path) -> None:
    y, when = np.arange(50) % 3, np.arange(50)[::-1]
    np.savez(tmp_path / "a.npz", X=VECTORS, y=y, when=when)
    data = read(tmp_path / "a.npz", context="label", split={"kind": "time", "by": "when"})
    assert data.spec.context == 3
    assert [data.test.name(row).split()[-1] for row in range(5)] == ["5", "4", "3", "2", "1"]
    assert data.test.labels.tolist() == [1, 0, 2, 1, 0]


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    array = VECTORS.copy()
    array[7, 2], array[9, 0] = np.nan, np.inf
    np.save(tmp_path / "a.npy", array)
    names = [name for finding in read(tmp_path / "a.npy").findings for name in finding.names]
    assert sorted(names) == [f"{tmp_path / 'a.npy'} row 10", f"{tmp_path / 'a.npy'} row 8"]


@pytest.mark.parametrize(
    ("arrays", "settings", "words"),
    [
        ({"a": VECTORS, "b": VECTORS}, {}, "data.key"),
        ({"a": VECTORS}, {"key": "c"}, "no array `c`"),
        ({"x": VECTORS, "y": np.zeros(3)}, {}, "one for each row"),
        ({"x": VECTORS, "y": np.full(50, 0.5)}, {}, "not whole numbers"),
        ({"x": np.array(["a"] * 50)}, {}, "rows are numbers"),
        ({"x": np.zeros((0, 3))}, {}, "at least one"),
        ({"x": np.array([{}] * 50, dtype=object)}, {}, "it holds objects"),
        ({"x": VECTORS}, {"split": {"kind": "group", "by": "who"}}, "nothing called `who`"),
    ],
)
def test_wrong_archives_are_refused(
    tmp_path: Path, arrays: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises((DataError, RecipeError), match=words):
        read(tmp_path / "a.npz", **settings)


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=VECTORS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.npz is no whole"):
        read(path)


def test_idx_files_are_read(tmp_path: Path) -> None:
    labels = (np.arange(50) % 4).astype(np.uint8)
    for name, array in (("rows", BYTES), ("labels", labels)):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (tmp_path / name).write_bytes(head + array.tobytes())
    table = {"kind": "idx", "path": "rows", "label": "labels", "split": {"kind": "stratum"}}
    data = read_data(table, tmp_path)
    assert data.spec.event == (1, 6, 5)
    assert data.test.labels is not None
    assert data.test.labels.sort().values.tolist() == [0, 1, 2, 3]


def test_rows_can_be_conditioned_on_vectors(tmp_path: Path) -> None:
    vectors = np.arange(80, dtype=np.float64).reshape(40, 2)
    vectors[3, 1] = np.nan
    arrays = {"x": np.zeros((40, 3)), "place": vectors, "far": np.full((40, 2), np.inf), "few": vectors[:5]}
    np.savez(tmp_path / "rows.npz", **arrays)
    data = read(tmp_path / "rows.npz", vectors="place")
    assert data.spec.context == 2
    parts = [data.split(name).take(torch.arange(len(data.split(name)))) for name in ("train", "validation", "test")]
    seen = torch.cat([part.context.vector for part in parts])
    present = torch.cat([part.context.present for part in parts])
    assert not seen.isnan().any()
    assert sorted(seen[present][:, 0].tolist()) == [2.0 * row for row in range(40) if row != 3]
    for wrong in ("nowhere", "far", "few"):
        with pytest.raises(DataError, match=wrong):
            read(tmp_path / "rows.npz", vectors=wrong)
    np.savez(tmp_path / "both.npz", **arrays, y=np.arange(40) % 2)
    with pytest.raises(RecipeError, match="one context"):
        read(tmp_path / "both.npz", vectors="place", context="label")

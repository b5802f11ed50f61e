"""Shards: the same rows as in memory, shuffles, damaged files, bounded memory and exact resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lowerbound.errors import DataError
from lowerbound.lab.data.load import load_data, read_data
from lowerbound.lab.data.rows import Dataset, Order
from lowerbound.lab.data.shards import BlockOrder
from lowerbound.lab.data.shuffle import nearby, permuted
from lowerbound.lab.data.validate import validate

ROWS = np.random.default_rng(0).integers(0, 256, (100, 3, 4), np.uint8)


def write(folder: Path, rows: np.ndarray, sizes: tuple[int, ...] = (30, 1, 50, 19)) -> Path:
    folder.mkdir(parents=True)
    for number, part in enumerate(np.split(rows, np.cumsum(sizes)[:-1])):
        np.save(folder / f"part-{number:03}.npy", part)
    return folder


def read(folder: Path, **settings: Any) -> Dataset:
    return read_data({"kind": "shards", "path": str(folder), **settings})


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32, np.float64, ">f4", np.int16])
def test_rows_are_those_of_the_files(tmp_path: Path, dtype: Any) -> None:
    rows = ROWS.astype(dtype)
    data = read(write(tmp_path / "s", rows))
    assert (len(data.train), len(data.validation), len(data.test)) == (80, 10, 10)
    assert data.spec.event == (3, 4)
    assert data.spec.levels == {"uint8": 256, "bool": 2}.get(np.dtype(dtype).name)
    index = torch.tensor([79, 0, 30, 29, 31, 30, 5, 6, 7])
    assert np.array_equal(data.train.take(index).raw.numpy(), rows[index.numpy()])
    assert np.array_equal(data.test.take(torch.arange(10)).raw.numpy(), rows[90:])
    assert data.test.name(0).endswith("part-003.npy row 10")
    assert data.train.name(30).endswith("part-001.npy row 1")


def test_folders_are_parts(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "validation", "test")):
        write(tmp_path / "s" / name, ROWS[number * 10 : number * 10 + 10], (5, 5))
    data = read(tmp_path / "s")
    assert [int(data.split(name).take(torch.tensor([9])).raw[0, 0, 0]) for name in ("train", "validation", "test")] == [
        ROWS[row, 0, 0] for row in (9, 19, 29)
    ]


def test_damaged_shards_are_found_and_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", ROWS)
    whole = (folder / "part-002.npy").read_bytes()
    (folder / "part-002.npy").write_bytes(whole[:-1])
    np.save(folder / "part-004.npy", ROWS[:, :2])
    (folder / "part-005.npy").write_text("no array")
    np.save(folder / "part-006.npy", np.asfortranarray(ROWS))
    data = read(folder)
    found = {(finding.check, Path(name).stem) for finding in data.findings for name in finding.names}
    assert found == {
        ("truncated", "part-002"),
        ("size", "part-004"),
        ("unreadable", "part-005"),
        ("unreadable", "part-006"),
    }
    assert len(data.train) + len(data.validation) + len(data.test) == 50
    with pytest.raises(DataError, match=r"part-002\.npy"):
        load_data({"kind": "shards", "path": str(folder)})


def test_a_shard_that_shrinks_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", ROWS)
    data = read(folder)
    os.truncate(folder / "part-002.npy", 200)
    with pytest.raises(DataError, match=r"part-002\.npy ends before its row"):
        data.train.take(torch.arange(80))


def test_shards_are_validated_a_block_at_a_time(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[95] = rows[2]
    (finding,) = validate(read(write(tmp_path / "s", rows))).findings
    assert finding.check == "leak"
    assert finding.names[0].endswith("part-000.npy row 3)")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.npy files"):
        read(tmp_path)


# ------------------------------------------------------------------------------------------------------ shuffles


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000, 12_345])
def test_a_permutation_that_is_not_written_down_is_one(count: int) -> None:
    found = permuted(torch.arange(count), count, 7, "a")
    assert torch.equal(found.sort().values, torch.arange(count))
    assert torch.equal(permuted(torch.tensor([count - 1]), count, 7, "a"), found[-1:])
    if count >= 64:
        assert not torch.equal(found, permuted(torch.arange(count), count, 8, "a"))


def test_it_mixes_as_chance_does() -> None:
    """Where neighbours go is unrelated, and each place gets each tenth alike (chi-square, alarm rate 1e-4 each)."""
    count = 10_000
    found = torch.stack([permuted(torch.arange(count), count, seed) for seed in range(20)]).double()
    steps = (found[:, 1:] - found[:, :-1]).abs().mean() / count
    assert abs(steps - 1 / 3) < 0.002  # the mean distance of two uniform places, +- 4 standard errors
    cells = torch.histc(found[:, :1000].flatten() / count, 10, 0, 1)
    assert float(((cells - 2000).square() / 2000).sum()) < 33.7


@pytest.mark.parametrize(("count", "block", "window"), [(1000, 10, 4), (1003, 10, 7), (5, 10, 2), (64, 1, 64)])
def test_a_shuffle_that_keeps_rows_together_is_a_permutation(count: int, block: int, window: int) -> None:
    found = nearby(torch.arange(count), count, block, window, 3)
    assert torch.equal(found.sort().values, torch.arange(count))
    some = torch.tensor([count - 1, 0, count // 2])
    assert torch.equal(nearby(some, count, block, window, 3), found[some])


def test_it_reads_few_places_of_the_disk() -> None:
    order = BlockOrder(0, 1_000_000, 256, 100)
    blocks = {int(row) // 100 for number in range(20) for row in order.batch(number)}
    assert len(blocks) <= 64 * 2


def test_the_order_of_very_many_rows_needs_no_list_of_them() -> None:
    order = Order(0, 10**12, 1000)
    assert torch.equal(order.batch(5), Order(0, 10**12, 1000).batch(5))
    assert len(order.batch(7).unique()) == 1000
    assert not torch.equal(order.batch(order.per_epoch), order.batch(0))


# ---------------------------------------------------------------------------------------- larger than the memory

ALLOWED_BYTES = 24 * 2**20
VALUES, COUNT = 16_384, 16_000  # 250 MiB, ten times what is allowed


def child(*arguments: object) -> int:
    """Run the streaming program; returns its exit status."""
    program = Path(__file__).with_name("streaming.py")
    done = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
def test_data_larger_than_the_memory_are_trained_on_and_resumed_to_the_bit(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for number in range(10):
        part = np.random.default_rng(number).integers(0, 256, (COUNT // 10, VALUES), np.uint8)
        np.save(folder / f"part-{number}.npy", part)
    assert sum(path.stat().st_size for path in folder.iterdir()) > 10 * ALLOWED_BYTES
    assert child(folder, tmp_path / "whole") == 0
    memory = json.loads((tmp_path / "whole" / "memory.json").read_text())
    assert memory["growth_bytes"] < ALLOWED_BYTES, memory
    assert child(folder, tmp_path / "killed", 53) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "run.json").exists()
    assert child(folder, tmp_path / "killed") == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]

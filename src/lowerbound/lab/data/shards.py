"""Data that are larger than the memory: shards, read a few rows at a time."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.lab.data.assemble import located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.rows import Batch, Dataset, Order, Rows
from lowerbound.lab.data.shuffle import nearby
from lowerbound.lab.data.splits import NAMES, Share
from lowerbound.model.spec import Count, DataSpec
from lowerbound.noise import derive_seed

WINDOW = 64  # blocks that are mixed with one another


def shards(
    data_dir: Path | None,
    *,
    path: str,
    levels: Count | None = None,
    block: Count | None = None,
    validation: Share = 0.1,
    test: Share = 0.1,
) -> Dataset:
    """Rows of the .npy files of a folder, read when they are needed: memory does not grow with their number.

    The files hold rows (N, *event) of one type and shape, in the order of the files' names. Folders `train`,
    `validation` and `test` in it are the parts; without them the last rows are for testing and those before them for
    validation, so mix the rows when you write them, unless their order is that of time.

    Args:
        data_dir: where a relative path starts.
        path: the folder.
        levels: number of integer levels; by default 256 for 8-bit integers, 2 for booleans, none (real) for others.
        block: shuffle blocks of so many neighbouring rows, and then rows among 64 blocks, so that a slow disk reads
            what lies together; by default every row by itself.
        validation, test: shares of the rows, where there are no folders.
    """
    folder = located(path, data_dir)
    findings: list[Finding] = []
    if (folder / "train").is_dir():
        parts = {name: _shards(folder / name, findings) for name in NAMES}
        rows = {name: ShardRows(found, 0, _count(found), levels, block) for name, found in parts.items()}
    else:
        found = _shards(folder, findings)
        count = _count(found)
        second, first = count - int(count * test + 0.5), int(count * validation + 0.5)
        cuts = {"train": (0, second - first), "validation": (second - first, second), "test": (second, count)}
        rows = {name: ShardRows(found, *cut, levels, block) for name, cut in cuts.items()}
    for name, part in rows.items():
        if not len(part):
            raise DataError(f"{folder} leaves no rows for {name}; give more rows, or other shares.")
    shapes = {(part.event, part.dtype) for part in rows.values()}
    if len(shapes) > 1:
        raise DataError(f"{folder} holds rows of different types or shapes ({shapes}); write them alike.")
    train = rows["train"]
    spec = DataSpec(train.event, train.levels, examples=len(train))
    return Dataset("shards", spec, **rows, source=folder, findings=tuple(findings))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Shard:
    """One file: where its values begin, and what they are."""

    file: Path
    offset: int
    rows: int
    event: tuple[int, ...]
    dtype: np.dtype[Any]


class ShardRows(Rows):
    """Rows `start` to `stop` of shards that follow one another, read with `pread` into buffers.

    A memory map would do the same, but the pages that it has touched count as the process's memory.

    Args:
        shards: of one type and shape.
        start, stop: the rows.
        levels: see `shards`.
        block: see `shards`.
    """

    def __init__(self, shards: list[Shard], start: int, stop: int, levels: int | None, block: int | None) -> None:
        self.shards, self.start, self.stop, self.block = shards, start, stop, block
        self.event, self.dtype = shards[0].event, shards[0].dtype
        usual = {np.dtype(np.uint8): 256, np.dtype(np.bool_): 2}.get(self.dtype)
        self.levels = usual if levels is None else levels
        self.size_bytes = self.dtype.itemsize * int(np.prod(self.event))
        self.firsts = np.cumsum([0, *(shard.rows for shard in shards)]).tolist()
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return self.stop - self.start

    def take(self, index: Tensor) -> Batch:
        places = (index + self.start).numpy()
        buffer = np.empty((len(places), self.size_bytes), np.uint8)
        order = np.argsort(places, kind="stable")
        for run in np.split(order, np.flatnonzero(np.diff(places[order]) != 1) + 1):
            if len(run):
                self._read(int(places[run[0]]), run, buffer)
        values = buffer.view(self.dtype).reshape(len(places), *self.event)
        return Batch(torch.from_numpy(self._native(values)))

    def name(self, row: int) -> str:
        number = bisect_right(self.firsts, row + self.start) - 1
        return f"{self.shards[number].file} row {row + self.start - self.firsts[number] + 1}"

    def order(self, seed: int, batch_size: int) -> Order:
        if self.block is None:
            return super().order(seed, batch_size)
        return BlockOrder(seed, len(self), batch_size, self.block)

    def _read(self, place: int, run: np.ndarray, buffer: np.ndarray) -> None:
        """Read rows that follow one another, from row `place` of all shards on, into `buffer[run]`."""
        done = 0
        while done < len(run):
            number = bisect_right(self.firsts, place + done) - 1
            inside = place + done - self.firsts[number]
            count = min(len(run) - done, self.shards[number].rows - inside)
            shard = self.shards[number]
            content = os.pread(self._handle(number), count * self.size_bytes, shard.offset + inside * self.size_bytes)
            if len(content) != count * self.size_bytes:
                raise DataError(f"{shard.file} ends before its row {inside + count}; it is truncated, write it again.")
            buffer[run[done : done + count]] = np.frombuffer(content, np.uint8).reshape(count, -1)
            done += count

    def _handle(self, number: int) -> int:
        """An open file; the number of these is bounded."""
        if number not in self._open:
            if len(self._open) >= 64:
                os.close(self._open.pop(next(iter(self._open))))
            try:
                self._open[number] = os.open(self.shards[number].file, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{self.shards[number].file} cannot be read ({error.strerror}); mend it.") from None
            if not hasattr(self, "_closing"):
                self._closing = weakref.finalize(self, _close, self._open)
        return self._open[number]

    def _native(self, values: np.ndarray) -> np.ndarray:
        """In the type that models are given: bytes stay bytes, other integers with levels are int64, else float32."""
        if values.dtype == np.bool_:
            return values.view(np.uint8)
        if values.dtype == np.uint8:
            return values
        return values.astype(np.int64 if values.dtype.kind in "iu" and self.levels is not None else np.float32)


class BlockOrder(Order):
    """An order that keeps the rows of some batches near together on the disk; see `nearby`."""

    def __init__(self, seed: int, rows: int, batch_size: int, block: int) -> None:
        super().__init__(seed, rows, batch_size)
        self.block = block

    def batch(self, number: int) -> Tensor:
        epoch, place = divmod(number, self.per_epoch)
        places = torch.arange(place * self.batch_size, (place + 1) * self.batch_size)
        return nearby(places, self.rows, self.block, WINDOW, derive_seed(self.seed, "order", epoch))


def _close(handles: dict[int, int]) -> None:
    for handle in handles.values():
        os.close(handle)


def _count(found: list[Shard]) -> int:
    return sum(shard.rows for shard in found)


def _shards(folder: Path, findings: list[Finding]) -> list[Shard]:
    """The shards of a folder in the order of their names; those that are damaged become findings."""
    files = sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))
    found: list[Shard] = []
    wrong: dict[tuple[str, str], list[str]] = {}
    for file in files:
        shard = _shard(file)
        if isinstance(shard, tuple):
            wrong.setdefault(shard, []).append(str(file))
        elif found and (shard.event, shard.dtype) != (found[0].event, found[0].dtype):
            what = f"shards whose rows are not {found[0].dtype} of shape {list(found[0].event)}, as the first ones are"
            wrong.setdefault(("size", what), []).append(str(file))
        else:
            found.append(shard)
    findings += [Finding(check, what, tuple(names)) for (check, what), names in wrong.items()]
    if not found:
        raise DataError(f"{folder} holds no .npy files of rows; write rows (N, *event) as parts with numpy.save.")
    return found


def _shard(file: Path) -> Shard | tuple[str, str]:
    """A file's head, or what is wrong with it."""
    formats = np.lib.format
    try:
        with file.open("rb") as stream:
            version = formats.read_magic(stream)
            read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
            shape, column_first, dtype = read(stream)
            offset = stream.tell()
    except (ValueError, OSError, EOFError):
        return "unreadable", "files that are no .npy files"
    if dtype.kind not in "buif" or len(shape) < 2 or column_first:
        return "unreadable", "files that are no arrays of numbers (N, ...) in the order of C"
    if file.stat().st_size - offset != dtype.itemsize * int(np.prod(shape)):
        return "truncated", "shards that hold fewer or more values than they declare"
    return Shard(file, offset, shape[0], tuple(shape[1:]), dtype)

"""Windows of time series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.lab.data.arrays import read_arrays
from lowerbound.lab.data.assemble import located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.data.splits import NAMES, Share
from lowerbound.lab.data.table import read_columns
from lowerbound.model.spec import Count, DataSpec


def series(
    data_dir: Path | None,
    *,
    path: str,
    length: Count = 64,
    stride: Count = 1,
    columns: list[str] = [],  # noqa: B006
    validation: Share = 0.1,
    test: Share = 0.1,
) -> Dataset:
    """Windows (D, length) of a series of D values per time; the first part is for training, the last for testing.

    The series is cut into parts before it is cut into windows, so that no window reaches over two parts.

    Args:
        data_dir: where a relative path starts.
        path: .npy of (T,) or (T, D), or .csv or .parquet with one row per time.
        length: times in a window.
        stride: times between the beginnings of windows.
        columns: of a table: which are the values; by default all that are numbers.
        validation, test: shares of the times.
    """
    file = located(path, data_dir)
    values = _values(file, columns)
    count = len(values)
    last, middle = count - int(count * test + 0.5), int(count * validation + 0.5)
    cuts = {"train": (0, last - middle), "validation": (last - middle, last), "test": (last, count)}
    findings, parts = [], {}
    for name in NAMES:
        start, stop = cuts[name]
        if stop - start < length:
            raise DataError(
                f"{file} has {count:,} times, of which {stop - start:,} are for {name}: too few for a window of "
                f"{length}; give a longer series, a shorter `data.length` or other shares."
            )
        windows = torch.from_numpy(values[start:stop]).unfold(0, length, stride)  # (N, D, length), without a copy
        call = _call(file, start, stride, length)
        parts[name] = InMemory(windows, names=call)
        wrong = (~np.isfinite(values[start:stop])).any(axis=1)
        hit = torch.from_numpy(wrong).unfold(0, length, stride).any(dim=1).nonzero()[:, 0].tolist()
        if hit:
            what = "windows with values that are missing or not finite"
            findings.append(Finding("not-finite", what, tuple(map(call, hit)), tuple(hit), name))
    spec = DataSpec((values.shape[1], length), examples=len(parts["train"]))
    return Dataset(
        "series", spec, parts["train"], parts["validation"], parts["test"], source=file, findings=tuple(findings)
    )


def _call(file: Path, start: int, stride: int, length: int) -> Callable[[int], str]:
    return lambda row: f"{file} times {start + row * stride + 1} to {start + row * stride + length}"


def _values(file: Path, columns: list[str]) -> NDArray[np.float32]:
    """(T, D)."""
    if file.suffix in (".npy", ".npz"):
        found = next(iter(read_arrays(file).values()))
        if found.dtype.kind not in "buif" or found.ndim not in (1, 2) or not found.size:
            raise DataError(f"{file} holds {found.dtype} of shape {list(found.shape)}; a series is (T,) or (T, D).")
        values = found.reshape(len(found), -1)
    else:
        table = read_columns(file)
        missing = [name for name in columns if name not in table]
        if missing:
            raise DataError(f"{file} has no column `{missing[0]}`; its columns are {', '.join(table)}.")
        chosen = {name: table[name] for name in columns or table if columns or table[name].dtype.kind == "f"}
        words = [name for name, column in chosen.items() if column.dtype.kind != "f"]
        if words or not chosen:
            raise DataError(f"{file}: `{words[0] if words else 'every column'}` holds no numbers; a series needs them.")
        values = np.stack(list(chosen.values()), axis=1)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.astype(np.float32))

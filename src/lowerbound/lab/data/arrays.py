"""Arrays of one's own: .npy, .npz and IDX files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.kinds import Part
from lowerbound.lab.data import splits
from lowerbound.lab.data.assemble import as_labels, assemble, by_name, located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.idx import read_idx
from lowerbound.lab.data.labelled import ContextKind
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count

ROWS, LABELS = ("x", "data", "images", "rows"), ("y", "label", "labels", "target")  # names that are looked for


def arrays(
    data_dir: Path | None,
    *,
    path: str,
    key: str | None = None,
    label: str | None = None,
    levels: Count | None = None,
    channels_last: bool = False,
    context: ContextKind = "none",
    vectors: str | None = None,
    split: Part[splits.Split] = Part(splits.at_random),
) -> Dataset:
    """Rows of an array in a .npy or .npz file: (N, D), (N, H, W), (N, C, H, W), or clips (N, C, T, H, W).

    Args:
        data_dir: where a relative path starts.
        path: the file.
        key: name of the rows in a .npz file; by default its only array, or one called x, data, images or rows.
        label: name of the labels in a .npz file; by default y, label, labels or target, where there is one.
        levels: number of integer levels; by default 256 for 8-bit integers, 2 for booleans, none (real) for others.
        channels_last: images are (N, H, W, C).
        context: "label" makes models conditional on the label.
        vectors: name of an array (N, C) in a .npz file that models are conditional on instead, such as embeddings of
            texts; rows with a NaN in it have no context.
        split: how rows are divided; other arrays of a .npz file can be named.
    """
    file = located(path, data_dir)
    found = read_arrays(file)
    name = _choose(found, key, ROWS, file)
    rows = found.pop(name)
    chosen = _named(found, label, LABELS, file)
    given = None if vectors is None else _vectors(found, vectors, len(rows), file)
    of_rows = {other: values for other, values in found.items() if values.shape == (len(rows),)}
    if chosen is not None and chosen not in of_rows:
        raise DataError(f"{file}: `{chosen}` has shape {list(found[chosen].shape)}; labels are one for each row.")
    values = of_rows | ({"label": of_rows[chosen]} if chosen else {})
    labels = as_labels(of_rows[chosen], f"{file}: `{chosen}`") if chosen else None
    raw, levels, findings = as_rows(rows, levels, channels_last, file)
    return assemble(
        "arrays",
        raw,
        split(len(raw), by_name(values)),
        levels=levels,
        labels=labels,
        context=context,
        vectors=given,
        names=lambda row: f"{file} row {row + 1}",
        source=file,
        findings=findings,
    )


def _vectors(found: dict[str, NDArray[Any]], name: str, rows: int, file: Path) -> Tensor:
    """What rows are conditioned on, (N, C).

    Raises:
        DataError: there is no such array, it is of another shape, or it holds infinities.
    """
    values = found.get(name)
    if values is None:
        raise DataError(f"{file} has no array `{name}`; it has {', '.join(sorted(found)) or 'no other'}.")
    if values.ndim != 2 or len(values) != rows or values.dtype.kind not in "buif":
        raise DataError(f"{file}: `{name}` has shape {list(values.shape)}; vectors are numbers of shape [{rows}, C].")
    if np.isinf(values.astype(np.float64)).any():
        raise DataError(f"{file}: `{name}` holds infinities; write numbers, or NaN where a row has no context.")
    return torch.from_numpy(values.astype(np.float32))


def idx(
    data_dir: Path | None,
    *,
    path: str,
    label: str | None = None,
    context: ContextKind = "none",
    split: Part[splits.Split] = Part(splits.at_random),
) -> Dataset:
    """Rows of an IDX file of unsigned bytes, gzipped or not: images (N, H, W), or arrays of another shape.

    Args:
        data_dir: where relative paths start.
        path: the file of rows.
        label: the file of labels.
        context: "label" makes models conditional on the label.
        split: how rows are divided.
    """
    file = located(path, data_dir)
    raw, levels, findings = as_rows(read_idx(file).numpy(), 256, False, file)
    labels = None
    if label is not None:
        labels = read_idx(located(label, data_dir)).long()
        if labels.shape != (len(raw),):
            raise DataError(f"{label} has shape {list(labels.shape)}; {file} needs {len(raw):,} labels, one a row.")
    return assemble(
        "idx",
        raw,
        split(len(raw), by_name({} if labels is None else {"label": labels.numpy()})),
        levels=levels,
        labels=labels,
        context=context,
        names=lambda row: f"{file} row {row + 1}",
        source=file,
        findings=findings,
    )


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name, or the one of a .npy file under ""; nothing in the file is executed.

    Raises:
        DataError: the file is missing or damaged, or holds objects.
    """
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"": found}
            return {name: np.asarray(found[name]) for name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; put it there, or say with --data-dir where it is.") from None
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy's own words would advise to load pickles.
        reason = "it holds objects, or is something else" if "pickle" in str(error) else str(error)
        raise DataError(f"{path} is no whole .npy or .npz file of numbers ({reason}); write it again.") from None


def as_rows(
    rows: NDArray[Any], levels: int | None, channels_last: bool, file: Path
) -> tuple[Tensor, int | None, list[Finding]]:
    """An array as raw rows with a channel axis, their levels, and the rows that hold values that are not finite.

    Raises:
        DataError: it holds no numbers or no rows, or is of a shape that no row has.
    """
    if rows.dtype.kind not in "buif" or rows.ndim == 0 or not rows.size:
        raise DataError(
            f"{file} holds an array of {rows.dtype} and shape {list(rows.shape)}; rows are numbers, "
            "and there is at least one."
        )
    if channels_last and rows.ndim == 4:
        rows = np.moveaxis(rows, -1, 1)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim == 3:
        rows = rows[:, None]
    if rows.dtype == np.bool_:
        rows, levels = rows.astype(np.uint8), levels or 2
    elif rows.dtype == np.uint8:
        rows, levels = np.ascontiguousarray(rows), levels or 256
    elif rows.dtype.kind in "iu" and levels is not None:
        rows = rows.astype(np.int64)
    else:
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32)
    places = np.flatnonzero(~_finite(rows)).tolist() if rows.dtype.kind == "f" else []
    names = tuple(f"{file} row {place + 1}" for place in places)
    findings = [Finding("not-finite", "rows with values that are not finite", names, tuple(places))] if places else []
    return torch.from_numpy(np.ascontiguousarray(rows)), levels, findings


def _finite(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,): whether all values of a row are finite, a block of rows at a time."""
    block = max(1, 2**22 // max(rows[0].size, 1))
    parts = [np.isfinite(rows[start : start + block]) for start in range(0, len(rows), block)]
    return np.concatenate([part.reshape(len(part), -1).all(axis=1) for part in parts])


def _choose(found: dict[str, NDArray[Any]], key: str | None, usual: tuple[str, ...], file: Path) -> str:
    name = _named(found, key, usual, file)
    if name is None and len(found) == 1:
        name = next(iter(found))
    if name is None:
        raise DataError(
            f"{file} holds {', '.join(found) or 'nothing'}; say with `data.key` which of them are the rows."
        )
    return name


def _named(found: dict[str, NDArray[Any]], key: str | None, usual: tuple[str, ...], file: Path) -> str | None:
    if key is not None and key not in found:
        raise DataError(f"{file} has no array `{key}`; it has {', '.join(found) or 'one without a name'}.")
    return key or next((name for name in found if name.lower() in usual), None)

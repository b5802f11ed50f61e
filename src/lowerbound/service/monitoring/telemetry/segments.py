"""History as Parquet files: one for a range of rows, written once, readable by anything that reads Parquet."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowerbound.extras import need
from lowerbound.files import replacing, sha256
from lowerbound.service.monitoring.telemetry.database import LABELS, NUMBERS, VECTORS
from lowerbound.service.monitoring.telemetry.vectors import unpack

FOLDER = "segments"
PLAIN = ("id", "time", "request", "row", *LABELS, *NUMBERS)
SELECT = f"""SELECT f.id, f.time, f.request, f.row, {", ".join(f"s.{name}" for name in LABELS)},
    {", ".join(f"f.{name}" for name in (*NUMBERS, "digest", *VECTORS))}, i.content
    FROM facts f JOIN series s ON s.id = f.series LEFT JOIN inputs i ON i.fact = f.id"""
COLUMNS = (*PLAIN, "digest", *VECTORS, "input")


@dataclass(frozen=True)
class Segment:
    """One file of history.

    Attributes:
        file: its name in the folder `segments`.
        first, last: ids of its rows.
        since, until: their earliest and latest times.
        rows, bytes, sha256: its size and content.
    """

    file: str
    first: int
    last: int
    since: float
    until: float
    rows: int
    bytes: int
    sha256: str


def write_segment(connection: sqlite3.Connection, folder: Path, first: int, last: int) -> Segment | None:
    """Write the rows from `first` to `last` into a file; None if there are none.

    Vectors are lists of single floats (codebook indices of integers) under their own names, inputs what `unpack_input`
    reads.

    Raises:
        UsageError: pyarrow is not installed, or nothing may be written there.
        NotSavedError: the disk is full or failed.
    """
    arrow, parquet = _packages()
    rows = connection.execute(f"{SELECT} WHERE f.id BETWEEN ? AND ? ORDER BY f.id", (first, last)).fetchall()
    if not rows:
        return None
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    arrays = {name: arrow.array(columns[name]) for name in PLAIN}
    for name in NUMBERS:
        arrays[name] = arrow.array(columns[name], arrow.float64())
    for name in ("digest", "input"):
        arrays[name] = arrow.array(columns[name], arrow.binary())
    for name in VECTORS:
        arrays |= _lists(arrow, name, columns[name])
    path = folder / FOLDER / f"{first:015d}-{last:015d}.parquet"
    # Bytes of equal weight side by side: the lower ones of what was half precision are nearly all zero.
    split = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in VECTORS}
    with replacing(path) as draft:
        parquet.write_table(
            arrow.table(arrays), draft, compression="zstd", use_dictionary=list(LABELS), column_encoding=split
        )
    times = columns["time"]
    return Segment(path.name, first, last, min(times), max(times), len(rows), path.stat().st_size, sha256(path))


def _lists(arrow: Any, name: str, blobs: Sequence[bytes | None]) -> dict[str, Any]:
    """A column of vectors, and one of indices beside it where some are integers."""
    reals: list[Any] = [None] * len(blobs)
    whole: list[Any] = [None] * len(blobs)
    for place, blob in enumerate(blobs):
        if blob is not None:
            (whole if blob[:1] in (b"H", b"i") else reals)[place] = unpack([blob], name)[0]
    out = {name: arrow.array(reals, arrow.list_(arrow.float32()))}
    if any(vector is not None for vector in whole):
        out[f"{name}_index"] = arrow.array(whole, arrow.list_(arrow.int32()))
    return out


def read_segment(path: Path, since: float, until: float, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the rows within [since, until), as lists; vectors as arrays or None.

    Raises:
        UsageError: pyarrow is not installed.
        FileNotFoundError: the file expired.
    """
    _, parquet = _packages()
    there = parquet.read_schema(path).names
    extra = [f"{name}_index" for name in columns if f"{name}_index" in there]
    table = parquet.ParquetFile(path).read(columns=[*dict.fromkeys(("time", *columns, *extra))])
    time = table["time"].to_numpy()
    table = table.take(np.flatnonzero((time >= since) & (time < until)))
    out = {name: table[name].to_pylist() for name in columns if name not in VECTORS}
    for name in columns:
        if name in VECTORS:
            out[name] = _vectors(table[name], np.float32)
            if f"{name}_index" in extra:
                whole = _vectors(table[f"{name}_index"], np.int64)
                out[name] = [other if one is None else one for one, other in zip(out[name], whole, strict=True)]
    return out


def _vectors(column: Any, kind: type) -> list[Any]:
    """Each row's vector, as a view of one array, or None."""
    joined = column.combine_chunks()
    values = joined.flatten().to_numpy(zero_copy_only=False).astype(kind)
    there = joined.is_valid().to_numpy(zero_copy_only=False)
    sizes = joined.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    return [values[end - size : end] if ok else None for ok, size, end in zip(there, sizes, ends, strict=True)]


def _packages() -> tuple[Any, Any]:
    what = "history in Parquet"
    return need("pyarrow", "tables", what), need("pyarrow.parquet", "tables", what)

"""Vectors as bytes: one letter that names the type of the numbers, then the numbers, little-endian."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import numpy as np

from lowerbound.errors import DataError
from lowerbound.service.monitoring.telemetry.fact import Array

# Half precision is finer than any statistic of a window; what does not fit it is kept in single.
TYPES = {b"e": "<f2", b"f": "<f4", b"H": "<u2", b"i": "<i4"}
LARGEST_HALF = 65504.0


def pack(vectors: Sequence[Array | None]) -> list[bytes | None]:
    """The bytes of each vector; real numbers become half precision where they fit, integers 16 or 32 bits.

    Raises:
        DataError: something is no vector of numbers.
    """
    try:
        return _pack_alike(vectors)
    except (ValueError, TypeError, AttributeError):  # of several shapes or types, or no arrays
        return [None if vector is None else _pack_one(vector) for vector in vectors]


def _pack_alike(vectors: Sequence[Array | None]) -> list[bytes | None]:
    """All at once, which takes a tenth of the time; they must have one shape and one type."""
    present = [vector for vector in vectors if vector is not None]
    if not present:
        return [None] * len(vectors)
    kind = present[0].dtype
    if any(vector.dtype != kind for vector in present):
        raise TypeError
    letter, numbers = _narrow(np.stack(present).reshape(len(present), -1))
    width = numbers.shape[1] * numbers.dtype.itemsize
    raw = numbers.tobytes()
    parts = iter([letter + raw[start : start + width] for start in range(0, len(raw), width)] if width else [])
    return [None if vector is None else next(parts, letter) for vector in vectors]


def _pack_one(vector: Array) -> bytes:
    array = np.asarray(vector)
    if array.dtype.kind not in "fiub":
        raise DataError(f"a vector of {array.dtype} was given; give real numbers or integers.")
    letter, numbers = _narrow(array.reshape(1, -1))
    return letter + numbers.tobytes()


def _narrow(numbers: Array) -> tuple[bytes, Array]:
    if numbers.dtype.kind == "f":
        fits = not numbers.size or bool(np.nanmax(np.abs(numbers), initial=0.0) <= LARGEST_HALF)
        letter = b"e" if fits else b"f"
    else:
        letter = b"H" if not numbers.size or (numbers.min() >= 0 and numbers.max() < 2**16) else b"i"
    return letter, numbers.astype(TYPES[letter])


def unpack(blobs: Sequence[bytes | None], what: str) -> Array:
    """The vectors (N, D): float32 with rows of NaN where there is none, or int64 with rows of -1; (N, 0) if all absent.

    Args:
        blobs: of each row, as `pack` made them.
        what: is in them, for errors.

    Raises:
        DataError: vectors of several lengths, or real numbers beside integers.
    """
    groups: dict[tuple[bytes, int], list[int]] = {}
    for index, blob in enumerate(blobs):
        if blob is not None:
            size = (len(blob) - 1) // np.dtype(TYPES[blob[:1]]).itemsize
            groups.setdefault((blob[:1], size), []).append(index)
    if not groups:
        return np.zeros((len(blobs), 0), np.float32)
    whole = {letter in (b"H", b"i") for letter, _ in groups}
    sizes = {size for _, size in groups}
    if len(whole) > 1 or len(sizes) > 1:
        raise DataError(f"the rows have {what} of several kinds; ask for one model and one version at a time.")
    shape = (len(blobs), sizes.pop())
    out = np.full(shape, -1, np.int64) if whole.pop() else np.full(shape, np.nan, np.float32)
    for (letter, _), rows in groups.items():
        raw = b"".join([blobs[row][1:] for row in rows])  # type: ignore[index]
        out[rows] = np.frombuffer(raw, TYPES[letter]).reshape(len(rows), -1)
    return out


def pack_input(row: Array) -> bytes:
    """A raw row, compressed, with its type and shape.

    Raises:
        ValueError: it is no array of numbers.
    """
    file = io.BytesIO()
    np.save(file, np.asarray(row), allow_pickle=False)
    return zlib.compress(file.getvalue(), 1)


def unpack_input(content: bytes) -> Array:
    """The raw row that `pack_input` packed."""
    return np.load(io.BytesIO(zlib.decompress(content)), allow_pickle=False)

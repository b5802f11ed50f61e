"""Arrays as bytes: .npy without pickles, and JSON."""

from __future__ import annotations

import ast
import io
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from lowerbound.service.serving.payload import Array
from lowerbound.service.serving.problems import RefusedError

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 4096
DEEPEST = 8


def read_npy(body: bytes) -> Array:
    """The array of a .npy file; nothing in it is executed.

    Raises:
        RefusedError: it is none, or not whole, or not of numbers.
    """
    if body[:6] != MAGIC or len(body) < 12:
        raise RefusedError("bad-array", "The body does not begin as a .npy file does.")
    wide = body[6] != 1
    start = 12 if wide else 10
    length = int.from_bytes(body[8:start], "little")
    if body[6] not in (1, 2) or length > LONGEST_HEADER or start + length > len(body):
        raise RefusedError("bad-array", "The header of the .npy file is damaged.")
    dtype, shape, columns_first = _header(body[start : start + length])
    size = math.prod(shape)
    if len(body) - start - length != size * dtype.itemsize:
        raise RefusedError(
            "bad-array",
            f"The header of the .npy file says {size * dtype.itemsize} bytes; {len(body) - start - length} follow.",
        )
    array = np.frombuffer(body, dtype, size, start + length)
    return array.reshape(shape[::-1]).T if columns_first else array.reshape(shape)


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        found = ast.literal_eval(text.decode("latin1").strip())
        name, shape, columns_first = found["descr"], found["shape"], found["fortran_order"]
        dtype = np.dtype(name) if isinstance(name, str) else np.dtype(object)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise RefusedError("bad-array", "The header of the .npy file is damaged.") from None
    sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    if not sizes or len(shape) > DEEPEST or not isinstance(columns_first, bool):
        raise RefusedError("bad-array", "The header of the .npy file has no shape.")
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise RefusedError(
            "bad-array", f"The .npy file holds values of type {dtype}; numbers of up to 64 bits are read."
        )
    return dtype, shape, columns_first


def write_npy(array: Array) -> bytes:
    """An array as a .npy file."""
    return _written_header(array.dtype.str, array.shape) + array.tobytes()


@lru_cache(maxsize=256)
def _written_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def read_json(body: bytes) -> dict[str, Any]:
    """The object of a JSON text.

    Raises:
        RefusedError: it is none, or says NaN or infinity.
    """
    try:
        found = json.loads(body, parse_constant=_constant)
    except (ValueError, RecursionError):
        raise RefusedError("bad-json", "The body is no JSON text.") from None
    if not isinstance(found, dict):
        raise RefusedError("bad-json", 'The body is no JSON object, such as {"rows": [[...]]}.')
    return found


def _constant(name: str) -> NoReturn:
    raise RefusedError("not-finite", f"The body holds {name}; numbers must be finite.")


def to_array(value: Any, name: str) -> Array:
    """Nested lists of numbers as an array.

    Raises:
        RefusedError: they are none, or ragged.
    """
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise RefusedError("bad-json", f"`{name}` is no array: its lists differ in length or depth.") from None
    if array.dtype.kind not in "buif" or array.ndim > DEEPEST:
        raise RefusedError("bad-json", f"`{name}` is no array of numbers.")
    return array


def to_json(values: Mapping[str, Any]) -> bytes:
    """Arrays by name as a JSON object; what is not finite is null."""
    return json.dumps({name: _listed(value) for name, value in values.items()}, allow_nan=False).encode()


def _listed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        known = value.astype(object)
        known[~np.isfinite(value)] = None
        return known.tolist()
    return value.tolist()

"""The IDX format of the MNIST files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowerbound.errors import DataError

_BYTES = 0x08  # the type code of unsigned bytes, the only one in use


def read_idx(path: Path) -> Tensor:
    """An IDX file of unsigned bytes, gzipped or not, as a uint8 tensor of the shape that it declares.

    Raises:
        DataError: the file is missing, truncated, or no IDX file of bytes.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; put it there, or say with --data-dir where it is.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _BYTES:
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes (it starts with {content[:4].hex() or 'nothing'})."
        )
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else ()
    expected = math.prod(shape)
    if not shape or len(content) - start != expected:
        raise DataError(
            f"{path} declares {expected:,} values of shape {list(shape)} and holds {max(len(content) - start, 0):,}; "
            "it is truncated or damaged, fetch it again."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())

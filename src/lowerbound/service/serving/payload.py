"""Arrays by name: what requests bring and engines compute."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]

CODE, DIRECTION = "code:", "direction:"  # before the name of a group, in the names of what a client gave


def finite(array: Array) -> bool:
    """Whether all values are finite numbers."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())

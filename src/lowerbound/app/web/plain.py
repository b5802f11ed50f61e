"""Numbers as JSON that browsers read: no NaN, and no more digits than can be seen."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

DIGITS = 5  # that are significant in a chart


def numbers(values: Any) -> list[float | int | bool | None]:
    """An array (N,) as a list; None where there is no finite number."""
    return [_number(value) for value in np.asarray(values).tolist()]


def text(value: Any) -> str:
    """JSON without NaN, which is null."""
    return json.dumps(_clean(value), separators=(",", ":"), allow_nan=False)


def _number(value: Any) -> float | int | bool | None:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, (list, tuple)) else value

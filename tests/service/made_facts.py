"""Facts for the tests of what watches."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowerbound.service.monitoring.telemetry.fact import Fact

UNITS = 8
NOW = 1_750_000_000.0


def fact(index: int, **changes: Any) -> Fact:
    """The fact number `index`: one a second, all numbers functions of the index."""
    code = np.linspace(-1, 1, UNITS, dtype=np.float32) * (1 + index % 7)
    values: dict[str, Any] = {
        "time": NOW + index,
        "request": f"request-{index}",
        "model": "digits",
        "version": "abc",
        "alias": "stable",
        "verb": "encode",
        "gate": "passed",
        "error": 0.01 * (1 + index % 3),
        "rate": 10.0 + index % 5,
        "rates": np.abs(code),
        "code": code,
        "norm": 3.0,
        "p_value": 0.5,
        "queue_s": 0.001,
        "compute_s": 0.002,
        "total_s": 0.004,
    }
    return Fact(**values | changes)

"""From requests and their outputs to facts: one for each row."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lowerbound.service.monitoring.telemetry.fact import IDLE, Fact
from lowerbound.service.serving.contract import Contract
from lowerbound.service.serving.exchange import Request
from lowerbound.service.serving.payload import Array, Arrays
from lowerbound.service.serving.settings import VERBS

Keep = Callable[[Fact], object]  # takes a fact; it neither waits nor raises
NUMBERS = ("error", "rate", "norm", "p_value")
VECTORS = ("rates", "variances")
NAMES = frozenset({*VERBS, IDLE})


def facts_of(
    request: Request, outputs: Arrays, status: int, reason: str, total_s: float | None, *, inputs: bool
) -> list[Fact]:
    """The facts of a request: one for each row that something is known of, else one.

    Args:
        request: that was answered or refused; one that the gate refused has only the row that it was refused for.
        outputs: of the engine, a row for each of the request's.
        status: of the answer.
        reason: stable code of what was wrong; empty if nothing was.
        total_s: from the request's head to its answer; None where there was none, and no other times either.
        inputs: whether the rows themselves are wanted.
    """
    deployment, now = request.deployment, time.time()
    contract = None if deployment is None else deployment.contract
    known = {} if contract is None else known_of(outputs, contract)
    if contract is not None and (known or request.blamed):
        if request.pixels:
            known["pixels"] = np.array(request.pixels, np.float32)
        if inputs:
            known["input"] = _as_stored(request.arrays["rows"], contract)
    version = None if deployment is None else deployment.version
    return [
        Fact(
            now,
            request.id,
            "" if version is None else version.name,
            "" if version is None else version.hash,
            "" if deployment is None else deployment.alias,
            request.verb if request.verb in NAMES else "",
            status,
            reason,
            request.gate,
            request.row + index,
            queue_s=None if total_s is None else request.queue_s,
            compute_s=None if total_s is None else request.compute_s,
            total_s=total_s,
            **{name: values[index] for name, values in known.items()},
        )
        for index in range(len(next(iter(known.values()))) if known else 1)
    ]


def known_of(outputs: Arrays, contract: Contract) -> dict[str, Any]:
    """What facts keep of the engine's outputs, by their names for it, a row for each."""
    found: dict[str, Any] = {name: outputs[name].tolist() for name in NUMBERS if name in outputs}
    found |= {name: outputs[name] for name in VECTORS if name in outputs}
    code = _code(outputs, contract)
    return found if code is None else {**found, "code": code}


def _code(outputs: Arrays, contract: Contract) -> Array | None:
    """The code of each row, (B, D): points of all continuous groups side by side, or indices where there are none."""
    there = [name for name in contract.latents if name in outputs]
    groups = [name for name in there if name not in contract.values] or there
    codes = [outputs[name].reshape(len(outputs[name]), -1) for name in groups]
    if not codes:
        return None
    return codes[0] if len(codes) == 1 else np.concatenate(codes, axis=1)


def _as_stored(rows: Array, contract: Contract) -> Array:
    """Rows as data hold them: bytes where values have so few levels."""
    return rows.astype(np.uint8) if contract.levels is not None and contract.levels <= 256 else rows

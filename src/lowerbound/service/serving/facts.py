"""From requests and their outputs to facts: one for each row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import repeat
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
NONE: Iterable[None] = repeat(None)  # a column of what there is none of
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
    verb = request.verb if request.verb in NAMES else ""
    queue_s, compute_s = (None, None) if total_s is None else (request.queue_s, request.compute_s)
    if deployment is None:
        return [Fact(now, request.id, "", verb=verb, status=status, reason=reason, queue_s=queue_s, total_s=total_s)]
    contract, version = deployment.contract, deployment.version
    known = known_of(outputs, contract)
    seen = "code" in known or request.blamed  # whether rows of the outputs are rows of the request
    rows = request.rows if seen else 1
    # By place and not by name: this is done for each request, on its time.
    values = zip(
        range(request.row, request.row + rows),
        known.get("error", NONE),
        known.get("rate", NONE),
        known.get("rates", NONE),
        known.get("code", NONE),
        known.get("variances", NONE),
        np.array(request.pixels, np.float32) if seen and request.pixels else NONE,
        known.get("norm", NONE),
        known.get("p_value", NONE),
        _as_stored(request.arrays["rows"], contract) if seen and inputs else NONE,
        strict=False,
    )
    head = (now, request.id, version.name, version.hash, deployment.alias, verb, status, reason, request.gate)
    make: Callable[..., Fact] = Fact
    return [make(*head, *row, queue_s, compute_s, total_s) for row in values]


def known_of(outputs: Arrays, contract: Contract) -> dict[str, Any]:
    """What facts keep of the engine's outputs, by their names for it, a row for each."""
    found: dict[str, Any] = {name: outputs[name].tolist() for name in NUMBERS if name in outputs}
    found |= {name: outputs[name] for name in VECTORS if name in outputs}
    code = _code(outputs, contract)
    return found if code is None else {**found, "code": code}


def _code(outputs: Arrays, contract: Contract) -> Array | None:
    """The code of each row, (B, D): points of all continuous groups side by side, or indices where there are none."""
    codes = [outputs[name].reshape(len(outputs[name]), -1) for name in contract.coded if name in outputs]
    if not codes:
        return None
    return codes[0] if len(codes) == 1 else np.concatenate(codes, axis=1)


def _as_stored(rows: Array, contract: Contract) -> Array:
    """Rows as data hold them: bytes where values have so few levels."""
    return rows.astype(np.uint8) if contract.levels is not None and contract.levels <= 256 else rows

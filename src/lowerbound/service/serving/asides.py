"""Rows that one version answered are scored by others too, in idle moments; each scoring is a fact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lowerbound.service.monitoring.telemetry.fact import IDLE
from lowerbound.service.serving.batcher import ASIDE_ROWS
from lowerbound.service.serving.deployment import Deployment
from lowerbound.service.serving.exchange import Request, Response
from lowerbound.service.serving.facts import Keep, facts_of
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.problems import RefusedError

SCORED = frozenset({"encode", "reconstruct", "score"})  # verbs whose rows have an error
FAILED = frozenset({"engine-failed", "engine-not-finite"})
Compute = Callable[[Request], "asyncio.Future[Response] | None"]


@dataclass(frozen=True)
class Served:
    """The versions behind one name; it is never changed, only replaced.

    Attributes:
        stable: answers.
        canary: answers a share of the clients instead.
        shadow: answers nobody, and scores what others answer.
    """

    stable: Deployment
    canary: Deployment | None = None
    shadow: Deployment | None = None

    @property
    def lanes(self) -> dict[str, Deployment]:
        """Those that there are, by their place."""
        every = {"stable": self.stable, "canary": self.canary, "shadow": self.shadow}
        return {place: found for place, found in every.items() if found is not None}


@dataclass(frozen=True)
class Shares:
    """How much is scored aside.

    Attributes:
        shadow: share of the requests that a shadow scores too, in [0, 1].
        encode: share of `encode` that is scored too where there is no candidate, in [0, 1].
    """

    shadow: float = 1.0
    encode: float = 0.0


class Asides:
    """Lets versions score rows, as far as there is time.

    Args:
        compute: in an idle moment; None where it was dropped.
        keep: takes the facts.
        shares: of requests.
    """

    def __init__(self, compute: Compute, keep: Keep, shares: Shares) -> None:
        self._compute, self._keep, self._shares = compute, keep, shares

    def take(self, request: Request, outputs: Arrays, served: Served) -> None:
        """Let the versions that are compared score a request's rows, but for one whose answer has the error already."""
        if request.verb not in SCORED:
            return
        for deployment in self._compared(request, served):
            if deployment is not request.deployment or "error" not in outputs:
                self._score(request, deployment, ASIDE_ROWS)

    def _compared(self, request: Request, served: Served) -> list[Deployment]:
        """The versions whose errors are wanted, the stable one first; none where there is nothing to compare."""
        found = [served.stable]
        if served.canary is not None and request.deployment is served.canary:
            found.append(served.canary)
        if served.shadow is not None and _chosen(self._shares.shadow):
            found.append(served.shadow)
        if len(found) > 1 or (request.verb == "encode" and _chosen(self._shares.encode)):
            return found
        return []

    def _score(self, request: Request, deployment: Deployment, most: int) -> None:
        """Ask for some rows at a time."""
        for start in range(0, request.rows, most):
            arrays = {name: array[start : start + most] for name, array in request.arrays.items()}
            asked = Request(
                request.model,
                IDLE,
                request.id,
                arrays=arrays,
                deployment=deployment,
                operation="facts",
                row=request.row + start,
            )
            future = self._compute(asked)
            if future is not None:
                future.add_done_callback(partial(self._note, asked))

    def _note(self, asked: Request, done: asyncio.Future[Response]) -> None:
        """The facts of some rows; where they failed together, each is asked again by itself."""
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            facts = facts_of(asked, done.result().outputs, 200, "", None, inputs=False)
        elif asked.rows > 1:
            self._score(asked, asked.assigned, 1)
            return
        else:
            code = error.code if isinstance(error, RefusedError) else "internal"
            facts = facts_of(asked, {}, 500, code, None, inputs=False)
        for fact in facts:
            self._keep(fact)


def _chosen(share: float) -> bool:
    return share >= 1 or (share > 0 and random.random() < share)

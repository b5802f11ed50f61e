"""The recorder: facts of each request, whatever becomes of it, and the numbers and alerts made of them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from lowerbound.service.monitoring.alerts import ALERTS
from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.facts import Keep, facts_of
from lowerbound.service.serving.metrics import Metrics
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.settings import VERBS

logger = logging.getLogger("lowerbound.serving")


class Recorder:
    """The outermost link.

    Args:
        rest: the links behind it.
        keep: takes facts; None where none are wanted.
        inputs: whether facts hold the rows themselves.
        metrics: where they are counted.
        watch: looks at latencies.
    """

    def __init__(self, rest: Link, keep: Keep | None, inputs: bool, metrics: Metrics, watch: LatencyWatch) -> None:
        self._rest, self._keep, self._inputs, self._metrics, self._watch = rest, keep, inputs, metrics, watch

    async def __call__(self, request: Request) -> Response:
        """The answer of the rest.

        Raises:
            RefusedError: whatever goes wrong becomes one.
        """
        start = time.perf_counter()
        try:
            response = await self._rest(request)
        except RefusedError as refused:
            self._note(request, start, refused, request.found)
            raise
        except Exception as error:
            logger.exception("request %s failed in a way that was not foreseen", request.id)
            unforeseen = RefusedError("internal", "The server failed in a way that was not foreseen; it was logged.")
            self._note(request, start, unforeseen, {})
            raise unforeseen from error
        if response.frames is None:
            self._note(request, start, None, response.outputs)
        else:
            response.frames = self._followed(request, start, response.frames)
        return response

    async def _followed(self, request: Request, start: float, frames: AsyncIterator[Arrays]) -> AsyncIterator[Arrays]:
        """The frames; the fact is noted when the last one is there, or one is refused."""
        ended: RefusedError | None = RefusedError("client-gone", "The client went away.")
        try:
            async for frame in frames:
                yield frame
            ended = None
        except RefusedError as refused:
            ended = refused
            raise
        finally:
            self._note(request, start, ended, {})

    def _note(self, request: Request, start: float, refused: RefusedError | None, outputs: Arrays) -> None:
        total = time.perf_counter() - start
        status, reason = (200, "") if refused is None else (refused.status, refused.code)
        if self._keep is not None:
            for fact in facts_of(request, outputs, status, reason, total, inputs=self._inputs):
                self._keep(fact)
        deployment = request.deployment
        model, version = ("", "") if deployment is None else (deployment.name, deployment.label)
        verb = request.verb if request.verb in VERBS else ""
        self._metrics.request(
            (model, version, verb, reason), (total, request.queue_s, request.decode_s, request.compute_s)
        )
        if refused is None:
            self._watch.note(total, request.queue_s, request.decode_s, request.compute_s)


@dataclass
class LatencyWatch:
    """Looks at the 99th percentile of latencies, window by window, and alerts when it stays over its limit.

    Attributes:
        limit_s: of the 99th percentile.
        window_s: how long a window is.
        windows: over the limit in a row that make an alert.
        least: answers that a window needs to count.
    """

    limit_s: float = 0.05
    window_s: float = 10.0
    windows: int = 3
    least: int = 100

    def __post_init__(self) -> None:
        self._times: list[tuple[float, float, float, float]] = []
        self._until = time.monotonic() + self.window_s
        self._over = 0
        self.alerting = False

    def note(self, total: float, queue: float, decode: float, compute: float) -> None:
        """Look at one answer."""
        self._times.append((total, queue, decode, compute))

    def look(self) -> None:
        """End the window where it is over; called every second or so."""
        if time.monotonic() < self._until:
            return
        self._until = time.monotonic() + self.window_s
        times, self._times = self._times, []
        if len(times) < self.least:
            return
        found = np.array(times)
        p99 = float(np.quantile(found[:, 0], 0.99))
        self._over = self._over + 1 if p99 > self.limit_s else 0
        if self._over >= self.windows:
            slow = found[found[:, 0] >= p99].mean(axis=0)
            self.alerting = True
            logger.warning(
                "slow-answers: p99 is %.1f ms, over its limit of %.1f ms for %d windows; %s; see %s",
                *(1000 * p99, 1000 * self.limit_s, self._over, _advice(*slow.tolist()), ALERTS["slow-answers"].page),
            )
        elif self.alerting and not self._over:
            self.alerting = False
            logger.info("p99 is %.1f ms, within its limit again", 1000 * p99)


def _advice(total: float, queue: float, decode: float, compute: float) -> str:
    """What to do about slow answers, by where their time went."""
    parts = {"queue": queue, "decode": decode, "compute": compute, "rest": total - queue - decode - compute}
    most = max(parts, key=lambda name: parts[name])
    todo = {
        "queue": "requests wait for the engine: add workers or machines",
        "decode": "reading the bodies takes longest: send arrays or smaller pictures",
        "compute": "the model takes longest: serve it with onnxruntime, or train one with a smaller decoder",
        "rest": "the time goes before or after the engine: the process or its machine is overloaded, so add workers",
    }
    return f"{todo[most]} ({', '.join(f'{name} {1000 * value:.1f} ms' for name, value in parts.items())})"

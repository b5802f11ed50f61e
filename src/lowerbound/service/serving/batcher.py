"""Requests of one kind are computed together, whatever is waiting when the engine is free: nobody waits for others.

It knows the shapes of arrays and nothing of models. One thread computes. Queues are bounded, deadlines hold, and a
request that cannot be computed fails alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from lowerbound.service.serving.exchange import Request, Response
from lowerbound.service.serving.payload import Arrays, finite
from lowerbound.service.serving.problems import RefusedError, busy

Run = Callable[[Request, Arrays], Arrays]  # computes rows of requests like this one; called in the engine's thread

ALONE = frozenset({"interpolate", "traverse", "edit"})  # whose outputs have a row for every frame
OWN = ALONE | {"sample", "decode"}  # where clients choose the codes
ASIDE_ROWS = 16  # of a batch that nobody waits for: what comes meanwhile waits for the end of it
PACE = 0.1  # weight of the newest batch in the mean time per row
logger = logging.getLogger("lowerbound.serving")


@dataclass(slots=True, eq=False)
class _Item:
    """A request that waits."""

    request: Request
    key: Hashable
    rows: int
    future: asyncio.Future[Response]
    entered: float
    aside: bool = False
    answer: Response | RefusedError | None = None


class Batcher:
    """A link that computes what is asked, together with what is like it.

    Args:
        run: computes.
        most_rows: of one batch.
        most_waiting: rows that may wait; more are refused with the time after which to come back.
        stuck_s: after which a computation counts as stuck.
        most_aside: rows that may wait for an idle moment; more are dropped and counted.

    Attributes:
        sizes: rows of the batches since it was last read, for metrics.
        aside_rows: that wait for an idle moment.
        aside_dropped: rows that did not get one.
    """

    def __init__(
        self, run: Run, most_rows: int = 64, most_waiting: int = 2048, stuck_s: float = 60.0, most_aside: int = 512
    ) -> None:
        self._run, self.most_rows, self.most_waiting, self.stuck_s = run, most_rows, most_waiting, stuck_s
        self._most_aside = most_aside
        self.aside_rows = self.aside_dropped = 0
        self._idle: dict[Hashable, deque[_Item]] = {}
        self._arrivals: SimpleQueue[list[_Item] | None] = SimpleQueue()
        self._fresh: list[_Item] = []
        self._pending: dict[Hashable, deque[_Item]] = {}
        self._loop = asyncio.get_running_loop()
        self._busy_since: float | None = None
        self._number = 0
        self.waiting = 0
        self.pace_s = 0.0
        self.sizes: deque[int] = deque(maxlen=10_000)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def __call__(self, request: Request) -> Response:
        """The outputs of a request's rows.

        Raises:
            RefusedError: too much is waiting, the deadline passed, the client went away, or it could not be computed.
        """
        rows, now = request.rows, time.monotonic()
        self._admit(request, rows, now)
        self.waiting += rows
        return await self._enter(_Item(request, _kind(request), rows, self._loop.create_future(), now))

    def aside(self, request: Request) -> asyncio.Future[Response] | None:
        """The outputs of a request that nobody waits for, computed in an idle moment; None if it was dropped."""
        rows = request.rows
        if self.aside_rows + rows > self._most_aside:
            self.aside_dropped += rows
            return None
        self.aside_rows += rows
        return self._enter(
            _Item(request, _kind(request), rows, self._loop.create_future(), time.monotonic(), aside=True)
        )

    def _enter(self, item: _Item) -> asyncio.Future[Response]:
        if not self._fresh:
            self._loop.call_soon(self._hand_over)
        self._fresh.append(item)
        return item.future

    def _hand_over(self) -> None:
        """Give the engine's thread all that came in this turn of the loop: waking it for each would cost more."""
        self._arrivals.put(self._fresh)
        self._fresh = []

    @property
    def alive(self) -> bool:
        """Whether its thread lives and is not stuck."""
        since = self._busy_since
        return self._thread.is_alive() and (since is None or time.monotonic() - since < self.stuck_s)

    def close(self) -> None:
        """Let the thread end when it has done what waits."""
        self._arrivals.put(None)

    def _admit(self, request: Request, rows: int, now: float) -> None:
        wait = self.waiting * self.pace_s
        if self.waiting and self.waiting + rows > self.most_waiting:
            raise busy("overloaded", f"{self.waiting:,} rows are waiting; at most {self.most_waiting:,} may.", wait)
        left = request.deadline - now
        if wait > 0.5 * left:
            raise busy("overloaded", f"The wait would be {wait:.2f} s, and the deadline is in {left:.2f} s.", wait)

    # ------------------------------------------------------------------------------------- in the engine's thread

    def _work(self) -> None:
        while self._take():
            batch = self._next()
            self._busy_since = time.monotonic()
            self._answer(batch)
            self._busy_since = None
            self._loop.call_soon_threadsafe(self._deliver, batch)

    def _take(self) -> bool:
        """Take in all that has come; wait for something where there is nothing. False at the end."""
        try:
            items = self._arrivals.get(block=not (self._pending or self._idle))
            while items is not None:
                for item in items:
                    (self._idle if item.aside else self._pending).setdefault(item.key, deque()).append(item)
                items = self._arrivals.get_nowait()
        except Empty:
            return True
        return False

    def _next(self) -> list[_Item]:
        """The items to compute now: those of the kind of the oldest, up to a number of rows."""
        queues, most = (self._pending, self.most_rows) if self._pending else (self._idle, ASIDE_ROWS)
        key = min(queues, key=lambda found: queues[found][0].entered)
        waiting, batch = queues[key], [queues[key].popleft()]
        rows = batch[0].rows
        while waiting and rows + waiting[0].rows <= most:
            rows += waiting[0].rows
            batch.append(waiting.popleft())
        if not waiting:
            del queues[key]
        return batch

    def _answer(self, batch: list[_Item]) -> None:
        """Give every item its answer."""
        start = time.monotonic()
        live = [item for item in batch if not _settled(item, start)]
        if not live:
            return
        self._number += 1
        self._compute(live)
        took, rows = time.monotonic() - start, sum(item.rows for item in live)
        self.pace_s += PACE * (took / rows - self.pace_s) if self.pace_s else took / rows
        self.sizes.append(rows)
        for item in live:
            item.request.queue_s += start - item.entered
            item.request.compute_s += took
            item.request.batch = self._number

    def _compute(self, items: Sequence[_Item]) -> None:
        """Compute items together; where that fails, in halves, until what fails is alone."""
        try:
            outputs = self._outputs(items)
        except Exception as error:  # whatever an engine raises is an answer to those that asked
            if len(items) > 1:
                middle = len(items) // 2
                self._compute(items[:middle])
                self._compute(items[middle:])
                return
            if not isinstance(error, RefusedError):
                logger.error("the engine failed: %s: %s", type(error).__name__, error)
                error = RefusedError("engine-failed", "The engine failed at this request alone; others were served.")
            items[0].answer = error
            return
        clean = all(map(finite, outputs.values()))
        if len(items) == 1:
            items[0].answer = Response(outputs) if clean else _not_finite(items[0].request)
            return
        at = 0
        for item in items:
            own = {name: array[at : at + item.rows] for name, array in outputs.items()}
            at += item.rows
            item.answer = Response(own) if clean or all(map(finite, own.values())) else _not_finite(item.request)

    def _outputs(self, items: Sequence[_Item]) -> Arrays:
        """Outputs of all rows of items, which fit into one batch or are of one item."""
        first = items[0].request
        if len(items) > 1:
            arrays = {name: np.concatenate([item.request.arrays[name] for item in items]) for name in first.arrays}
            return self._run(first, arrays)
        if items[0].rows <= self.most_rows or first.operation in ALONE:
            return self._run(first, first.arrays)
        parts = []
        for start in range(0, items[0].rows, self.most_rows):
            piece = {name: array[start : start + self.most_rows] for name, array in first.arrays.items()}
            parts.append(self._run(first, piece))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    # -------------------------------------------------------------------------------------------- in the loop again

    def _deliver(self, batch: list[_Item]) -> None:
        for item in batch:
            if item.aside:
                self.aside_rows -= item.rows
            else:
                self.waiting -= item.rows
            if item.future.done():
                continue
            if isinstance(item.answer, RefusedError):
                item.future.set_exception(item.answer)
            elif item.answer is not None:
                item.future.set_result(item.answer)


def _kind(request: Request) -> Hashable:
    """Requests of one kind can be computed together: of one deployment, so that versions are never mixed."""
    if request.operation in ALONE:
        return id(request)
    shapes = tuple((name, array.shape[1:], array.dtype.num) for name, array in request.arrays.items())
    return (id(request.deployment), request.operation, request.settings, shapes)


def _settled(item: _Item, now: float) -> bool:
    """Whether nobody needs the answer any more."""
    if item.future.done() or item.request.gone():
        item.answer = RefusedError("client-gone", "The client went away.")
    elif now > item.request.deadline:
        item.answer = RefusedError("deadline-passed", f"It waited {now - item.entered:.2f} s, until its deadline.")
    return item.answer is not None


def _not_finite(request: Request) -> RefusedError:
    if request.operation in OWN:
        return RefusedError("not-finite-answer", "The model has no finite answer to these codes; choose smaller ones.")
    logger.error("the engine gave no finite answer: %s of %s, request %s", request.operation, request.model, request.id)
    return RefusedError("engine-not-finite", "The engine gave no finite answer for a row of this request.")

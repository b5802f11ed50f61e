"""From verbs to operations of the engine: a link in front of the batcher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np

from lowerbound.noise import derive_seed
from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.settings import MOST_ROWS, NONE

WHOLE = {"encode": "encode", "reconstruct": "facts", "score": "facts", "decode": "decode"}


class Verbs:
    """Translates each verb into one operation, or into one that gives codes and a decoding for every frame of them.

    Args:
        rest: computes operations.
    """

    def __init__(self, rest: Link) -> None:
        self._rest = rest

    async def __call__(self, request: Request) -> Response:
        """The answer to a verb."""
        request.operation = WHOLE.get(request.verb, request.verb)
        if request.verb in WHOLE:
            request.settings = NONE
            return await self._rest(request)
        if request.verb == "sample":
            return await self._sample(request)
        return await self._frames(request)

    async def _sample(self, request: Request) -> Response:
        settings = request.settings
        seeds = [derive_seed(settings.seed, "row", index) for index in range(settings.count)]
        request.arrays = {"seeds": np.array(seeds, np.int64), **request.arrays}
        request.settings = replace(NONE, observe=settings.observe, temperature=settings.temperature)
        return await self._rest(request)

    async def _frames(self, request: Request) -> Response:
        settings = request.settings
        count, lines = {
            "interpolate": (settings.steps, request.rows // 2),
            "edit": (len(settings.strengths), request.rows),
            "traverse": (settings.steps, request.rows),  # of one unit at least; the engine knows how many there are
        }[request.verb]
        if count * lines > MOST_ROWS:
            raise RefusedError("too-many-rows", f"{count} frames of {lines} rows are more than {MOST_ROWS:,} rows.")
        codes = (await self._rest(request)).outputs
        count, lines = next(iter(codes.values())).shape[:2]
        return Response(frames=self._decoded(request, codes, count, lines), count=count)

    async def _decoded(self, request: Request, codes: Arrays, count: int, lines: int) -> AsyncIterator[Arrays]:
        """The frames in order."""
        label = request.arrays.get("label")
        same = {} if label is None else {"label": np.full(lines, label[0], np.int64)}
        for index in range(count):
            frame = {name: np.ascontiguousarray(array[index]) for name, array in codes.items()}
            asked = replace(request, operation="decode", arrays={**frame, **same}, settings=NONE)
            answer = await self._rest(asked)
            request.queue_s, request.compute_s = asked.queue_s, asked.compute_s
            yield answer.outputs

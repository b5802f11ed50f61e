"""The server as one ASGI application, for hosts that bring their own sockets and processes."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile

from lowerbound.errors import LowerboundError
from lowerbound.service.serving.door import Receive, Scope, Send
from lowerbound.service.serving.options import Options, Place
from lowerbound.service.serving.worker import Worker

EVERY_S = 1.0


class Hosted:
    """One process's server. It lives from the host's `lifespan.startup` to its `lifespan.shutdown`.

    What `lowerbound serve` has its supervisor for is the host's: sockets, other processes, and replacing one whose
    engine is dead (`alive`).

    Args:
        options: of the server; what is said of sockets and workers is not used.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._worker: Worker | None = None

    @property
    def alive(self) -> bool:
        """Whether it serves and its engine lives."""
        return self._worker is not None and self._worker.batcher.alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            assert self._worker is not None, "the host sends requests before `lifespan.startup`"
            await self._worker.door(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        with tempfile.TemporaryDirectory(prefix="lowerbound-hosted-") as folder:
            worker = Worker(self._options, Place(0, -1, -1, folder))
            try:
                worker.watcher.first()
            except LowerboundError as error:
                worker.rest()
                worker.close()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            worker.start()
            self._worker = worker
            tending = asyncio.create_task(_tend(worker))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tending
            worker.rest()
            worker.close()
            self._worker = None
        await send({"type": "lifespan.shutdown.complete"})


async def _tend(worker: Worker) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        worker.tend()

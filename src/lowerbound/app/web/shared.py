"""Answers that are made once for all who ask within a few seconds, outside of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

MOST = 64  # answers that are kept


class Shared:
    """Answers by question. One thread makes them, so that those who watch do not crowd out those who are served.

    Args:
        make: an answer of a question; called in the thread.
        fresh_s: how long an answer is good for.
    """

    def __init__(self, make: Callable[[Hashable], bytes], fresh_s: float) -> None:
        self._make, self._fresh_s = make, fresh_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._known: dict[Hashable, tuple[float, asyncio.Future[bytes]]] = {}

    def forget(self) -> None:
        """Make all answers anew: something was changed."""
        self._known.clear()

    async def get(self, question: Hashable) -> bytes:
        """The answer; what `make` raises is raised to all who wait for it, and not kept."""
        known = self._known.get(question)
        if known is None or time.monotonic() - known[0] > self._fresh_s:
            made = asyncio.get_running_loop().run_in_executor(self._pool, self._make, question)
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[question] = known = (time.monotonic(), made)
        try:
            return await asyncio.shield(known[1])
        except BaseException:
            if known[1].done() and self._known.get(question) is known:
                del self._known[question]
            raise

"""Who is let in."""

from __future__ import annotations

from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.keys import Keys


class Admission:
    """A link that lets in those who show a key and have not used up its rate, before anything of theirs is read.

    Args:
        rest: the links behind it.
        keys: that are known.
    """

    def __init__(self, rest: Link, keys: Keys) -> None:
        self._rest, self._keys = rest, keys

    async def __call__(self, request: Request) -> Response:
        """The answer of the rest.

        Raises:
            RefusedError: no key, or one too often.
        """
        key = self._keys.check(request.key)
        if key is not None:
            self._keys.spend(key)
        return await self._rest(request)

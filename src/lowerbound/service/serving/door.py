"""The door: HTTP to requests and answers back to HTTP, as one bare ASGI application.

The verbs do not pass through a framework: at thousands of requests per second its routing and validation would cost
more than the model. Everything else goes to the application for people and machines that look after the server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.problems import RefusedError, busy
from lowerbound.service.serving.writing import LINES, gathered, lines, write

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MODELS = "/v1/models/"
PROBLEM = b"application/problem+json"
ROLLBACK = "/rollback"  # the only POST below a model that is no verb: it asks the registry and not the model
MEGABYTE = 2**20
SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:")
logger = logging.getLogger("lowerbound.serving")


@dataclass(frozen=True)
class Limits:
    """What the door lets in.

    Attributes:
        body_bytes: of one body.
        held_bytes: of all bodies that are being read or waited for.
        body_s: for a body to come whole.
        deadline_s: for an answer.
    """

    body_bytes: int = 10 * MEGABYTE
    held_bytes: int = 256 * MEGABYTE
    body_s: float = 10.0
    deadline_s: float = 10.0


class Door:
    """The ASGI application.

    Args:
        chain: answers requests.
        other: answers everything but the verbs.
        limits: of bodies and times.

    Attributes:
        inside: requests that are being answered.
        draining: whether connections are asked to close.
    """

    def __init__(self, chain: Link, other: App, limits: Limits) -> None:
        self._chain, self._other, self._limits = chain, other, limits
        self._prefix, self._number = secrets.token_hex(6), 0
        self._held = 0
        self.inside = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        self.inside += 1
        try:
            if scope["method"] == "POST" and scope["path"].startswith(MODELS) and not scope["path"].endswith(ROLLBACK):
                await self._answer(scope, receive, send)
            else:
                await self._other(scope, receive, send)
        finally:
            self.inside -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, length = self._request(scope)
        body = _Body(self, receive, length)
        request.read = body.read
        request.gone = _gone(receive)
        try:
            response = await self._chain(request)
            if request.form == LINES and response.frames is not None:
                await self._stream(request, response, send)
                return
            start = time.perf_counter()
            whole = response.frames is None
            content = write(request, response) if whole else await gathered(request, response)
            encode_s = time.perf_counter() - start if whole else 0.0
        except RefusedError as refused:
            await self._refuse(request, refused, send, body.whole)
            return
        finally:
            self._held -= body.size
        headers = [
            (b"content-type", request.form.encode()),
            (b"content-length", str(len(content)).encode()),
            *self._headers(request, encode_s),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _request(self, scope: Scope) -> tuple[Request, int | None]:
        """What the head of a request says, and the length of its body."""
        name, _, verb = scope["path"][len(MODELS) :].rpartition("/")
        request = Request(unquote(name), verb, deadline=time.monotonic() + self._limits.deadline_s)
        length = None
        for key, value in scope["headers"]:
            if key == b"content-type":
                kind, _, options = value.decode("latin1").partition(";")
                request.content_type = kind.strip().lower()
                request.boundary = _boundary(options) if options else ""
            elif key == b"accept":
                request.accept = value.decode("latin1")
            elif key == b"content-length":
                length = int(value)  # the parser let only digits through
            elif key == b"authorization":
                request.key = value.decode("latin1").removeprefix("Bearer ")
            elif key == b"x-request-id" and 0 < len(value) <= 64 and SAFE.issuperset(text := value.decode("latin1")):
                request.id = text
            elif key == b"x-sticky-key":
                request.sticky = value.decode("latin1")
            elif key == b"content-digest":
                request.digest = value.decode("latin1")
        if scope["query_string"]:
            request.query = scope["query_string"].decode("latin1")
        if not request.sticky:
            request.sticky = request.key or (scope.get("client") or ("",))[0]
        if not request.id:
            self._number += 1
            request.id = f"{self._prefix}-{self._number:x}"
        return request, length

    def _headers(self, request: Request, encode_s: float) -> list[tuple[bytes, bytes]]:
        """Of every answer: request, version, where the time went; the end of the connection while draining."""
        found = [(b"x-request-id", request.id.encode())]
        if request.deployment is not None:
            found.append((b"x-model-version", request.deployment.label.encode()))
            found.append(
                (
                    b"server-timing",
                    b"queue;dur=%.2f, decode;dur=%.2f, compute;dur=%.2f, encode;dur=%.2f"
                    % (1e3 * request.queue_s, 1e3 * request.decode_s, 1e3 * request.compute_s, 1e3 * encode_s),
                )
            )
        if self.draining:
            found.append((b"connection", b"close"))
        return found

    async def _refuse(self, request: Request, refused: RefusedError, send: Send, whole: bool) -> None:
        content = refused.body(request.id)
        headers = [
            (b"content-type", PROBLEM),
            (b"content-length", str(len(content)).encode()),
            *self._headers(request, 0.0),
            *((name.encode(), value.encode()) for name, value in refused.headers.items()),
        ]
        if not whole and not self.draining:  # what is left of the body is not waited for
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _stream(self, request: Request, response: Response, send: Send) -> None:
        """A sequence in lines. The head waits for the first frame, so that its failure has a status."""
        made = lines(request, response)
        first = await anext(made)
        headers = [(b"content-type", LINES.encode()), *self._headers(request, 0.0)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for line in made:
                if request.gone():
                    break
                await send({"type": "http.response.body", "body": line, "more_body": True})
        except RefusedError as refused:
            last = json.dumps({"error": json.loads(refused.body(request.id))}).encode() + b"\n"
            await send({"type": "http.response.body", "body": last, "more_body": True})
        finally:
            await _close(made)
        await send({"type": "http.response.body", "body": b""})

    def hold(self, size: int) -> None:
        """Count bytes of bodies.

        Raises:
            RefusedError: all bodies together are too large.
        """
        self._held += size
        if self._held > self._limits.held_bytes:
            raise busy("overloaded", "The bodies that are being read are too large together.", 1.0)

    @property
    def limits(self) -> Limits:
        """What is let in."""
        return self._limits


class _Body:
    """The body of one request, read when it is asked for, and never more of it than is allowed.

    Attributes:
        size: bytes that were read.
        whole: whether it came to its end.
    """

    def __init__(self, door: Door, receive: Receive, length: int | None) -> None:
        self._door, self._receive, self._length = door, receive, length
        self.size, self.whole = 0, False

    async def read(self) -> bytes:
        """All of it.

        Raises:
            RefusedError: too large, too slow, or cut off.
        """
        limits = self._door.limits
        if self._length is not None and self._length > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        if _arrived(self._receive):  # most bodies come with their heads, and need no clock
            chunk, more = await self._some()
            if not more:
                return chunk
        else:
            chunk, more = b"", True
        parts = [chunk]
        try:
            async with asyncio.timeout(limits.body_s):
                while more:
                    chunk, more = await self._some()
                    parts.append(chunk)
        except TimeoutError:
            raise RefusedError(
                "slow-body", f"After {limits.body_s:g} s the body was not whole; {self.size:,} bytes came."
            ) from None
        return b"".join(parts)

    async def _some(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise RefusedError("incomplete-body", "The client went away before its body was whole.")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        self.size += len(chunk)
        self._door.hold(len(chunk))
        if self.size > self._door.limits.body_bytes:
            raise _too_large(self._door.limits.body_bytes)
        self.whole = not more
        return chunk, more


def _too_large(limit: int) -> RefusedError:
    return RefusedError("body-too-large", f"The body has more than {limit:,} bytes; send less at a time.")


def _boundary(options: str) -> str:
    for option in options.split(";"):
        name, _, value = option.strip().partition("=")
        if name.lower() == "boundary":
            return value.strip('"')
    return ""


def _gone(receive: Receive) -> Callable[[], bool]:
    """Whether the client went away, as far as the server knows without asking."""
    cycle = getattr(receive, "__self__", None)
    return lambda: bool(getattr(cycle, "disconnected", False))


def _arrived(receive: Receive) -> bool:
    """Whether something of the body is there already, as far as the server knows without waiting."""
    event = getattr(getattr(receive, "__self__", None), "message_event", None)
    return event is not None and event.is_set()


async def _close(made: AsyncIterator[bytes]) -> None:
    """End a generator now, and not when it is collected."""
    close = getattr(made, "aclose", None)
    if close is not None:
        await close()

"""The pages of a server: the dashboard at /, the explorer at /explore, the requests at /docs, and what they ask for."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lowerbound.app.web import files
from lowerbound.app.web.board import WIDTHS, Sources, board
from lowerbound.app.web.explorer import units_of
from lowerbound.app.web.plain import text
from lowerbound.app.web.shared import Shared
from lowerbound.errors import ConflictError, LowerboundError
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.control import allow, document
from lowerbound.service.serving.keys import Key
from lowerbound.service.serving.options import is_loopback
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.site import Site

FRESH_S = 4.0  # that an answer is shared by all who look
CONFIRM = "x-lowerbound-confirm"  # a header that no other site can make a browser send
MOST_BODY = 4096  # bytes of a rollback
FOR_OPERATORS = ("incidents", "drift")  # parts that may show inputs of clients
RULES = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Rollback(BaseModel):
    """What an operator asks for.

    Attributes:
        expected: number of the version that is believed to be stable.
        why: for the history.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    expected: int = Field(ge=1)
    why: str = Field(min_length=1, max_length=500)


def pages(site: Site) -> APIRouter:
    """The routes of all pages, for the server."""
    files.stamp()  # reads and hashes all files now, and not while requests wait
    routes = APIRouter()
    _add_pages(routes)
    boards = _boards(site)
    _add_dashboard(routes, site, boards)
    _add_explorer(routes, site)
    _add_rollback(routes, site, boards)
    return routes


def names_of(references: tuple[str, ...]) -> list[str]:
    """Models that references mean, each once."""
    return list(dict.fromkeys(reference.partition(":")[0].partition("@")[0] for reference in references))


def _add_pages(routes: APIRouter) -> None:
    """Pages and their files; they hold no data, so they need no key."""

    @routes.get("/", include_in_schema=False)
    async def home() -> Response:
        return HTMLResponse(files.page("dashboard.html", title="lowerbound", inline=False), headers=RULES)

    @routes.get("/explore", include_in_schema=False)
    async def explore() -> Response:
        return HTMLResponse(files.page("explore.html"), headers=RULES)

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(files.page("docs.html", document=document(request.app)), headers=RULES)

    @routes.get("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        if name not in files.names():
            raise RefusedError("no-such-page", "There is no such file.")
        packed = "gzip" in request.headers.get("accept-encoding", "")
        content, kind, coding = await asyncio.to_thread(_file, name, packed)
        kept = "public, max-age=31536000, immutable" if "v" in request.query_params else "no-cache"
        return Response(content, media_type=kind, headers={**RULES, **coding, "cache-control": kept})


def _boards(site: Site) -> Shared:
    """Boards by model, hours, and whether all of it may be seen; packed."""
    names, sources = names_of(site.names), Sources(site.registry, site.telemetry)

    def make(question: Hashable) -> bytes:
        assert isinstance(question, tuple)
        name, hours, operates = question
        found = board(sources, name, hours, time.time())
        hidden = {} if operates else dict.fromkeys(FOR_OPERATORS)
        return gzip.compress(text({**found, **hidden, "models": names, "operates": operates}).encode(), 1)

    return Shared(make, FRESH_S)


def _add_dashboard(routes: APIRouter, site: Site, boards: Shared) -> None:
    """The data of the dashboard."""
    names = names_of(site.names)

    @routes.get("/v1/dashboard", tags=["state"], summary="What the dashboard shows of a model.")
    async def dashboard(request: Request, model: str = "", hours: int = 24) -> Response:
        key = allow(site.keys, request, "use")
        name = model or names[0]
        if name not in names:
            raise RefusedError("no-such-model", f"No such model is served; there are {', '.join(names)}.")
        if hours not in WIDTHS:
            raise RefusedError("bad-setting", f"`hours` must be one of {', '.join(map(str, WIDTHS))}.")
        try:
            packed = await boards.get((name, hours, key is None or key.role == "operate"))
        except LowerboundError as error:
            raise RefusedError("not-ready", str(error)) from None
        headers = {"cache-control": "no-store", "vary": "accept-encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(gzip.decompress(packed), media_type="application/json", headers=headers)
        return Response(packed, media_type="application/json", headers={**headers, "content-encoding": "gzip"})


def _add_explorer(routes: APIRouter, site: Site) -> None:
    """What the explorer needs to know of a version."""

    @routes.get("/v1/explorer", tags=["models"], summary="Units of a model's codes: their range, and what they tell.")
    async def explorer(request: Request, model: str = "") -> Response:
        allow(site.keys, request, "use")
        name = model or site.names[0]
        if name not in site.names:
            raise RefusedError("no-such-model", f"No such model is served; there are {', '.join(site.names)}.")
        try:
            found = await asyncio.to_thread(lambda: units_of(site.registry.resolve(name)))
        except LowerboundError as error:
            raise RefusedError("not-ready", str(error)) from None
        return Response(text(found), media_type="application/json")


def _add_rollback(routes: APIRouter, site: Site, boards: Shared) -> None:
    """What operators may do."""

    @routes.post("/v1/models/{name}/rollback", tags=["models"], summary="Undo the last promotion; for operators.")
    async def rollback(request: Request, name: str) -> Response:
        key = allow(site.keys, request, "operate")
        _check_origin(site, request)
        if name not in names_of(site.names):
            raise RefusedError("no-such-model", "No such model is served.")
        asked = _asked(await _body(request))
        entry = await asyncio.to_thread(_roll_back, site.registry, name, asked, key)
        boards.forget()
        return Response(text(entry), media_type="application/json")


def _check_origin(site: Site, request: Request) -> None:
    """Refuse what a page of another site could have made a browser send.

    Raises:
        RefusedError: the header is missing; or, where there are no keys, the request is not to this machine by name.
    """
    if request.headers.get(CONFIRM) != "rollback":
        raise RefusedError("not-confirmed", f"A rollback needs the header `{CONFIRM}: rollback`.")
    if not site.keys.needed and not is_loopback(request.url.hostname or ""):
        raise RefusedError("wrong-role", "Without keys, only this machine may roll back, at 127.0.0.1 or localhost.")


async def _body(request: Request) -> bytes:
    """The body, if it is small."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY:
            raise RefusedError("body-too-large", f"A rollback has at most {MOST_BODY:,} bytes.")
    return content


def _asked(content: bytes) -> Rollback:
    try:
        return Rollback.model_validate(json.loads(content))
    except (ValueError, ValidationError):
        raise RefusedError(
            "bad-json", 'A rollback is {"expected": NUMBER, "why": WORDS}: what is stable now, and the reason.'
        ) from None


def _roll_back(registry: Registry, name: str, asked: Rollback, key: Key | None) -> dict[str, Any]:
    """Undo the last promotion; the row of the history."""
    who = "an operator" if key is None else f"the key {key.id}"
    why = f"{asked.why} (by {who}, on the dashboard)"
    try:
        return registry.rollback(name, why=why, expected=asked.expected).json()
    except ConflictError as error:
        raise RefusedError("moved", str(error)) from None
    except LowerboundError as error:
        raise RefusedError("no-way-back", str(error)) from None


@lru_cache(maxsize=32)
def _file(name: str, packed: bool) -> tuple[bytes, str, dict[str, str]]:
    """A file's content, type and headers."""
    content, kind = files.static(name)
    return (gzip.compress(content, 6), kind, {"content-encoding": "gzip"}) if packed else (content, kind, {})

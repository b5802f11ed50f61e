"""Everything but the verbs: what is served, health, metrics, incidents, and the pages that are handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from lowerbound import __version__
from lowerbound.service.serving.description import problem_schema, verb_paths
from lowerbound.service.serving.keys import Key, Keys, Role
from lowerbound.service.serving.problems import RefusedError

CODES = {404: "no-such-page", 405: "wrong-method"}


class State(Protocol):
    """What this application shows."""

    def models(self) -> list[dict[str, Any]]:
        """What is served."""

    def health(self) -> dict[str, Any]:
        """Whether the process and its engine live, under "ok"."""

    def ready(self) -> dict[str, Any]:
        """Whether requests should come here, under "ok"."""

    def incidents(self) -> list[dict[str, Any]]:
        """Those that are open, and the last ones that were closed."""

    def metrics(self) -> bytes:
        """Of all processes, in the form of Prometheus."""

    def telemetry_metrics(self) -> bytes:
        """Of what telemetry keeps, likewise; it reads from a disk."""


def application(state: State, keys: Keys, pages: APIRouter) -> FastAPI:
    """The application.

    Args:
        state: of the process.
        keys: that are known; health and readiness need none.
        pages: for people.
    """
    app = FastAPI(
        title="lowerbound",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        description="Variational autoencoders in service.",
    )
    app.include_router(_health(state))
    app.include_router(_state(state, keys))
    app.include_router(pages)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(document(app))

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        RefusedError: _on_refused,
        HTTPException: _on_http,
        RequestValidationError: _on_invalid,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    return app


def allow(keys: Keys, request: Request, role: Role) -> Key | None:
    """The key that a request shows, where one is needed.

    Raises:
        RefusedError: none that is known, or one that has not the role.
    """
    return keys.check(request.headers.get("authorization", "").removeprefix("Bearer "), role)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: these routes and the verbs."""
    found = app.openapi()
    if "Problem" not in found.setdefault("components", {}).setdefault("schemas", {}):
        found["paths"] = {**found["paths"], **verb_paths()}
        found["components"]["schemas"]["Problem"] = problem_schema()
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{}, {"key": []}]
    return found


def _health(state: State) -> APIRouter:
    """What those who look after processes ask, without a key."""
    routes = APIRouter(tags=["state"])

    @routes.get("/healthz", summary="Whether the process and its engine live.")
    async def healthz() -> Response:
        found = state.health()
        return JSONResponse(found, 200 if found["ok"] else 503)

    @routes.get("/readyz", summary="Whether requests should come here.")
    async def readyz() -> Response:
        found = state.ready()
        return JSONResponse(found, 200 if found["ok"] else 503)

    return routes


def _state(state: State, keys: Keys) -> APIRouter:
    """What is served, and how it fares."""
    routes = APIRouter()

    @routes.get(
        "/metrics",
        response_class=PlainTextResponse,
        tags=["state"],
        summary="Numbers for Prometheus; with keys, for those who operate.",
    )
    async def metrics(request: Request) -> Response:
        allow(keys, request, "operate")
        return Response(state.metrics(), media_type="text/plain; version=0.0.4")

    @routes.get(
        "/metrics/telemetry",
        response_class=PlainTextResponse,
        tags=["state"],
        summary="Totals of telemetry, likewise, across restarts.",
    )
    async def telemetry_metrics(request: Request) -> Response:
        allow(keys, request, "operate")
        text = await asyncio.to_thread(state.telemetry_metrics)
        return Response(text, media_type="text/plain; version=0.0.4")

    @routes.get("/v1/models", tags=["models"], summary="What is served, and what its gate refuses.")
    async def models(request: Request) -> Response:
        allow(keys, request, "use")
        return JSONResponse({"models": state.models()})

    @routes.get("/v1/incidents", tags=["state"], summary="Incidents; with keys, for those who operate.")
    async def incidents(request: Request) -> Response:
        allow(keys, request, "operate")
        return JSONResponse({"incidents": state.incidents()})

    return routes


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    content = error.body(request.headers.get("x-request-id", "-")[:64])
    return Response(content, error.status, dict(error.headers), "application/problem+json")


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "bad-http")
    refused = RefusedError(code, f"There is no {request.method} here; see /docs.", dict(error.headers or {}))
    return await _on_refused(request, refused)


async def _on_invalid(request: Request, error: Exception) -> Response:
    return await _on_refused(request, RefusedError("bad-setting", "The request has a setting that is none; see /docs."))

"""Everything but the verbs: what is served, health, metrics, incidents, and pages for people."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from lowerbound import __version__
from lowerbound.service.serving.description import problem_schema, verb_paths
from lowerbound.service.serving.keys import Keys, Role
from lowerbound.service.serving.problems import RefusedError

CODES = {404: "no-such-page", 405: "wrong-method"}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b2a33}"
    "h1,h2{color:#1b4965}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;"
    "border-bottom:1px solid #dde}code{background:#f3f5f7;padding:0 .2rem}"
)


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


def application(state: State, keys: Keys) -> FastAPI:
    """The application.

    Args:
        state: of the process.
        keys: that are known; health and readiness need none.
    """
    app = FastAPI(
        title="lowerbound",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        description="Variational autoencoders in service.",
    )

    def allow(request: Request, role: Role) -> None:
        keys.check(request.headers.get("authorization", "").removeprefix("Bearer "), role)

    @app.get("/healthz", tags=["state"], summary="Whether the process and its engine live.")
    async def healthz() -> Response:
        found = state.health()
        return JSONResponse(found, 200 if found["ok"] else 503)

    @app.get("/readyz", tags=["state"], summary="Whether requests should come here.")
    async def readyz() -> Response:
        found = state.ready()
        return JSONResponse(found, 200 if found["ok"] else 503)

    @app.get("/metrics", tags=["state"], summary="Numbers for Prometheus; with keys, for those who operate.")
    async def metrics(request: Request) -> Response:
        allow(request, "operate")
        return Response(state.metrics(), media_type="text/plain; version=0.0.4")

    @app.get("/metrics/telemetry", tags=["state"], summary="Totals of telemetry, likewise, across restarts.")
    async def telemetry_metrics(request: Request) -> Response:
        allow(request, "operate")
        text = await asyncio.to_thread(state.telemetry_metrics)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", tags=["models"], summary="What is served, and what its gate refuses.")
    async def models(request: Request) -> Response:
        allow(request, "use")
        return JSONResponse({"models": state.models()})

    @app.get("/v1/incidents", tags=["state"], summary="Incidents; with keys, for those who operate.")
    async def incidents(request: Request) -> Response:
        allow(request, "operate")
        return JSONResponse({"incidents": state.incidents()})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(document(app))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_docs_page(document(app)))

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> Response:
        try:
            allow(request, "use")
        except RefusedError:
            return HTMLResponse(_page("lowerbound", "<p>This server needs a key. See <a href='/docs'>/docs</a>.</p>"))
        return HTMLResponse(_home_page(state.models()))

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        content = error.body(request.headers.get("x-request-id", "-")[:64])
        return Response(content, error.status, dict(error.headers), "application/problem+json")

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "bad-http")
        refused = RefusedError(code, f"There is no {request.method} here; see /docs.", dict(error.headers or {}))
        return await on_refused(request, refused)

    async def on_invalid(request: Request, error: Exception) -> Response:
        return await on_refused(
            request, RefusedError("bad-setting", "The request has a setting that is none; see /docs.")
        )

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        RefusedError: on_refused,
        HTTPException: on_http,
        RequestValidationError: on_invalid,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: these routes and the verbs."""
    found = app.openapi()
    if "Problem" not in found.setdefault("components", {}).setdefault("schemas", {}):
        found["paths"] = {**found["paths"], **verb_paths()}
        found["components"]["schemas"]["Problem"] = problem_schema()
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{}, {"key": []}]
    return found


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><h1>{title}</h1>{body}</html>"
    )


def _home_page(models: list[dict[str, Any]]) -> str:
    lines = "".join(
        f"<tr><td><code>{html.escape(model['name'])}</code><td>{model['version']}<td><code>{model['hash'][:12]}</code>"
        f"<td>{model['engine']}<td>{model['rows']['shape']}<td>{html.escape(str(model['codes']))}"
        f"<td>{model['serving_since']}"
        for model in models
    )
    head = "<tr><th>name<th>version<th>hash<th>engine<th>rows<th>codes<th>since"
    return _page(
        "lowerbound",
        f"<p>Models in service. Requests: <a href='/docs'>/docs</a>. As JSON: <a href='/v1/models'>/v1/models</a>.</p>"
        f"<table>{head}{lines}</table>",
    )


def _docs_page(found: dict[str, Any]) -> str:
    """The document as a page that needs nothing from elsewhere."""
    parts = ["<p>As an OpenAPI document: <a href='/openapi.json'>/openapi.json</a>.</p>"]
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{operation['summary']}</p>")
            bodies = operation.get("requestBody", {}).get("content", {})
            answers = operation["responses"].get("200", {}).get("content", {})
            if bodies:
                parts.append(f"<p>Takes {', '.join(f'<code>{kind}</code>' for kind in bodies)}; ")
                parts.append(f"answers in {', '.join(f'<code>{kind}</code>' for kind in answers)}.</p>")
            settings = [given for given in operation.get("parameters", []) if given["in"] == "query"]
            lines = "".join(
                f"<tr><td><code>{given['name']}</code><td>{html.escape(given['description'])}"
                f"<td>{given['schema'].get('default', '')}"
                for given in settings
            )
            parts.append(f"<table><tr><th>setting<th>what it is<th>default{lines}</table>" if settings else "")
    return _page("lowerbound: requests", "".join(parts))

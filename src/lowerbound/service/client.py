"""A client of the server, on the standard library and NumPy."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from lowerbound.errors import LowerboundError, UsageError

Array = NDArray[Any]
NPY, JSON, LINES = "application/x-npy", "application/json", "application/x-ndjson"
PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
LATER = (429, 503)


class ServerError(LowerboundError):
    """What the server answered instead.

    Args:
        problem: as it came (RFC 9457).

    Attributes:
        code: stable name of the problem.
        status: of HTTP.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "the server gave no reason.")))
        self.problem = dict(problem)
        self.code, self.status = str(problem.get("code", "")), int(problem.get("status", 0))


class Client:
    """The verbs of a server, NumPy in and out. Threads may share one; each has a connection of its own.

    A request that the server is too busy for is sent again when the server says so, and one whose connection broke
    before an answer began is sent once more: verbs change nothing, so twice is as good as once.

    Args:
        url: of the server, http://127.0.0.1:8000.
        key: where it needs one.
        timeout_s: for an answer.
        tries: of a request.
        sticky: keeps one with one version while a canary is tried; by default the key or the address does.
        ids: how the ids of its requests begin; by default the server makes ids.

    Raises:
        UsageError: the address is none.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout_s: float = 30.0,
        tries: int = 4,
        sticky: str | None = None,
        ids: str = "",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url} is no address of a server; write http://HOST:PORT.")
        self._parts, self._timeout_s, self._tries = parts, timeout_s, tries
        self._shown = {"authorization": f"Bearer {key}"} if key else {}
        self._shown |= {"x-sticky-key": sticky} if sticky else {}
        self._ids = ids
        self._own = threading.local()

    def models(self) -> list[dict[str, Any]]:
        """What is served."""
        found: list[dict[str, Any]] = json.loads(self._ask("GET", "/v1/models")[0])["models"]
        return found

    def encode(self, model: str, rows: Array | bytes, **settings: Any) -> Array | dict[str, Array]:
        """The codes of rows (N, *event), or of a picture's bytes: an array, or one for each of several groups."""
        codes = self.facts(model, rows, **settings)["codes"]
        return next(iter(codes.values())) if len(codes) == 1 else codes

    def facts(self, model: str, rows: Array | bytes, **settings: Any) -> dict[str, Any]:
        """What `encode` knows of rows: "codes" by group, and rates and norms where there are any."""
        found = json.loads(self._rows(model, "encode", rows, JSON, settings))
        codes = {name: np.asarray(values, np.float32) for name, values in found.pop("codes").items()}
        return {"codes": codes, **{name: np.asarray(values) for name, values in found.items()}}

    def decode(self, model: str, codes: Array | Mapping[str, Array], **settings: Any) -> Array:
        """The rows of codes, (N, *event); codes of several groups by name."""
        if isinstance(codes, Mapping):
            given = {name: np.asarray(values).tolist() for name, values in codes.items()}
            body, kind = json.dumps({"codes": given}).encode(), JSON
        else:
            body, kind = _npy(codes), NPY
        return _array(self._verb(model, "decode", body, kind, NPY, settings))

    def reconstruct(self, model: str, rows: Array | bytes, **settings: Any) -> Array:
        """Rows through the model and back, (N, *event)."""
        return _array(self._rows(model, "reconstruct", rows, NPY, settings))

    def score(self, model: str, rows: Array | bytes, **settings: Any) -> dict[str, Array]:
        """How strange rows are, (N,) by name."""
        found = json.loads(self._rows(model, "score", rows, JSON, settings))
        return {name: np.asarray(values) for name, values in found.items()}

    def sample(self, model: str, count: int = 1, seed: int = 0, **settings: Any) -> Array:
        """Rows from the prior, (count, *event); row i is a function of (seed, i)."""
        return _array(self._verb(model, "sample", b"", "", NPY, {"count": count, "seed": seed, **settings}))

    def interpolate(self, model: str, start: Array, end: Array, **settings: Any) -> Array:
        """The way from one row to another, (1, steps, *event)."""
        return _array(self._rows(model, "interpolate", np.stack([start, end]), NPY, settings))

    def traverse(self, model: str, rows: Array | bytes, **settings: Any) -> Array:
        """One unit after another moved through the prior, (N * units, steps, *event)."""
        return _array(self._rows(model, "traverse", rows, NPY, settings))

    def edit(self, model: str, rows: Array, direction: Array | Mapping[str, Array], **settings: Any) -> Array:
        """Rows moved along a direction of codes, (N, strengths, *event)."""
        return _array(self._verb(model, "edit", _edit(rows, direction), JSON, NPY, settings))

    def frames(self, model: str, verb: str, rows: Array, **settings: Any) -> Iterator[Array]:
        """The frames of `interpolate` or `traverse` as they come, (lines, *event) each.

        Raises:
            ServerError: before the first frame, or in place of one.
        """
        path = self._path(model, verb, settings)
        response = self._send("POST", path, _npy(rows), {"content-type": NPY, "accept": LINES})
        try:
            while line := response.readline():
                found = json.loads(line)
                if "error" in found:
                    raise ServerError(found["error"])
                yield np.asarray(found["rows"], np.float32)
        finally:
            if not response.isclosed():  # the rest of the frames is not wanted: neither is the connection
                self.close()

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()
            self._own.connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, model: str, verb: str, rows: Array | bytes, accept: str, settings: Mapping[str, Any]) -> bytes:
        body, kind = (rows, _kind(rows)) if isinstance(rows, bytes) else (_npy(rows), NPY)
        return self._verb(model, verb, body, kind, accept, settings)

    def _verb(self, model: str, verb: str, body: bytes, kind: str, accept: str, settings: Mapping[str, Any]) -> bytes:
        headers = {"accept": accept}
        if body:
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            headers |= {"content-type": kind, "content-digest": f"sha-256=:{digest}:"}
        return self._ask("POST", self._path(model, verb, settings), body, headers)[0]

    def _path(self, model: str, verb: str, settings: Mapping[str, Any]) -> str:
        given = {name: _text(value) for name, value in settings.items() if value is not None}
        return f"/v1/models/{quote(model, safe='@:')}/{verb}" + (f"?{urlencode(given)}" if given else "")

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        response = self._send(method, path, body, headers or {})
        return response.read(), dict(response.getheaders())

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """An answer of status 200 whose body is still to be read."""
        shown = dict(self._shown)
        if self._ids:
            shown["x-request-id"] = f"{self._ids}{random.getrandbits(64):016x}"
        for attempt in range(1, self._tries + 1):
            try:
                connection = self._connection()
                connection.request(method, self._parts.path.rstrip("/") + path, body or None, {**headers, **shown})
                response = connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if attempt == self._tries:
                    raise
                time.sleep(0.05 * attempt)
                continue
            if response.status == 200:
                return response
            problem = _problem(response)
            if response.status not in LATER or attempt == self._tries:
                raise ServerError(problem)
            time.sleep(float(response.headers.get("retry-after", "1")) * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._parts.scheme == "https":
                context = ssl.create_default_context()
                found = http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)
            else:
                found = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
            self._own.connection = found
        return found


def _problem(response: http.client.HTTPResponse) -> dict[str, Any]:
    content = response.read()
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    return {"status": response.status, "detail": f"the server answered {response.status} without a reason.", "code": ""}


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes) -> Array:
    return np.load(io.BytesIO(content), allow_pickle=False)


def _kind(picture: bytes) -> str:
    for magic, kind in PICTURES.items():
        if picture.startswith(magic):
            return kind
    raise UsageError("the bytes are no PNG, JPEG or WebP picture; give one, or an array.")


def _edit(rows: Array, direction: Array | Mapping[str, Array]) -> bytes:
    steps = (
        {name: np.asarray(values).tolist() for name, values in direction.items()}
        if isinstance(direction, Mapping)
        else np.asarray(direction).tolist()
    )
    return json.dumps({"rows": np.asarray(rows).tolist(), "direction": steps}).encode()


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)

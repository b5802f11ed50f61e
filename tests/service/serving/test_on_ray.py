"""A version on Ray Serve answers with the bytes of `lowerbound serve`; Ray itself runs, in processes of its own."""

from __future__ import annotations

import asyncio
import io
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from servers import Server

from conftest import LEVEL
from lowerbound.errors import UsageError
from lowerbound.service.serving.hosted import Hosted
from lowerbound.service.serving.on_ray import options_of
from lowerbound.service.serving.options import Options

HOST = Path(__file__).with_name("ray_host.py")
SAME = ("content-type", "x-model-version", "x-request-id")
ON_RAY = pytest.mark.skipif(sys.platform != "linux", reason="Ray is tested on Linux")


@pytest.fixture(scope="module")
def on_ray(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Ray Serve with `digits` and `labelled`."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("ray")
    settings = {
        "names": "digits,labelled",
        "registry": registry,
        "gate_level": LEVEL,
        "threads": os.cpu_count(),
        "telemetry": folder / "telemetry",
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    process = subprocess.Popen(
        [sys.executable, str(HOST), str(port), *(f"{name}={value}" for name, value in settings.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    log: list[str] = []
    try:
        for line in process.stdout:
            log.append(line)
            if found := re.match(r"serving .* on (http://\S+)", line):
                break
        assert found, "".join(log)
        rest = threading.Thread(target=process.stdout.read)  # else its writer would wait when the pipe is full
        rest.start()
        yield found[1]
        process.stdin.close()
        assert process.wait(60) == 0
        rest.join()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def ask(url: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str | None], bytes]:
    """Status, headers that must be the same, and body."""
    request = urllib.request.Request(f"{url}/v1/models/{path}", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return found.status, {name: found.headers[name] for name in SAME}, found.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, {name: refused.headers[name] for name in SAME}, refused.read()


def requests(rows: np.ndarray) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Of every verb, and some that are refused."""
    array, black, picture = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, rows[:6])
    np.save(black, np.zeros_like(rows[:1]))
    Image.fromarray(np.rint(rows[0, 0] * (255 / 16)).astype(np.uint8)).save(picture, format="PNG")
    npy, png = {"content-type": "application/x-npy"}, {"content-type": "image/png"}
    for model in ("digits", "labelled"):
        for verb in ("encode", "score", "reconstruct"):
            yield f"{model}/{verb}?label=3" if model == "labelled" else f"{model}/{verb}", array.getvalue(), npy
    yield "digits/reconstruct", picture.getvalue(), {**png, "accept": "image/png"}
    yield "digits/reconstruct", array.getvalue(), {**npy, "accept": "application/x-npy"}
    yield "digits/sample?count=5&seed=3", b"", {"accept": "application/x-npy"}
    yield "digits/interpolate?steps=4", array.getvalue(), {**npy, "accept": "application/x-ndjson"}
    yield "digits/traverse?units=0,3&steps=3", array.getvalue(), {**npy, "accept": "application/x-npy"}
    yield "digits/encode", picture.getvalue()[:-9], png
    yield "digits/encode", black.getvalue(), npy
    yield "digits/nothing", array.getvalue(), npy


@pytest.mark.slow
@ON_RAY
def test_ray_answers_with_the_same_bytes(server: Server, on_ray: str, digits: np.ndarray) -> None:
    statuses = []
    for number, (path, body, headers) in enumerate(requests(digits)):
        named = {**headers, "x-request-id": f"number-{number}"}
        ours, theirs = (ask(url, path, body, named) for url in (server.url, on_ray))
        assert theirs == ours, path
        statuses.append(ours[0])
    assert statuses == [200] * 11 + [400, 422, 404]


@pytest.mark.slow
@ON_RAY
def test_many_at_once_are_all_answered_as_one_alone(on_ray: str, digits: np.ndarray) -> None:
    def code(row: int) -> Any:
        content = io.BytesIO()
        np.save(content, digits[row : row + 1])
        headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
        status, _, body = ask(on_ray, "digits/encode", content.getvalue(), headers)
        assert status == 200
        return np.load(io.BytesIO(body))

    alone = [code(row) for row in range(32)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(code, range(32)))
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_settings_of_a_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = options_of({"names": "digits,labelled:2", "gate_level": "0.01", "registry": "models"})
    assert found == Options(("digits", "labelled:2"), str(tmp_path / "models"), gate_level=0.01, threads=1)
    address = "postgresql://user@host/database"
    assert options_of({"names": ["digits"], "registry": address}).registry == address
    with pytest.raises(UsageError, match="port was given"):
        options_of({"names": "digits", "port": 8000})
    with pytest.raises(UsageError, match="gate_level"):
        options_of({"names": "digits", "gate_level": "much"})


def test_a_host_is_told_why_nothing_is_served(registry: Path) -> None:
    async def told() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            found.append(message)

        hosted = Hosted(Options(("nobody",), str(registry)))
        await hosted({"type": "lifespan"}, receive, send)
        assert not hosted.alive
        return found

    (said,) = asyncio.run(told())
    assert said["type"] == "lifespan.startup.failed"
    assert "nobody" in said["message"]

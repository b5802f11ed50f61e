"""Servers to measure, and loads to put on them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
CLIENTS = 16
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Measured:
    """What one load found: requests per second, 99th percentile in ms, CPU microseconds per request, failures."""

    rate: float
    p99_ms: float
    cpu_us: float
    failed: int


@contextmanager
def running(command: Sequence[object], ready: str, log: Path) -> Iterator[tuple[psutil.Process, float]]:
    """A server until the end, with the seconds that it took to answer at an address."""
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([*map(str, command)], env=ENVIRONMENT, stdout=file, stderr=file)
    try:
        while not _answers(ready):
            if process.poll() is not None or time.perf_counter() - start > 120:
                raise SystemExit(f"the server did not start: see {log}")
            time.sleep(0.02)
        yield psutil.Process(process.pid), time.perf_counter() - start
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for member in family:
            if member.is_running() and member.pid != process.pid:
                member.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=30) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def ours(registry: Path, name: str, port: int, *options: object) -> list[object]:
    """The command of our server, with telemetry beside the registry."""
    if not {"--telemetry", "--no-telemetry"} & set(map(str, options)):
        options = ("--telemetry", registry.parent / f"telemetry-{port}", *options)
    command = [sys.executable, "-m", "lowerbound", "serve", name, "--registry", registry, "--port", port]
    return [*command, "--threads", 1, *options]


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        times = member.cpu_times()
        total += times.user + times.system
    return total


def wrk(url: str, body: Path, kind: str, seconds: int, process: psutil.Process) -> Measured:
    """A load of 16 clients that ask without pause."""
    environment = {**os.environ, "BODY": str(body), "KIND": kind}
    before = cpu_seconds(process)
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}", "--latency", "-s", str(HERE / "post.lua"), url]
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(process) - before
    count = int(re.search(r"(\d+) requests in", text)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Measured(rate, float(value) * UNITS[unit], 1e6 * used / count, int(failed[1]) if failed else 0)


def paced(port: int, path: str, body: bytes, kind: str, rate: float, seconds: float) -> list[float]:
    """Latencies in ms of requests that are sent at a rate, whether the ones before were answered or not."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\naccept: application/x-npy\r\n"
    content = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def main() -> list[float]:
        free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        for _ in range(64):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
        found: list[float] = []

        async def one(due: float) -> None:
            reader, writer = await free.get()
            writer.write(content)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
            assert answer.startswith(b"HTTP/1.1 200"), answer
            found.append(1e3 * (time.perf_counter() - due))
            free.put_nowait((reader, writer))

        start, tasks = time.perf_counter(), []
        for index in range(int(rate * seconds)):
            due = start + index / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)
        while not free.empty():
            free.get_nowait()[1].close()
        return found

    return asyncio.run(main())

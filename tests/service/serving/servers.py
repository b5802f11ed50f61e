"""Real servers on the loopback, and ways to talk to them that a good client would not use."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import lowerbound

READY = re.compile(r"^serving .* on (http://\S+)$")


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    log: list[str]
    clients: list[lowerbound.Client] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def client(self, key: str | None = None, tries: int = 1) -> lowerbound.Client:
        self.clients.append(lowerbound.Client(self.url, key, timeout_s=20, tries=tries))
        return self.clients[-1]

    def workers(self) -> list[int]:
        """Their process ids."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def memory(self) -> int:
        """Bytes that its workers hold."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.workers())

    def end(self, timeout_s: float = 30) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def serving(registry: Path, *arguments: object) -> Iterator[Server]:
    """`lowerbound serve ARGUMENTS` on a free port, until the end, with telemetry beside the registry."""
    command = [sys.executable, "-m", "lowerbound", "serve", *map(str, arguments), "--registry", str(registry)]
    telemetry = str(registry.parent / "telemetry")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOWERBOUND_TELEMETRY": telemetry}
    process = subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    log: list[str] = []
    found: list[str] = []
    told = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line.rstrip())
            if match := READY.match(line.strip()):
                found.append(match[1])
                told.set()
        told.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert told.wait(120), log
        assert found, log
        server = Server(found[0], process, log)
        yield server
        for client in server.clients:
            client.close()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def raw(server: Server, content: bytes, wait_s: float = 5.0) -> tuple[int, bytes]:
    """Send bytes as they are; the status and body of the answer, or 0 where none came."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as connection:
        connection.sendall(content)
        return answer(connection)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and body of one answer; 0 where none came."""
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            part = connection.recv(65536)
            if not part:
                return 0, b""
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        while length is not None and len(body) < int(length[1]):
            part = connection.recv(65536)
            if not part:
                break
            body += part
    except (TimeoutError, ConnectionError):
        return 0, b""
    return int(head.split()[1]), body


def post(path: str, body: bytes, **headers: str) -> bytes:
    """The bytes of a request."""
    lines = {"host": "x", "content-length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def until(condition: Any, seconds: float = 30.0) -> bool:
    """Whether a condition became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False

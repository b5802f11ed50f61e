"""Somebody who types what a page says."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERVE = "lowerbound serve "
PORT = re.compile(r"--port (\d+)")
READY_S = 120.0


def page(name: str, section: str = "") -> str:
    """The text of a page, or of one section of it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not section:
        return text
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{name} has no section {section!r}"
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines to type, those that go on joined."""
    joined = "".join(blocks(text, "bash")).replace("\\\n", "")
    return [line for line in joined.splitlines() if line.strip()]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether a condition became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


class Reader:
    """Types commands in one folder. A server stays in the background until another is started, or the end.

    Args:
        folder: to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")  # an answer that is a refusal fails
        paths = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "CURL_HOME": str(folder), "PATH": paths}
        self._server = ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def type(self, line: str) -> str:
        """What a command prints; it must succeed, and warn of nothing."""
        if line.startswith(SERVE):
            self._server.close()
            self._server.enter_context(self._serving(line))
            return ""
        return self._run(["bash", "-c", line], line)

    def python(self, code: str) -> str:
        """What an example prints."""
        return self._run([sys.executable, "-W", "error", "-c", code], code)

    def _run(self, command: list[str], shown: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"{shown}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", f"{shown} warned: {done.stderr}"
        return done.stdout

    @contextmanager
    def _serving(self, line: str) -> Iterator[None]:
        """A server at the port that is printed, which no other test may take meanwhile."""
        found = PORT.search(line)
        port = int(found[1]) if found else 8000
        log = self.folder / "server.log"
        lock = Path(tempfile.gettempdir()) / f"lowerbound-tests-{port}.lock"
        with lock.open("w") as held, log.open("a") as output:
            fcntl.flock(held, fcntl.LOCK_EX)
            process = subprocess.Popen(
                shlex.split(line),
                executable=BIN / "lowerbound",
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                self._wait(process, port, log)
                yield
                process.send_signal(signal.SIGTERM)
                assert process.wait(40) == 0, log.read_text()
            finally:
                process.kill()
                process.wait()

    def _wait(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    return True
            except OSError:
                return False

        assert until(ready, READY_S), log.read_text()

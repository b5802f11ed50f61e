"""Candidates on real servers: judged, promoted, rolled back, through kills and swaps; and the command that says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Server, post, raw, serving, until

import lowerbound
from lowerbound.files import read_json
from lowerbound.lab.run import Run
from lowerbound.service.client import ServerError
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.verdicts.assignment import assigned
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.arrays import write_npy

pytestmark = pytest.mark.slow
NAME = "digits"
GOOD, TWIN, BAD, OTHER = 1, 2, 3, 4
SHARE = 0.5


def worse(source: Path, run: Path) -> Path:
    """A copy of a run whose decoder is off by a little everywhere."""
    shutil.copytree(source, run)
    weights = {name: tensor.clone() for name, tensor in lowerbound.load(source).state_dict().items()}
    last = [name for name, tensor in weights.items() if name.startswith("decoder") and tensor.ndim == 1][-1]
    weights[last] += 1.0
    Run(run).finish(weights, 10)
    return run


@pytest.fixture
def own(runs: list[Path], tmp_path: Path) -> Path:
    """A registry of a good version, which is stable, one with the same weights, a bad one and another good one."""
    registry = Registry(tmp_path / "registry")
    registry.add(runs[0], NAME)
    registry.add(runs[0], NAME, card="The same weights.")
    registry.add(worse(runs[0], tmp_path / "worse"), NAME)
    registry.add(runs[1], NAME)
    registry.promote(NAME, GOOD)
    return tmp_path / "registry"


class Clients:
    """Ask for scores without pause, each with a name of its own: user-0, user-1, ..."""

    def __init__(self, server: Server, rows: np.ndarray, count: int = 3) -> None:
        self._rows, self._server = rows, server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(f"user-{index}",)) for index in range(count)]

    def _ask(self, name: str) -> None:
        with lowerbound.Client(self._server.url, timeout_s=30, tries=8, sticky=name) as client:
            while not self._stop.is_set():
                try:
                    client.score(NAME, self._rows, label=3)
                except (OSError, ServerError):  # while a worker is killed
                    continue

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def trial(place: Path, number: int) -> dict[str, Any]:
    path = place.parent / "telemetry" / "verdicts" / NAME / f"{number}.json"
    return read_json(path) if path.is_file() else {}


def pairs(place: Path, candidate: str) -> int:
    """Rows that the store has of a candidate and of the stable version as well, each with an error."""
    window = History(place.parent / "telemetry").window(Choice(idle=True))
    there = np.isfinite(window.error)
    keys = {
        alias: {
            (request, row)
            for request, row, of, known in zip(window.request, window.row, window.alias, there, strict=True)
            if of == alias and known
        }
        for alias in ("stable", candidate)
    }
    return len(keys["stable"] & keys[candidate])


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    told = [sys.executable, "-m", "lowerbound", "canary", NAME, *arguments, "--registry", str(place)]
    folder = str(place.parent / "telemetry")
    return subprocess.run([*told, "--telemetry", folder], capture_output=True, text=True, timeout=60)


def version_of(server: Server, rows: np.ndarray, sticky: str) -> str:
    head = {"content_type": "application/x-npy", "x_sticky_key": sticky, "connection": "close"}
    content = post(f"/v1/models/{NAME}/encode?label=3", write_npy(rows[:1]), **head)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(content)
        received = b""
        while part := connection.recv(65536):
            received += part
    head_lines = received.partition(b"\r\n\r\n")[0].decode().splitlines()
    return next(line.split(": ")[1].split("-")[0] for line in head_lines if line.startswith("x-model-version"))


def test_an_equal_canary_is_promoted_and_a_bad_one_rolled_back(own: Path, digits) -> None:
    registry = Registry(own)
    users = [f"user-{index}" for index in range(8)]
    options = ("--workers", 2, "--canary-share", SHARE, "--canary-hours", 0)
    with serving(own, NAME, *options) as server:
        assert command(own).returncode == 2, "there is no candidate"
        registry.promote(NAME, TWIN, "canary")
        wanted = [str(TWIN if assigned(user, f"{NAME}:{TWIN}", SHARE) else GOOD) for user in users]
        assert len(set(wanted)) == 2
        assert until(lambda: [version_of(server, digits, user) for user in users] == wanted, 10)
        assert [version_of(server, digits, user) for user in users] == wanted, "always the same"
        with Clients(server, digits[:8], len(users)):
            assert until(lambda: registry.aliases(NAME)["stable"].number == TWIN, 60), trial(own, TWIN)
        assert "canary" not in registry.aliases(NAME)
        assert until(lambda: trial(own, TWIN)["ended"], 10)
        told = trial(own, TWIN)
        assert (told["verdict"]["action"], told["ended"]["action"]) == ("promote", "promote")
        assert told["verdict"]["findings"]["error"]["mean"] == 0
        assert "within the margins" in registry.history(NAME)[-2].why
        registry.promote(NAME, BAD, "canary")
        with Clients(server, digits[:8], len(users)):
            assert until(lambda: "canary" not in registry.aliases(NAME), 60), trial(own, BAD)
        assert registry.aliases(NAME)["stable"].number == TWIN
        assert "The candidate is worse" in registry.history(NAME)[-1].why
        assert until(lambda: {version_of(server, digits, user) for user in users} == {str(TWIN)}, 10)
        assert until(lambda: trial(own, BAD)["ended"], 10)
        done = command(own)
        assert (done.returncode, "rolled back at" in done.stdout) == (1, True), done.stdout + done.stderr


def test_judging_survives_kills_swaps_and_operators(own: Path, digits) -> None:
    registry = Registry(own)
    with serving(own, NAME, "--canary-share", 1) as server:
        sides = [version_of(server, digits, f"user-{index}") for index in range(3)]
        assert set(sides) == {str(GOOD)}
        registry.promote(NAME, TWIN, "canary")
        with Clients(server, digits[:8]):
            assert until(lambda: trial(own, TWIN).get("verdict", {}).get("requests", 0) > 100, 60)
            before = trial(own, TWIN)["verdict"]["requests"]
            (victim,) = server.workers()
            os.kill(victim, signal.SIGKILL)
            assert until(lambda: server.workers() not in ([], [victim]), 60)
            assert until(lambda: trial(own, TWIN)["verdict"]["requests"] > before + 400, 60)
        assert until(lambda: trial(own, TWIN)["verdict"]["requests"] == pairs(own, "canary"), 10)
        told = trial(own, TWIN)
        assert told["verdict"]["action"] == "hold", "an equal one is not rolled back; it soaks for a day"
        assert "soaks" in told["verdict"]["reason"]

        done = command(own, "--hold", "--who", "Ada", "--why", "a fair", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["verdict"]["override"]["who"] == "Ada"
        assert command(own, "--promote", "--who", "Ada").returncode == 2, "nobody says why"

        registry.promote(NAME, OTHER, "stable")
        with Clients(server, digits[:8]):
            assert until(lambda: trial(own, TWIN)["stable"]["number"] == OTHER)
            assert until(lambda: trial(own, TWIN)["verdict"]["requests"] > 50)
        (past,) = trial(own, TWIN)["earlier"]
        assert past["stable"]["number"] == GOOD
        assert past["requests"] >= told["verdict"]["requests"], "it was judged until the other one was loaded"
        assert trial(own, TWIN)["override"] is None, "another comparison, another decision"

        registry.rollback(NAME, "canary")
        assert until(lambda: version_of(server, digits, "user-1") == str(OTHER))
        registry.promote(NAME, GOOD, "stable")
        assert until(lambda: version_of(server, digits, "user-1") == str(GOOD))
        registry.promote(NAME, BAD, "shadow")
        with Clients(server, digits[:8], count=1):
            assert until(lambda: trial(own, BAD).get("verdict", {}).get("action") == "roll_back", 60), trial(own, BAD)
        assert registry.aliases(NAME)["shadow"].number == BAD, "a shadow harms nobody: its verdict is only said"
        assert version_of(server, digits, "user-1") == str(GOOD)
        assert command(own, "--of", "shadow").returncode == 1
        history = History(own.parent / "telemetry")
        assert set(history.window(Choice(alias="shadow", idle=True)).verb) == {"idle"}
        assert len(history.window(Choice(alias="shadow"))) == 0
        assert "idle" not in history.window().verb
        minutes = history.minutes(Choice(alias="shadow"))
        assert minutes.requests.sum() == 0 < minutes.n["error"].sum()
        status, text = raw(server, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert status == 200
        assert b"lowerbound_aside_dropped" in text

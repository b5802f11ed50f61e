"""The stage: a real server in a process of its own, and clients that send it requests."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import torch

from lowerbound.app.lifecycle.scenes import Scene
from lowerbound.errors import RunError
from lowerbound.lab.data.load import load_data
from lowerbound.service.client import Client, ServerError
from lowerbound.service.monitoring.telemetry.fact import Array

CLIENTS, THREADS = 200, 4
READY_S, END_S = 60.0, 30.0


class Server:
    """`lowerbound serve`, as a person starts it.

    Args:
        scene: whose model.
        registry, telemetry: folders.
        log: file that it writes to.

    Raises:
        RunError: it did not begin to serve.
    """

    def __init__(self, scene: Scene, registry: Path, telemetry: Path, log: Path) -> None:
        self._log = log
        words = [
            *(sys.executable, "-m", "lowerbound", "serve", scene.name, "--registry", str(registry)),
            *("--telemetry", str(telemetry), "--privacy", "sample", "--sample-share", "1.0"),
            *("--canary-hours", "0", "--gate-level", str(scene.gate_level), "--port", "0"),
        ]
        with log.open("wb") as file:
            self._process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        self.url = self._address()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _address(self) -> str:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and self._process.poll() is None:
            found = re.search(r"serving .* on (http://\S+)", self._log.read_text())
            if found and "ready after" in self._log.read_text():
                return found[1]
            time.sleep(0.05)
        self.__exit__()
        raise RunError(f"the server did not begin to serve; {self._log} says why.")


class Traffic:
    """Requests of many clients, made of held-out rows with a little noise, so that no two are equal.

    Args:
        scene: of the data.
        data_dir: where they lie.
        url: of the server.
        seed: of the draws.

    Attributes:
        sent: requests.
        refused: by the server's reason.
    """

    def __init__(self, scene: Scene, data_dir: Path | None, url: str, seed: int = 0) -> None:
        data = load_data(scene.data, data_dir)
        whole = data.test.take(torch.arange(len(data.test)))
        self._rows, self._labels = whole.raw.numpy(), np.asarray(data.test.labels)
        self._most, self._scene = (data.spec.levels or 2) - 1, scene
        self._chance = np.random.default_rng(seed)
        self._clients = [Client(url, sticky=f"client-{number}") for number in range(CLIENTS)]
        self._threads = [ThreadPoolExecutor(1) for _ in range(THREADS)]  # a client's connection belongs to its thread
        self.sent = 0
        self.refused: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, thread in enumerate(self._threads):
            for client in self._clients[number::THREADS]:
                thread.submit(client.close)
            thread.shutdown()

    def ordinary(self, count: int) -> Array:
        """Rows of the kinds that the model knows."""
        return self._noisy(np.flatnonzero(~np.isin(self._labels, self._scene.withheld)), count)

    def incident(self, count: int) -> Array:
        """The same, but for a share of a new kind and a share of black rows."""
        rows, kind = self.ordinary(count), self._chance.random(count)
        new = kind < self._scene.share_new
        rows[new] = self._noisy(np.flatnonzero(self._labels == self._scene.newcomer), int(new.sum()))
        rows[kind > 1 - self._scene.share_black] = 0
        return rows

    def of_kind(self, label: int, share: float, count: int) -> Array:
        """Ordinary rows, but for a share of one known kind."""
        rows, some = self.ordinary(count), self._chance.random(count) < share
        rows[some] = self._noisy(np.flatnonzero(self._labels == label), int(some.sum()))
        return rows

    @property
    def known(self) -> list[int]:
        """Labels that the model was trained on."""
        return sorted(set(self._labels.tolist()) - set(self._scene.withheld))

    def send(self, rows: Array) -> None:
        """One request for each row, from many clients at once; refusals are counted, and anything else is raised.

        Raises:
            ServerError: the server failed.
        """
        parts = [
            thread.submit(self._some, rows[number::THREADS], self._clients[number::THREADS])
            for number, thread in enumerate(self._threads)
        ]
        for part in parts:
            for reason in part.result():
                self.refused[reason] = self.refused.get(reason, 0) + 1
        self.sent += len(rows)

    def _some(self, rows: Array, clients: list[Client]) -> list[str]:
        refused = []
        for number, row in enumerate(rows, self.sent // THREADS):
            try:
                clients[number % len(clients)].score(self._scene.name, row[None])
            except ServerError as error:
                if error.status != 422:
                    raise
                refused.append(error.code)
        return refused

    def _noisy(self, places: Array, count: int) -> Array:
        rows = self._rows[self._chance.choice(places, count)].astype(np.int16)
        rows += self._chance.integers(-self._scene.noise, self._scene.noise + 1, rows.shape, np.int16)
        return rows.clip(0, self._most).astype(np.uint8)

"""The life of servers: swaps and ends under load, workers that die, keys, wrong starts, and no growth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from servers import Server, raw, serving, until

import lowerbound
from lowerbound.service.client import ServerError
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.keys import make_key

pytestmark = pytest.mark.slow


class Load:
    """Clients that ask without pause, and remember what they were told.

    Attributes:
        answers: codes and versions, in the order in which they came to each client.
        lost: requests that were not answered.
    """

    def __init__(self, server: Server, rows: np.ndarray, clients: int = 6) -> None:
        self._server, self._rows = server, rows
        self._stop = threading.Event()
        self.answers: list[list[np.ndarray]] = [[] for _ in range(clients)]
        self.lost: list[BaseException] = []
        self.refused_connections = 0
        self._threads = [threading.Thread(target=self._ask, args=(index,)) for index in range(clients)]

    def _ask(self, index: int) -> None:
        client = lowerbound.Client(self._server.url, timeout_s=30, tries=1)
        while not self._stop.is_set():
            try:
                self.answers[index].append(client.encode("digits", self._rows))
            except ConnectionRefusedError:
                self.refused_connections += 1
                break
            except (OSError, ServerError, lowerbound.LowerboundError) as error:
                self.lost.append(error)
                break
        client.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def count(self) -> int:
        return sum(map(len, self.answers))


@pytest.fixture
def own(registry: Path, tmp_path: Path) -> Path:
    """A registry whose aliases may be moved; the objects are shared."""
    place = tmp_path / "registry"
    place.mkdir()
    for file in registry.iterdir():
        if file.is_dir():
            (place / file.name).symlink_to(file)
        else:
            (place / file.name).write_bytes(file.read_bytes())
    return place


def codes_of(registry: Path, reference: str, rows: np.ndarray) -> np.ndarray:
    model = lowerbound.load(Registry(registry).resolve(reference).path)
    return lowerbound.encode(model, torch.from_numpy(rows))["z"].numpy()


def test_a_swap_under_load_loses_nothing_and_mixes_nothing(own: Path, digits) -> None:
    rows = digits[:8]
    first, second = codes_of(own, "digits:1", rows), codes_of(own, "digits:2", rows)
    assert np.abs(first - second).max() > 0.01
    with serving(own, "digits") as server:
        with Load(server, rows) as load:
            assert until(lambda: load.count > 100)
            for number in (2, 1, 2):
                Registry(own).promote("digits", number)
                wanted = second if number == 2 else first
                assert until(lambda wanted=wanted: np.abs(load.answers[0][-1] - wanted).max() < 1e-3)
            seen = load.count
            assert until(lambda: load.count > seen + 100)
        assert load.lost == []
        for answers in load.answers:
            kinds = []
            for codes in answers:
                of_first, of_second = np.abs(codes - first).max() < 1e-3, np.abs(codes - second).max() < 1e-3
                assert of_first != of_second, "rows of one answer are all of one version"
                kinds.append(1 if of_first else 2)
            changes = [kinds[0], *(b for a, b in zip(kinds, kinds[1:], strict=False) if a != b)]
            assert changes == [1, 2, 1, 2]


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_service(own: Path, digits, tmp_path: Path) -> None:
    with serving(own, "digits") as server:
        client = server.client()
        before = client.encode("digits", digits[:1])
        objects = own / "objects"
        real = objects.resolve()
        bad = Registry(own).resolve("digits:2").path.name
        Registry(own).promote("digits", 2)
        objects.unlink()
        objects.mkdir()
        for folder in real.iterdir():
            if folder.name != bad:
                (objects / folder.name).symlink_to(folder)
        # Whether the new version was loaded before its files went is a race; either way somebody answers.
        assert client.encode("digits", digits[:1]).shape == before.shape
        assert until(lambda: raw(server, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")[0] == 200)


def test_the_end_under_load_loses_nothing(own: Path, digits) -> None:
    with serving(own, "digits", "--workers", 2) as server:
        with Load(server, digits[:8], clients=8) as load:
            assert until(lambda: load.count > 200)
            assert server.end() == 0
        assert load.lost == []
        assert load.refused_connections == 8, "each was served until there was no server any more"


def test_a_killed_worker_is_replaced_and_the_others_serve_on(own: Path, digits) -> None:
    with serving(own, "digits", "--workers", 2) as server:
        client = lowerbound.Client(server.url, tries=8)
        victim, _ = before = server.workers()
        os.kill(victim, signal.SIGKILL)
        for _ in range(50):
            assert client.encode("digits", digits[:1]).shape == (1, 8)
        assert until(lambda: len(set(server.workers()) - {victim}) == 2, 60)
        assert any("ended with code -9" in line for line in server.log)
        assert set(before) != set(server.workers())
        client.close()


def test_a_worker_that_falls_silent_is_killed_and_replaced(own: Path, digits) -> None:
    with serving(own, "digits") as server:
        (victim,) = server.workers()
        psutil.Process(victim).suspend()
        assert until(lambda: server.workers() not in ([], [victim]), 60)
        client = lowerbound.Client(server.url, tries=8)
        assert client.encode("digits", digits[:1]).shape == (1, 8)
        client.close()


def test_keys_roles_and_rates(own: Path, digits, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    use, operate = make_key(path, "cam", "use", 5.0), make_key(path, "ops", "operate", 0.0)
    with serving(own, "digits", "--keys", path) as server:
        with pytest.raises(ServerError) as refused:
            server.client().encode("digits", digits[:1])
        assert (refused.value.code, refused.value.status) == ("no-key", 401)
        client = server.client(use)
        client.encode("digits", digits[:1])
        with pytest.raises(ServerError) as spent:
            [client.encode("digits", digits[:1]) for _ in range(30)]
        assert (spent.value.code, spent.value.status) == ("rate-limited", 429)
        for key, path_, status in ((use, "/metrics", 403), (operate, "/metrics", 200), ("", "/healthz", 200)):
            head = f"GET {path_} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
            assert raw(server, head.encode())[0] == status
        patient = lowerbound.Client(server.url, use, tries=10)
        for _ in range(8):
            patient.encode("digits", digits[:1])
        patient.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody",), "no model 'nobody'"),
        (("digits", "--host", "0.0.0.0"), "no keys are given"),
        (("digits", "--keys", "/nowhere"), "no file of keys"),
        (("labelled", "--engine", "onnx"), "no proven export"),
    ],
)
def test_a_wrong_start_ends_with_one_sentence(registry: Path, arguments: tuple[str, ...], words: str) -> None:
    command = [sys.executable, "-m", "lowerbound", "serve", *arguments, "--port", "0", "--registry", str(registry)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_memory_does_not_grow(own: Path, digits) -> None:
    """The slope over a short soak; `benchmarks/serving/soak.py` does the same for ten minutes."""
    with serving(own, "digits") as server, Load(server, digits[:4], clients=4) as load:
        assert until(lambda: load.count > 1000, 60)  # until caches are warm
        times, sizes = [], []
        start, done = time.monotonic(), load.count
        while time.monotonic() - start < 8:
            times.append(load.count - done)
            sizes.append(server.memory())
            time.sleep(0.25)
        slope = np.polyfit(times, sizes, 1)[0]
        assert load.lost == []
        assert slope * 1000 < 2**20, f"{slope:.0f} bytes for each request"

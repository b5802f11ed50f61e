"""Runs to register, trained once, and a PostgreSQL server of one's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import fresh
import pytest

import lowerbound

SMALL = (
    *("training.steps=10", "training.batch_size=32", "evaluation.samples=2", "evaluation.examples=50"),
    *("model.encoder.widths=[16]", "model.decoder.widths=[16]"),
)


def train(folder: Path, recipe: str, *settings: str) -> Path:
    """A finished run; judged, so that a registry need not."""
    lowerbound.train(lowerbound.read_recipe(recipe, [*SMALL, *settings]), folder)
    lowerbound.evaluate(folder)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of points; not to be changed."""
    return train(tmp_path_factory.mktemp("run") / "points", "gmm2d")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three finished runs of seeds 0, 1 and 2 that are conditional, so that none is exported; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    return [train(folder / f"{seed}", "digits", "data.context='label'", f"seed={seed}") for seed in range(3)]


@pytest.fixture(scope="session")
def filled(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with versions 1, 2 and 3 of `digits`, none of which serves; not to be changed."""
    place = tmp_path_factory.mktemp("filled") / "registry"
    fresh.filled(place, runs)
    return place


@pytest.fixture
def place(filled: Path, tmp_path: Path) -> Path:
    """The same of one's own, to be changed at will."""
    return Path(shutil.copytree(filled, tmp_path / "registry"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL server, which is started on a loopback port."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not homes:
        pytest.skip("Debian's package `postgresql` is not installed")
    binaries, folder = homes[-1].parent, tmp_path_factory.mktemp("postgres")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to be root
    if user is not None:
        for path in (folder, *folder.parents):
            if path.name.startswith(("postgres", "popen-", "pytest-")):  # pytest's own, which nobody else may enter
                path.chmod(0o755)
        shutil.chown(folder, user)
    data = folder / "data"
    settings = ("-D", str(data), "-U", "lowerbound", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    subprocess.run([binaries / "initdb", *settings], user=user, cwd="/", check=True, capture_output=True, timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [binaries / "postgres", "-D", data, *options], user=user, cwd="/", stdout=log, stderr=log
    )
    try:
        ready = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        for _ in range(600):
            if subprocess.run(ready, check=False).returncode == 0:
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql://lowerbound@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        log.close()


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> str:
    """The address of an empty database."""
    from sqlalchemy import create_engine

    name = f"test_{abs(hash(request.node.nodeid))}"
    engine = create_engine(
        f"{server}/postgres".replace("postgresql:", "postgresql+pg8000:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture
def own_run(runs: list[Path], tmp_path: Path) -> Path:
    """A finished run of one's own, to be changed at will."""
    return Path(shutil.copytree(runs[0], tmp_path / "own"))

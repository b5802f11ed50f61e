"""Kill -9 in every state and full disks: the same retraining goes on, and nothing is registered or promoted twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests_of_digits as digits

from lowerbound.errors import NotSavedError
from lowerbound.files import read_json
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.states import STATES, retrain

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("killed_retraining.py")


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("made"), dirs_exist_ok=True))
    digits.send(folder / "telemetry", digits.moved())
    return folder


def finished(place: Path) -> dict[str, object]:
    """What must hold at the end, however it was reached; returns what was trained."""
    registry = Registry(place / "registry")
    registry.verify()
    assert [version.number for version in registry.versions(digits.NAME)] == [1, 2]
    rows = registry.history(digits.NAME)
    assert [(row.action, row.number) for row in rows] == [("add", 1), ("promote", 1), ("add", 2), ("promote", 2)]
    assert registry.resolve(f"{digits.NAME}@canary").verify().number == 2
    job = read_json(place / "jobs" / "job" / "job.json")
    assert job["outcome"] == "done"
    assert [state for state in STATES if (place / "jobs" / "job" / f"{state}.json").exists()] == list(STATES)
    found: dict[str, object] = read_json(registry.resolve(f"{digits.NAME}:2").path / "run.json")["files"]
    return found


def test_killed_before_and_after_every_state(made: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(made, tmp_path / "place"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parent)}
    done = subprocess.run(
        [sys.executable, PROGRAM, place], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert json.loads(done.stdout) == {"killed": 2 * (1 + len(STATES)), "last": 0}, done.stderr
    attempts = read_json(place / "jobs" / "job" / "job.json")["states"]
    assert all(attempts[state]["attempts"] >= 2 for state in STATES)
    killed = finished(place)
    other = Path(shutil.copytree(made, tmp_path / "other"))
    retrain(digits.job(other, Registry(other / "registry"), "incremental"))
    assert finished(other)["weights.safetensors"] == killed["weights.safetensors"], "the same candidate, to the bit"


@pytest.fixture
def disk(made: Path, disk_of: Callable[[str], Path]) -> Path:
    """A small disk with a registry and telemetry on it."""
    place = disk_of("24m")
    shutil.copytree(made, place, dirs_exist_ok=True)
    return place


def test_a_full_disk_stops_it_and_it_goes_on(disk: Path) -> None:
    job, filler = digits.job(disk, Registry(disk / "registry"), "incremental"), disk / "filler"
    passed = []
    for room in (0, 64 * 1024, 256 * 1024, 700 * 1024):
        filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
        with pytest.raises(NotSavedError, match="could not be written"):
            retrain(job)
        passed.append(sum((job.folder / f"{state}.json").exists() for state in STATES))
        filler.unlink()
    assert passed == sorted(passed)
    assert passed[-1] > 0
    assert retrain(job).outcome == "done"
    finished(disk)

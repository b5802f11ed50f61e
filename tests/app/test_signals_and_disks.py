"""Signals, two processes at once and full disks: what only real processes can show."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness import SMALL, Cli
from safetensors.torch import load_file

import lowerbound
from lowerbound.lab import checkpoint

pytestmark = pytest.mark.slow

LONG = (*SMALL, "--set", "training.steps=100000", "--set", "training.journal_every=1")


def start(*arguments: object, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    """`lowerbound ARGUMENTS` in a process of its own, which may be refused to write larger files."""

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "lowerbound", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def wait(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until_it_trains(process: subprocess.Popen[str], journal: Path) -> None:
    """Wait for the first rows of a run's journal."""
    for _ in range(600):
        if journal.exists() and journal.read_text().count("\n") > 3:
            return
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"it ended early: {process.communicate()}")
    pytest.fail("no journal within a minute")


def stopped(overrides: tuple[str, ...], run: Path, steps: int, resume: bool = False) -> None:
    """Train in this process, and stop after so many steps."""
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == steps

    recipe = lowerbound.read_recipe("gmm2d", overrides[1::2])
    assert not lowerbound.train(recipe, run, resume=resume, stop=stop).finished


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_resume_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    process = start("train", "gmm2d", *LONG, "--out", run)
    until_it_trains(process, run / "journal.jsonl")
    process.send_signal(number)
    code, out, err = wait(process)
    assert code == 0, err
    assert "stopped with a checkpoint" in out
    assert "--resume" in out
    saved = checkpoint.newest(run / "checkpoint")
    assert saved is not None
    stopped(LONG, run, 2, resume=True)
    later = checkpoint.newest(run / "checkpoint")
    assert later is not None
    assert int(later.name[-9:]) == int(saved.name[-9:]) + 2


def test_the_second_process_in_a_folder_is_refused_and_harms_nothing(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start("train", "gmm2d", *LONG, "--out", run)
    until_it_trains(first, run / "journal.jsonl")
    cli("train", "gmm2d", *LONG, "--out", run, "--resume").refused(2, "in use by another process")
    assert first.poll() is None, "the first goes on"
    first.terminate()
    code, _, err = wait(first)
    assert code == 0, err


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 240 kB."""
    return disk_of("240k")


def check_refused_save(run: Path, limit_bytes: int | None = None) -> None:
    """A save that fails says so, and keeps the last checkpoint."""
    before = checkpoint.newest(run / "checkpoint")
    assert before is not None
    code, _, err = wait(start("train", "gmm2d", *SMALL, "--out", run, "--resume", limit_bytes=limit_bytes))
    assert code == 3, err
    assert err.startswith("error: "), err
    assert "could not be written" in err or "cannot be used" in err, err
    assert "what was saved before is unharmed" in err
    assert "Traceback" not in err
    assert checkpoint.newest(run / "checkpoint") == before
    assert not list(run.rglob("*.safetensors.*")), "no draft is left"


def same_weights(first: Path, second: Path) -> bool:
    """Whether two runs have the same weights to the bit."""
    before, after = (load_file(path / "weights.safetensors") for path in (first, second))
    return all(torch.equal(before[name], after[name]) for name in before | after)


def test_files_that_may_not_grow_harm_nothing(cli: Cli, tmp_path: Path, gmm2d: Path) -> None:
    run = tmp_path / "run"
    stopped(SMALL, run, 5)
    limit = max(path.stat().st_size for path in run.rglob("*.safetensors")) - 100
    assert limit > (run / "recipe.json").stat().st_size
    check_refused_save(run, limit)
    assert cli("train", "gmm2d", *SMALL, "--out", run, "--resume").code == 0
    assert same_weights(run, gmm2d)


def test_a_full_disk_harms_nothing(cli: Cli, small_disk: Path, gmm2d: Path) -> None:
    run, filler = small_disk / "run", small_disk / "filler"
    stopped(SMALL, run, 5)
    room = 12 * 1024  # enough for a recipe and a journal, not for a checkpoint
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    check_refused_save(run)
    filler.unlink()
    assert cli("train", "gmm2d", *SMALL, "--out", run, "--resume").code == 0
    assert same_weights(run, gmm2d)

"""Resume equals uninterrupted, to the bit, whenever the process was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lowerbound

TIMES = {"seconds", "processor_seconds", "rows_per_second"}  # what may differ between two runs
KILLED = Path(__file__).with_name("killed.py")


def journal(out: Path) -> list[dict[str, float]]:
    """The rows but for the times."""
    rows = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert journal(one) == journal(other)


@pytest.mark.slow
def test_killed_twenty_times_at_random_steps_and_resumed_is_equal_to_the_bit(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    done = subprocess.run([sys.executable, KILLED, torn], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {"kills": 20, "status": 0}
    lowerbound.train(lowerbound.Run(torn).recipe(), whole)
    assert_same_run(whole, torn)
    assert len(journal(whole)) == 400


def pair(out: Path, *settings: str) -> list[subprocess.Popen[bytes]]:
    """Two processes that train one run, as `torchrun` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lowerbound", "train", "gmm2d", "--out", str(out), "--resume"]
    for setting in ("training.steps=200", "training.checkpoint_every=7", "training.journal_every=1", *settings):
        command += ["--set", setting]
    return [
        subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(2)
    ]


@pytest.mark.slow
def test_two_processes_killed_and_resumed_are_equal_to_the_bit(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    children = pair(torn)
    deadline = time.monotonic() + 100
    path = torn / "journal.jsonl"
    while time.monotonic() < deadline and not (path.exists() and path.read_text().count("\n") > 50):
        time.sleep(0.001)
    for child in children:
        child.kill()
    assert [child.wait(timeout=60) for child in children] == [-signal.SIGKILL] * 2
    for out in (torn, whole):
        assert [child.wait(timeout=200) for child in pair(out)] == [0, 0]
    assert_same_run(whole, torn)


@pytest.mark.slow
def test_sharing_out_the_weights_changes_nothing_and_resumes_to_the_bit(tmp_path: Path) -> None:
    """FSDP2: the same run as with whole weights to 1e-5, also with clipping, averaging and forgotten activations."""
    settings = ["training.steps=40", "training.clip=3.0", "training.checkpoint_activations=true"]
    whole, shared, torn = (tmp_path / name for name in ("whole", "shared", "torn"))
    for out, more in ((whole, ()), (shared, ("training.shard=true",))):
        assert [child.wait(timeout=200) for child in pair(out, *settings, *more)] == [0, 0]
    first, second = load_file(whole / "weights.safetensors"), load_file(shared / "weights.safetensors")
    assert all(torch.allclose(first[key], second[key], rtol=1e-5, atol=1e-5) for key in first)
    children = pair(torn, *settings, "training.shard=true")
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not list((torn / "checkpoint").glob("step-00000002*")):
        time.sleep(0.001)
    for child in children:
        child.kill()
        child.wait(timeout=60)
    assert [child.wait(timeout=200) for child in pair(torn, *settings, "training.shard=true")] == [0, 0]
    assert_same_run(shared, torn)

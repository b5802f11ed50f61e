"""Two processes equal one with the whole batch, for every objective."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from players import CRITICS
from safetensors.torch import load_file
from tables import QUANTIZERS

CHILD = Path(__file__).with_name("two_processes.py")
PLAYERS = Path(__file__).with_name("players_of_two.py")
CODES = Path(__file__).with_name("codes_of_two.py")


def start(program: Path, out: Path, world: int) -> None:
    """Run a child program in `world` processes, and wait for all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([sys.executable, program, out], env={**os.environ, **place, "RANK": str(rank)})
        for rank in range(world)
    ]
    try:
        assert [child.wait(timeout=300) for child in children] == [0] * world
    finally:
        for child in children:
            child.kill()


def train_all(out: Path, world: int) -> dict[str, torch.Tensor]:
    """The weights that every objective reaches in `world` processes."""
    start(CHILD, out, world)
    return load_file(out)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    alone, together = train_all(tmp_path / "one.safetensors", 1), train_all(tmp_path / "two.safetensors", 2)
    assert alone.keys() == together.keys()
    assert len({key.split("/")[0] for key in alone}) > 10
    for key, value in alone.items():
        assert torch.allclose(value, together[key], rtol=1e-5, atol=1e-5), key


@pytest.mark.slow
def test_codebooks_and_codes_are_equal_to_the_bit_on_both_processes(tmp_path: Path) -> None:
    start(CODES, tmp_path / "codes", 2)
    one, other = (load_file(tmp_path / f"codes-{rank}") for rank in range(2))
    assert one.keys() == other.keys()
    assert {key.split("/")[0] for key in one} == set(QUANTIZERS)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert all(len(one[f"{name}/codes"].unique()) > 1 for name in QUANTIZERS)


@pytest.mark.slow
def test_players_of_two_processes_touch_nothing_of_one_another_and_agree(tmp_path: Path) -> None:
    """Each process looks at each turn itself, and fails where it touched what is the other player's."""
    start(PLAYERS, tmp_path / "players", 2)
    one, other = (load_file(tmp_path / f"players-{rank}") for rank in range(2))
    assert {key.split("/")[0] for key in one} == set(CRITICS)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())

"""The commands and examples of the README run as printed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBERS = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMAND = Path(sys.executable).with_name("lowerbound")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(command: list[str], folder: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == "", f"{shlex.join(command)} warned: {done.stderr}"


@pytest.mark.slow
def test_commands_run_and_their_numbers_are_explained(tmp_path: Path) -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) > 5
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "lowerbound"
        run([str(COMMAND), *arguments], tmp_path)
    folder = tmp_path / "runs" / "gmm2d"
    results = json.loads((folder / "evaluation.json").read_text())["results"]
    journal = json.loads((folder / "journal.jsonl").read_text().splitlines()[-1])
    assert not [name for name in (*results, *journal) if f"`{name}`" not in NUMBERS]
    for name in ("recipe.json", "weights.safetensors", "figures", "report.html", "checkpoint"):
        assert (folder / name).exists()
    for name in ("generated.png", "pairs.png", "codes.npy", "points.npy"):
        assert (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=["library", "loop"])
def test_examples_run(code: str, tmp_path: Path) -> None:
    run([sys.executable, "-W", "error", "-c", code], tmp_path)

"""The commands and examples of the README run as printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pages import Reader, blocks, commands, page, until
from PIL import Image

NUMBERS = page("docs/evaluation.md")
FIRST, SECOND = page("README.md", "On the command line"), page("README.md", "From a run to a server")
EXAMPLES = blocks(page("README.md", "In Python"), "python")


def test_every_command_of_the_page_is_in_a_section_that_is_run() -> None:
    assert len(commands(FIRST)) > 5
    assert len(commands(SECOND)) > 5
    assert commands(page("README.md")) == commands(FIRST) + commands(SECOND)
    assert blocks(page("README.md"), "python") == EXAMPLES


@pytest.mark.slow
def test_commands_run_and_their_numbers_are_explained(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for line in commands(FIRST):
            assert line.startswith("lowerbound ")
            reader.type(line)
    folder = tmp_path / "runs" / "gmm2d"
    results = json.loads((folder / "evaluation.json").read_text())["results"]
    journal = json.loads((folder / "journal.jsonl").read_text().splitlines()[-1])
    assert not [name for name in (*results, *journal) if f"`{name}`" not in NUMBERS]
    for name in ("recipe.json", "weights.safetensors", "figures", "report.html", "checkpoint"):
        assert (folder / name).exists()
    for name in ("generated.png", "pairs.png", "codes.npy", "points.npy"):
        assert (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_run_becomes_a_server_and_its_version_is_changed_under_it(tmp_path: Path) -> None:
    expected = iter([2, 1])  # promoted, and rolled back
    with Reader(tmp_path) as reader:
        for line in commands(SECOND):
            if line.endswith("/v1/models"):
                version = next(expected)
                assert until(lambda: json.loads(reader.type(line))["models"][0]["version"] == version), line  # noqa: B023
            else:
                reader.type(line)
    assert next(expected, None) is None
    for name in ("digit.png", "reconstruction.png"):
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (8, 8), "L")
    assert (tmp_path / "digit.png").read_bytes() != (tmp_path / "reconstruction.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES, ids=["library", "loop"])
def test_examples_run(code: str, tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.python(code)

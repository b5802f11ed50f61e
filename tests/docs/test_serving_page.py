"""docs/serving.md names every problem, verb and setting that the server knows, and its commands run as printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import Reader, blocks, commands, page
from PIL import Image
from sklearn.datasets import load_digits

import lowerbound
from lowerbound.files import write_json
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.problems import PROBLEMS
from lowerbound.service.serving.reading import TYPES
from lowerbound.service.serving.settings import SETTINGS, VERBS

PAGE = page("docs/serving.md")
SMALL = ["training.steps=20", "training.checkpoint_every=20", "model.encoder.widths=[32]", "model.decoder.widths=[32]"]
UNJUDGED = {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}  # judging takes longest


def test_the_page_names_what_the_server_knows() -> None:
    unsaid = {"client-gone"}  # nobody is there to read it
    assert not [name for name in {*PROBLEMS, *VERBS, *SETTINGS, *TYPES} - unsaid if f"`{name}`" not in PAGE]


def test_problems_stand_beside_their_status() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| 4") or line.startswith("| 5")]
    for code, (status, _) in PROBLEMS.items():
        if status != 499:
            assert any(f"`{code}`" in row and str(status) in row.split("|")[1] for row in rows), code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page takes for granted: a registry in which `digits` serves, rows, and pictures of them."""
    run = lowerbound.train(lowerbound.read_recipe("digits", SMALL), tmp_path / "run")
    write_json(run.path / "evaluation.json", UNJUDGED)
    registry = Registry(tmp_path / "registry")
    registry.add(run.path, "digits")
    registry.promote("digits", 1)
    rows = load_digits().images.astype(np.uint8)[:4, None]
    np.save(tmp_path / "rows.npy", rows)
    for name, row in zip(("digit", "one", "other"), rows, strict=False):
        Image.fromarray(np.rint(row[0] * (255 / 16)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_runs_as_printed(folder: Path) -> None:
    examples = iter(blocks(PAGE, "python"))
    with Reader(folder) as reader:
        for line in commands(PAGE):
            if line.startswith("lowerbound serve-key"):
                reader.python(next(examples))  # the last thing that is asked of the server without keys
            reader.type(line)
    assert next(examples, None) is None
    for name, size in {"reconstruction": (8, 8), "samples": (32, 32)}.items():
        with Image.open(folder / f"{name}.png") as picture:
            assert (picture.format, picture.size) == ("PNG", size)

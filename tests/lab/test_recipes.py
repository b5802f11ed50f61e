"""Every recipe that comes with the package trains, and what it trains can be judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import film
from PIL import Image

import lowerbound
from lowerbound.lab.data.labelled import labelled_rows
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.spec import DataSpec
from lowerbound.recipe import shipped

STEPS = 3
SPLITS = ("train", "validation", "test")
PICTURES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "frey-faces": (1, 28, 20), "cifar10": (3, 32, 32)}


def write_table(folder: Path) -> Path:
    lines = [f"{number / 7},{'red' if number % 3 else 'blue'},{number % 5}" for number in range(60)]
    return write_lines(folder, ["size,colour,count", *lines], "table.csv")


def write_lines(folder: Path, lines: list[str], name: str = "lines.txt") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def write_pictures(folder: Path) -> Path:
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def write_array(folder: Path) -> Path:
    np.save(folder / "rows.npy", np.random.default_rng(0).poisson(2.0, (60, 5)).astype(np.float32))
    return folder / "rows.npy"


def train_first(folder: Path) -> Path:
    """A run whose codes are data."""
    small = ["training.steps=3", "training.batch_size=8", "model.encoder.widths=[8]", "model.decoder.widths=[8]"]
    lowerbound.train(lowerbound.read_recipe("digits", small), folder / "first")
    return folder / "first"


def train_teacher(name: str, folder: Path) -> Path:
    """A run of the recipe that another recipe starts from, and of those before it."""
    recipe = lowerbound.read_recipe(name, ["training.steps=1", "training.batch_size=8", "training.warmup_steps=0"])
    if recipe.start is not None:
        recipe = recipe.model_copy(update={"start": str(train_teacher(Path(recipe.start).name, folder))})
    lowerbound.train(recipe, folder / name)
    return folder / name


def train_clips(folder: Path) -> Path:
    """A run whose codes are clips, and data."""
    small = ["training.steps=3", "training.batch_size=8", "data.count=16", "model.encoder.widths=[4, 4]"]
    lowerbound.train(lowerbound.read_recipe("moving-digits", small), folder / "clips")
    return folder / "clips"


def train_codes(folder: Path) -> Path:
    """A run of a quantiser, whose codes lie on a grid."""
    small = ["training.steps=3", "training.batch_size=8", "model.encoder.widths=[8]", "model.decoder.widths=[8]"]
    recipe = lowerbound.read_recipe("digits-codes", [*small, "model.positions=[4, 4]"])
    lowerbound.train(recipe, folder / "first")
    return folder / "first"


def write_videos(folder: Path) -> Path:
    for number in range(3):
        film(folder / f"{number}.mp4")
    return folder


OWN: dict[str, Callable[[Path], Path]] = {
    "table": write_table,
    "series": lambda folder: write_lines(
        folder, ["value", *(f"{math.sin(number / 5)}" for number in range(800))], "series.csv"
    ),
    "text": lambda folder: write_lines(folder, [f"the cat sat on mat {number}" for number in range(60)]),
    "images": write_pictures,
    "arrays": write_array,
    "shards": lambda folder: write_array(folder).parent,
    "video": write_videos,
    "latents": train_first,
    "mnist-codes-pixelcnn": train_codes,
    "mnist-codes-transformer": train_codes,
    "given-frames": train_clips,
}
SETTING = {"latents": "run", "given-frames": "data.run"}  # that names one's own; "path" of all others

# Recipes whose draws take minutes at their own size.
SMALLER = {"cifar10-pixelcnn": ["model.density.width=8", "model.density.depth=2"]}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_recipe_trains_and_is_judged(name: str, tmp_path: Path) -> None:
    overrides = [f"training.steps={STEPS}", "training.batch_size=8", "training.warmup_steps=0", *SMALLER.get(name, [])]
    kind = lowerbound.read_recipe(name).data["kind"]
    make = OWN.get(name, OWN.get(kind))
    if kind.startswith("shapes3d") or name in ("moving-digits", "moving-sprites"):
        overrides.append("data.count=480")  # generated, and more than is needed here
    if make is not None:
        folder = tmp_path / "data"
        folder.mkdir()
        overrides.append(f'data.{SETTING.get(kind, "path")}="{make(folder)}"')
    start = lowerbound.read_recipe(name).start
    if start is not None and lowerbound.read_recipe(name).model["kind"] in ("distilled", "low-rank"):
        overrides.append(f'start="{train_teacher(Path(start).name, tmp_path)}"')
    prior = lowerbound.read_recipe(name).objective.get("prior")
    if prior is not None:
        overrides.append(f'objective.prior="{train_teacher(Path(prior).name, tmp_path)}"')
    recipe = lowerbound.read_recipe(name, overrides)
    run = lowerbound.train(recipe, tmp_path / "run", data=pictures(recipe.data))
    journal = read_journal(run.journal_path)
    assert journal[-1]["step"] == STEPS
    assert math.isfinite(journal[-1]["loss"])
    settings = recipe.evaluation.model_copy(update={"samples": 2, "examples": 60, "generated": 60})
    judgement = lowerbound.evaluate(run, settings, data=pictures(recipe.data))
    assert judgement.results
    for number, result in judgement.results.items():
        values = result.value if isinstance(result.value, list) else [result.value]
        assert all(map(math.isfinite, values)), number


def pictures(table: Mapping[str, Any]) -> Dataset | None:
    """Noise in the shape of data that are not everywhere, with labels where they are asked for; None for others."""
    clip = (1, table.get("frames"), table.get("size", 64), table.get("size", 64))
    shape = clip if table["kind"] == "moving-mnist" else PICTURES.get(table["kind"])
    if shape is None:
        return None
    source = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (24, *shape), dtype=torch.uint8, generator=source)
    context = table.get("context", "none")
    labels = torch.arange(24) % 10
    if context == "none":
        rows = InMemory(noise)
        return Dataset(table["kind"], DataSpec(shape, 256, examples=24), rows, rows, rows)
    return labelled_rows(table["kind"], dict.fromkeys(SPLITS, (noise, labels)), 256, 10, context, None)

"""Ways to make images, each trained for equally long: in pixels at once, or over the codes of a first stage.

    python benchmarks/stages.py DATA OUT [--data-dir DIR] [--budget 240]

DATA is `mnist` or `cifar10`. A way has so many seconds of processor time for all of its training; with two stages,
half for each. Steps are timed before, and schedules end where training ends. Made rows, rounded to whole levels, are
compared with as many held-out rows, in an order drawn once, by the kernel distance of pixels and by a classifier of the
two. Beside each stack stand its first stage's own prior, and its reconstructions, which no second stage can surpass.
OUT keeps the runs: what is there is not trained again. OUT/DATA.png shows a line of rows of each way.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

import lowerbound
from lowerbound.lab.contest import seconds_per_step
from lowerbound.lab.evaluation.distances import kernel_distance
from lowerbound.lab.evaluation.quality import two_sample_test
from lowerbound.lab.run import Run
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.families.family import Family
from lowerbound.noise import generator

ROWS, CHUNK = 2000, 250
SHOWN = 12  # rows of each of the twelve lines of the picture
DENSITY = ("mnist-codes-pixelcnn",)  # how a density is trained; which one it is, is changed
PIXELS = {
    "mnist": ("digits-diffusion", 'data={kind="mnist"}'),
    "cifar10": ("digits-diffusion", 'data={kind="cifar10"}'),
}
FIRST = {
    "mnist": {"Gaussian codes": ("mnist-autoencoder",), "codebook": ("mnist-codes",)},
    "cifar10": {
        "Gaussian codes": ("cifar10", "objective.beta=0.1"),
        "codebook": ("cifar10-codes",),
    },
}
SECOND = {
    "Gaussian codes": {
        "mixture": (*DENSITY, 'model.density={kind="mixture", components=100}'),
        "flow": (*DENSITY, 'model.density={kind="flow"}'),
        "diffusion": ("mnist-latent-diffusion",),
    },
    "codebook": {"PixelCNN": ("mnist-codes-pixelcnn",), "transformer": ("mnist-codes-transformer",)},
}


def trained(asked: tuple[str, ...], place: Path, budget_s: float, data_dir: Path | None) -> Run:
    """A run of a recipe, as long as fits the budget."""
    run = Run(place)
    if run.finished:
        return run
    recipe = lowerbound.read_recipe(asked[0], list(asked[1:]))
    steps = max(1, int(budget_s / seconds_per_step(recipe, data_dir)))
    length = {"steps": steps, "epochs": None, "film": 0, "journal_every": max(1, steps // 200)}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=length)})
    return lowerbound.train(recipe, place, data_dir=data_dir)


def drawn(model: Family) -> tuple[Tensor, float]:
    """Made rows, and the processor seconds for a thousand of them."""
    begun = time.process_time()
    rows = torch.cat([lowerbound.sample(model, CHUNK, 1 + part) for part in range(ROWS // CHUNK)])
    return rows, (time.process_time() - begun) * 1000 / ROWS


class Table:
    """Lines of a table, each of rows beside the same held-out ones."""

    def __init__(self, real: Tensor, levels: int) -> None:
        self.real, self.levels, self.shown = self._whole(real, levels), levels, [real[:SHOWN].float()]
        print(
            "| rows | training, s | kernel distance | classifier | drawing 1,000, s |\n| --- | --- | --- | --- | --- |"
        )

    def add(self, name: str, rows: Tensor, seconds: float | None = None, drawing: float | None = None) -> None:
        made = self._whole(rows[: len(self.real)], self.levels)
        distance, test = kernel_distance(self.real, made), two_sample_test(self.real, made, 0)["two_sample_accuracy"]
        took, draws = ("" if value is None else f"{value:.4g}" for value in (seconds, drawing))
        print(
            f"| {name} | {took} | {distance.value:.5f} ± {distance.stderr:.5f} | {test.value:.3f} | {draws} |",
            flush=True,
        )
        self.shown.append(rows[:SHOWN].float())

    @staticmethod
    def _whole(rows: Tensor, levels: int) -> Tensor:
        return rows.float().round().clamp(0, levels - 1).flatten(1) / (levels - 1)


def spent(*runs: Run) -> float:
    """Processor seconds of training."""
    return sum(float(read_journal(run.journal_path)[-1]["processor_seconds"]) for run in runs)


def main(
    data: str,
    out: Path,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    budget: Annotated[float, typer.Option(help="Seconds of processor time for each way.")] = 240.0,
) -> None:
    """Train all ways, and print the table."""
    torch.set_num_threads(1)
    whole = lowerbound.load_data({"kind": data}, data_dir)
    order = torch.randperm(len(whole.test), generator=generator(0))
    half = min(ROWS, len(order) // 2)
    held_out, others = (whole.test.take(part).raw for part in (order[:half], order[-half:]))
    assert whole.spec.levels is not None
    table = Table(held_out, whole.spec.levels)
    table.add("other held-out rows", others)
    pixels = trained(PIXELS[data], out / "pixels", budget, data_dir)
    rows, drawing = drawn(pixels.model())
    table.add("diffusion of pixels", rows, spent(pixels), drawing)
    for kind, asked in FIRST[data].items():
        name = kind.split()[-1]
        first = trained(asked, out / name, budget / 2, data_dir)
        table.add(f"{kind}: reconstructions", lowerbound.reconstruct(first.model(), others), spent(first))
        rows, drawing = drawn(first.model())
        table.add(f"{kind}: the first stage's own prior", rows, spent(first), drawing)
        for way, recipe in SECOND[kind].items():
            known = (*recipe, f'data.run="{out / name}"', 'data.context="none"', "training.context_dropout=0")
            second = trained(known, out / f"{name}-{way.lower()}", budget / 2, data_dir)
            both = out / f"{name}-{way.lower()}-both"
            stack = Run(both) if both.exists() else lowerbound.stack_runs(second, both)
            rows, drawing = drawn(stack.model())
            table.add(f"{kind}: {way}", rows, spent(first, second), drawing)
    lowerbound.write_rows(out / f"{data}.png", torch.cat(table.shown), whole.spec)


if __name__ == "__main__":
    typer.run(main)

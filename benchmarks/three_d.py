"""What the runs of solids, of their views and of score distillation are worth: the figures of docs/three-d.md.

python benchmarks/three_d.py [--runs runs] [--pictures docs/images]

It takes the runs that are there: those of the recipes shapes3d-* and gmm2d-score-distillation, by their names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import lowerbound
from lowerbound.lab.data.shapes3d import grid, solids_of
from lowerbound.lab.data.solids import random_solids, signed_distance, surface
from lowerbound.lab.data.views import render
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.evaluation.quality import two_sample_test
from lowerbound.lab.evaluation.solids import chamfer, overlap
from lowerbound.model.families.stack import Stack
from lowerbound.model.networks.radiance import DENSITY
from lowerbound.model.spec import Context
from lowerbound.noise import derive_seed, generator

ROWS, SEEDS, FINE = 500, (1, 2, 3), 32


def compared(real: Tensor, made: Callable[[int], Tensor]) -> str:
    """Accuracy of a classifier of real against made rows, for several seeds, and the p-values."""
    found = [two_sample_test(real, made(seed), seed) for seed in SEEDS]
    accuracy, chance = ([result[f"two_sample_{name}"].value for result in found] for name in ("accuracy", "p_value"))
    values = " ".join(f"{value:.3f}" for value in accuracy)
    return f"{sum(accuracy) / len(found):.3f} ({values}; p {' '.join(f'{value:.2g}' for value in chance)})"


def two_samples(run: Path, second: Path | None) -> None:
    """Two-sample tests by shape; those of other real rows, and of their reconstructions, say what can be had."""
    model, data = lowerbound.load(run), lowerbound.load_data(lowerbound.Run(run).recipe().data)
    shape = make_extractor("shape", data.spec)
    raw = data.test.take(torch.arange(ROWS)).raw

    def others(seed: int) -> Tensor:
        return data.train.take(torch.randperm(len(data.train), generator=generator(seed))[:ROWS]).raw

    def drawn(seed: int, stack: bool = False) -> Tensor:
        chosen = Stack(lowerbound.load(run), lowerbound.load(second)) if stack and second else model
        return lowerbound.sample(chosen, ROWS, seed, observe=observe)

    observe = "point" if data.spec.geometry == "grid" else "sample"
    real = shape(raw)
    print(f"{run.name}: two-sample accuracy by shape, {ROWS} test rows")
    print("  other real rows          ", compared(real, lambda seed: shape(others(seed))))
    back = lambda seed: lowerbound.reconstruct(model, others(seed), observe=observe, seed=seed)  # noqa: E731
    print("  reconstructions of others", compared(real, lambda seed: shape(back(seed))))
    print("  the model's own prior    ", compared(real, lambda seed: shape(drawn(seed))))
    if second is not None:
        print("  diffusion of its codes   ", compared(real, lambda seed: shape(drawn(seed, stack=True))))
        same, codes = shape(lowerbound.reconstruct(model, raw, observe=observe)), lowerbound.encode(model, raw)["z"]
        print(
            "  reconstructions against diffusion of codes", compared(same, lambda seed: shape(drawn(seed, stack=True)))
        )
        upper = lowerbound.load(second)
        print("  codes against diffusion of codes", compared(codes, lambda seed: lowerbound.sample(upper, ROWS, seed)))


def voxels(runs: Path) -> None:
    """How much of a solid's volume comes back, and samples of both stages."""
    run, second = runs / "shapes3d-voxels", runs / "shapes3d-latent-diffusion"
    model, data = lowerbound.load(run), lowerbound.load_data(lowerbound.Run(run).recipe().data)
    raw = data.test.take(torch.arange(ROWS)).raw
    found = overlap(raw, lowerbound.reconstruct(model, raw))
    print(f"shapes3d-voxels: overlap of reconstructions {found.mean():.3f}")
    two_samples(run, second if second.exists() else None)


def clouds(runs: Path) -> None:
    """Chamfer distances beside those of two clouds of one solid, and of two solids."""
    for name in ("shapes3d-points", "shapes3d-flow"):
        if not (runs / name).exists():
            continue
        model, data = lowerbound.load(runs / name), lowerbound.load_data({"kind": "shapes3d-points"})
        raw = data.test.take(torch.arange(ROWS)).raw
        solids, _ = solids_of("test", 4000, 0)
        again = surface(solids, raw.shape[1], generator(9))
        back = lowerbound.reconstruct(model, raw, observe="sample")
        numbers = [chamfer(raw, other).mean() for other in (back, again, raw.roll(1, 0))]
        print(f"{name}: Chamfer distance of reconstructions {numbers[0]:.4f}", end="; ")
        print(f"of another cloud of the same solid {numbers[1]:.4f}, of another solid {numbers[2]:.4f}")
        two_samples(runs / name, None)


def implicit(runs: Path) -> None:
    """What an implicit function says on a grid that is finer than anything it was trained on."""
    model, data = lowerbound.load(runs / "shapes3d-occupancy"), lowerbound.load_data({"kind": "shapes3d-occupancy"})
    raw = data.test.take(torch.arange(ROWS)).raw
    solids, _ = solids_of("test", 4000, 0)
    where = grid(FINE)
    with torch.no_grad():
        codes = model.encode(model.preparation.prepare(raw, None))
        parts = torch.arange(ROWS).split(50)
        said = torch.cat([model.decode({"z": codes["z"][part]}).logits(where.expand(50, -1, -1)) for part in parts])
    truth = signed_distance(solids, where.expand(ROWS, -1, -1)) <= 0
    found = overlap(truth.float(), torch.sigmoid(said))
    print(
        f"shapes3d-occupancy: overlap with the solid on {FINE}^3 points, from {raw.shape[1]} queries {found.mean():.3f}"
    )
    second = runs / "shapes3d-occupancy-diffusion"
    two_samples(runs / "shapes3d-occupancy", second if second.exists() else None)


def novel_views(runs: Path, pictures: Path | None) -> None:
    """The error of an asked view, beside the mean view and the given view as it is."""
    model = lowerbound.load(runs / "shapes3d-novel-views")
    data = lowerbound.load_data(lowerbound.Run(runs / "shapes3d-novel-views").recipe().data)
    batch = data.test.take(torch.arange(ROWS))
    assert batch.context is not None
    true, known = batch.raw.float() / 255, batch.context.vector[:, 6:].unflatten(1, batch.raw.shape[1:])
    mean = data.train.take(torch.arange(len(data.train))).raw.float().mean(0) / 255
    drawn = torch.stack([lowerbound.sample(model, ROWS, seed, batch.context) / 255 for seed in range(16)])

    def error(made: Tensor) -> str:
        each = (made - true).square().flatten(1).mean(1)
        return f"{each.mean():.4f} +- {each.std() / ROWS**0.5:.4f}"

    print("shapes3d-novel-views: squared error of the asked view, values from 0 to 1")
    for name, made in (
        ("the mean view", mean.expand_as(true)),
        ("the given view as it is", known),
        ("one draw of the model", drawn[0]),
        ("the mean of 16 draws", drawn.mean(0)),
    ):
        print(f"  {name:25s} {error(made)}")
    if pictures is not None:
        sets = {"given": known, "asked": true, "made": drawn[0]}
        scaled = {name: (255 * rows[:16]).clamp(0, 255) for name, rows in sets.items()}
        lowerbound.write_stack(pictures / "novel-views.png", scaled, data.spec)


def radiance(runs: Path, pictures: Path | None) -> None:
    """Views of a distilled field beside the solid's, which neither it nor any objective has seen."""
    recipe = lowerbound.Run(runs / "shapes3d-radiance-field").recipe()
    field, prior = (lowerbound.load(runs / name) for name in ("shapes3d-radiance-field", "shapes3d-views-diffusion"))
    solid = random_solids(1, generator(derive_seed(recipe.data["seed"], "shapes3d", "few")))
    where = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator(7)), dim=1)
    true = render(solid.select(torch.zeros(64, dtype=torch.long)), where, 16).float() / 255
    context = Context.of(where)
    views = {
        "the mean view": true.mean(0).expand_as(true),
        "draws of the 2-D prior": lowerbound.sample(prior, 64, 0, context) / 255,
        "views of the field": lowerbound.sample(field, 64, 0, context) / 255,
    }
    print("shapes3d-radiance-field: squared error of 64 new views, values from 0 to 1")
    for name, made in views.items():
        print(f"  {name:25s} {(made - true).square().mean():.4f}")
    points = grid(16)
    density, _ = field.network.at(points[None])
    inside = signed_distance(solid, points[None])[0] <= 0
    shared = float(overlap(inside[None].float(), density / DENSITY))
    print(f"  volume that the field shares with the solid, over that of both {shared:.3f}")
    if pictures is not None:
        shown = {"true": true, "prior": views["draws of the 2-D prior"], "field": views["views of the field"]}
        spec = field.data
        scaled = {name: (255 * rows[:16]).clamp(0, 255) for name, rows in shown.items()}
        lowerbound.write_stack(pictures / "radiance-field.png", scaled, spec)


def distilled(runs: Path) -> None:
    """How far points lie from the nearest centre: data, draws of the diffusion model, and what was distilled."""
    data = lowerbound.load_data({"kind": "gmm2d"})
    assert data.truth is not None
    sets = {"data": data.test.take(torch.arange(2000)).raw}
    for name in ("gmm2d-diffusion", "gmm2d-score-distillation"):
        sets[name] = lowerbound.sample(lowerbound.load(runs / name), 2000, 0)
    print("gmm2d-score-distillation: mean distance to the nearest centre, and the share of each centre")
    for name, rows in sets.items():
        distance, nearest = torch.cdist(rows, data.truth.centres).min(dim=1)
        shares = " ".join(f"{share:.2f}" for share in torch.bincount(nearest, minlength=3) / len(rows))
        print(f"  {name:25s} {distance.mean():.3f}  shares {shares}")


def main() -> None:
    """Measure what is there, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--pictures", type=Path)
    chosen = parser.parse_args()
    runs, pictures = chosen.runs, chosen.pictures
    measures = {
        "shapes3d-voxels": lambda: voxels(runs),
        "shapes3d-points": lambda: clouds(runs),
        "shapes3d-occupancy": lambda: implicit(runs),
        "shapes3d-novel-views": lambda: novel_views(runs, pictures),
        "shapes3d-radiance-field": lambda: radiance(runs, pictures),
        "gmm2d-score-distillation": lambda: distilled(runs),
    }
    for name, measure in measures.items():
        if (runs / name / "run.json").exists():
            measure()


if __name__ == "__main__":
    main()

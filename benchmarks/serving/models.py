"""The models that servers are compared with: trained for a few steps on generated pictures, and registered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import lowerbound
from lowerbound.files import write_json
from lowerbound.service.registry.registry import Registry

# Size of the pictures, units of the code, widths of the encoder (the decoder has them the other way round), steps, and
# validation rows: the small one has enough of them for all checks of the gate.
MODELS = {
    "small": (28, 64, [16, 32], 20, 2500),
    "heavy": (64, 64, [64, 128, 256], 2, 100),
    "vae64": (64, 64, [32, 64, 128], 5, 100),
}
UNJUDGED = {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}  # nothing here needs figures
RECIPE = """base = "digits-convolutional"
name = "{name}"
[data]
kind = "arrays"
path = "{data}"
split = {{ kind = "random", validation = 0.8, test = 0.05 }}
[model]
latent = {latent}
[model.encoder]
kind = "convolutional-down"
widths = {down}
[model.decoder]
kind = "convolutional-up"
widths = {up}
[training]
steps = {steps}
"""


def pictures(count: int, size: int) -> np.ndarray:
    """Soft blobs, (count, 1, size, size), 8 bits."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-1, 1, size)
    x, y = grid[None, :, None], grid[None, None, :]
    total = np.zeros((count, size, size))
    for _ in range(3):
        cx, cy = rng.uniform(-0.6, 0.6, (2, count, 1, 1))
        width = rng.uniform(0.1, 0.4, (count, 1, 1))
        total += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2)
    return np.rint(255 * total / total.max(axis=(1, 2), keepdims=True)).astype(np.uint8)[:, None]


def make(folder: Path, name: str) -> Path:
    """The run of a model, made once."""
    run = folder / "runs" / name
    if (run / "run.json").exists():
        return run
    size, latent, widths, steps, validation = MODELS[name]
    data, recipe = folder / f"{name}.npy", folder / f"{name}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(data, pictures(validation * 5 // 4 + 1, size))
    facts = {"name": name, "data": data.resolve(), "latent": latent, "down": widths, "up": widths[::-1], "steps": steps}
    recipe.write_text(RECIPE.format(**facts))
    lowerbound.train(lowerbound.read_recipe(recipe), run)
    return run


def register(folder: Path, name: str) -> Path:
    """The registry with a stable version of a model."""
    place = folder / "registry"
    registry, run = Registry(place), make(folder, name)
    if not (place / "registry.db").exists() or name not in registry.names():
        write_json(run / "evaluation.json", UNJUDGED)
        registry.promote(name, registry.add(run, name).number)
    return place


def payloads(folder: Path, name: str) -> dict[str, tuple[Path, str]]:
    """One picture as a raw array and as a PNG: file and content type."""
    size = MODELS[name][0]
    array = pictures(1, size)
    raw, png = folder / f"{name}-body.npy", folder / f"{name}-body.png"
    np.save(raw, array)
    Image.fromarray(array[0, 0]).save(png)
    return {"array": (raw, "application/x-npy"), "PNG": (png, "image/png")}

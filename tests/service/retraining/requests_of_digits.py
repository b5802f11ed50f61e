"""A registered model of the digits that is small, and requests to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import lowerbound
from lowerbound.service.monitoring.telemetry.fact import Fact, Privacy
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry
from lowerbound.service.retraining.job import Job
from lowerbound.service.retraining.plan import read_plan

NAME, NOW = "digits", 1_750_000_000.0
SMALL = (
    *("training.batch_size=64", "training.ema=0.9", "training.film=0", "training.epochs=1"),
    *("model.encoder.widths=[64]", "model.decoder.widths=[64]", "model.latent=8"),
    *("evaluation.samples=2", "evaluation.generated=300", "objective={kind='elbo'}", "training.learning_rate=3e-3"),
)
PLAN = ("least=100", "slices='cluster'", "clusters=2", "smallest=40", "margin=0.05")


def stable(folder: Path) -> Registry:
    """A registry whose only version is stable."""
    settings = [setting for setting in SMALL if "steps" not in setting]
    settings += ["training.epochs=12", "data.context='label'"]  # conditional models are not exported, which takes long
    recipe = lowerbound.read_recipe("digits", settings)
    lowerbound.train(recipe, folder / "first")
    lowerbound.evaluate(folder / "first")
    registry = Registry(folder / "registry")
    registry.add(folder / "first", NAME, card="To be tried out.")
    registry.promote(NAME, 1)
    return registry


def moved(count: int = 600, seed: int = 0) -> NDArray[np.uint8]:
    """Digits that nobody was trained on: those for training, one pixel to a side, with a little noise."""
    chance = np.random.default_rng(seed)
    raw = lowerbound.load_data({"kind": "digits"}).train.take(torch.arange(count)).raw.numpy().astype(np.int64)
    rolled = np.stack([np.roll(row, chance.choice([-1, 1]), axis=2) for row in raw])
    return np.clip(rolled + chance.integers(-1, 2, rolled.shape), 0, 16).astype(np.uint8)


def inverted(count: int = 600, seed: int = 0) -> NDArray[np.uint8]:
    """A new regime: dark on bright."""
    return (16 - moved(count, seed)).astype(np.uint8)


def send(
    folder: Path, rows: NDArray[np.generic], name: str = NAME, start: float = NOW - 3600.0, gate: str = "passed"
) -> None:
    """Keep rows as the inputs of requests, ten a second."""
    with Telemetry(folder, privacy=Privacy("sample", 1.0)) as telemetry:
        for place, row in enumerate(rows):
            status = 200 if gate in ("passed", "") else 422
            fact = Fact(
                start + place / 10,
                f"{gate}-{start}-{place}",
                name,
                "v",
                "stable",
                "score",
                status,
                gate=gate,
                input=row,
            )
            assert telemetry(fact)
        assert telemetry.flush()


def job(folder: Path, registry: Registry, tier: str, *settings: str, out: str = "job") -> Job:
    """A retraining as of NOW."""
    plan = read_plan(tier, None, [*PLAN, *settings])
    return Job(NAME, plan, folder / "jobs" / out, registry, folder / "telemetry", clock=lambda: NOW)

"""Points from known Gaussians in the plane: the smallest data on which a generator can fail."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lowerbound.lab.data.rows import Dataset, InMemory, Mixture
from lowerbound.model.spec import Count, DataSpec
from lowerbound.noise import derive_seed, generator

AXIS = (-4.0, -2.0, 0.0, 2.0, 4.0)
THREE = Mixture(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]]), 0.15)
GRID = Mixture(torch.cartesian_prod(torch.tensor(AXIS), torch.tensor(AXIS)), 0.05)


def gmm2d(data_dir: Path | None, *, points: Count = 2000, seed: int = 0) -> Dataset:
    """Equal shares of N((2, 0), s^2), N((-2, 0), s^2) and N((0, 2), s^2) with s = 0.15, drawn independently.

    Args:
        data_dir: not used; the data are generated.
        points: rows of each split.
        seed: of the draw.
    """
    return _drawn("gmm2d", THREE, points, seed)


def grid2d(data_dir: Path | None, *, points: Count = 10_000, seed: int = 0) -> Dataset:
    """Equal shares of N(c, s^2) with s = 0.05 and c on a grid of 5 x 5, 2 apart (Srivastava et al. 2017, section 4).

    The usual data on which generators lose modes.

    Args:
        data_dir: not used; the data are generated.
        points: rows of each split.
        seed: of the draw.
    """
    return _drawn("grid2d", GRID, points, seed)


def _drawn(name: str, truth: Mixture, points: int, seed: int) -> Dataset:
    """Points of each split, with the number of the Gaussian that each is from as its label."""

    def draw(split: str) -> InMemory:
        source = generator(derive_seed(seed, name, split))
        labels = torch.randint(len(truth.centres), (points,), generator=source)
        noise: Tensor = truth.sigma * torch.randn(points, 2, generator=source)
        return InMemory(truth.centres[labels] + noise, labels=labels)

    spec = DataSpec(event=(2,), examples=points)
    return Dataset(name, spec, draw("train"), draw("validation"), draw("test"), truth=truth)

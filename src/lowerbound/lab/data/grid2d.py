"""Points from 25 narrow Gaussians on a grid in the plane: the usual data on which generators lose modes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lowerbound.lab.data.rows import Dataset, InMemory, Mixture
from lowerbound.model.spec import Count, DataSpec
from lowerbound.noise import derive_seed, generator

SIDE, APART, SIGMA = 5, 2.0, 0.05


def grid2d(data_dir: Path | None, *, points: Count = 10_000, seed: int = 0) -> Dataset:
    """Equal shares of N(c, s^2) with s = 0.05 and c on a grid of 5 x 5, 2 apart (Srivastava et al. 2017, section 4).

    Args:
        data_dir: not used; the data are generated.
        points: rows of each split.
        seed: of the draw.
    """
    axis = APART * (torch.arange(SIDE) - (SIDE - 1) / 2)
    centres = torch.cartesian_prod(axis, axis)

    def draw(split: str) -> InMemory:
        source = generator(derive_seed(seed, "grid2d", split))
        labels = torch.randint(len(centres), (points,), generator=source)
        noise: Tensor = SIGMA * torch.randn(points, 2, generator=source)
        return InMemory(centres[labels] + noise, labels=labels)

    spec = DataSpec(event=(2,), examples=points)
    return Dataset("grid2d", spec, draw("train"), draw("validation"), draw("test"), truth=Mixture(centres, SIGMA))

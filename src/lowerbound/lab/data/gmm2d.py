"""Points from three Gaussians in the plane: the smallest data on which a generator can fail."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lowerbound.lab.data.rows import Dataset, InMemory, Mixture
from lowerbound.model.spec import Count, DataSpec
from lowerbound.noise import derive_seed, generator

CENTRES = ((2.0, 0.0), (-2.0, 0.0), (0.0, 2.0))
SIGMA = 0.15


def gmm2d(data_dir: Path | None, *, points: Count = 2000, seed: int = 0) -> Dataset:
    """Equal shares of N((2, 0), s^2), N((-2, 0), s^2) and N((0, 2), s^2) with s = 0.15, drawn independently.

    Args:
        data_dir: not used; the data are generated.
        points: rows of each split.
        seed: of the draw.
    """
    centres = torch.tensor(CENTRES)

    def draw(split: str) -> InMemory:
        source = generator(derive_seed(seed, "gmm2d", split))
        labels = torch.randint(len(CENTRES), (points,), generator=source)
        noise: Tensor = SIGMA * torch.randn(points, 2, generator=source)
        return InMemory(centres[labels] + noise, labels=labels)

    spec = DataSpec(event=(2,), examples=points)
    return Dataset("gmm2d", spec, draw("train"), draw("validation"), draw("test"), truth=Mixture(centres, SIGMA))

"""Learned perceptual similarity, from a file of weights of one's own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.checkpoint import read_tensors
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.model.networks.pictures import LearnedDistance
from lowerbound.model.spec import DataSpec

ROWS = 32  # at a time


class Perceptual:
    """The distance, with weights of AlexNet or VGG-16.

    Args:
        path: safetensors with what `LearnedDistance` needs.

    Raises:
        DataError: the file is missing, damaged, or has other tensors.
    """

    def __init__(self, path: Path) -> None:
        self.distance = LearnedDistance(read_tensors(path), str(path))

    @torch.no_grad()
    def __call__(self, real: Tensor, made: Tensor) -> Tensor:
        """The distance of images on [-1, 1], (N, 3, H, W), of each, (N,).

        Raises:
            NotSupportedError: images that are too small.
        """
        parts = zip(real.float().split(ROWS), made.float().split(ROWS), strict=True)
        return torch.cat([self.distance(one, other) for one, other in parts])


def perceptual_results(path: Path, real: Tensor, made: Tensor, spec: DataSpec) -> dict[str, Result]:
    """The distance of raw images from what a model makes of them; grey ones are taken as colour.

    Raises:
        NotSupportedError: other data than images.
        DataError: as for the file.
    """
    if len(spec.event) != 3 or spec.event[0] not in (1, 3):
        raise NotSupportedError("perceptual similarity is of grey or colour images.")
    top = float(spec.levels - 1) if spec.levels else 1.0
    images = [(2 * rows.float() / top - 1).expand(-1, 3, -1, -1) for rows in (real, made)]
    return {"lpips": mean_result(Perceptual(path)(*images), "estimate")}

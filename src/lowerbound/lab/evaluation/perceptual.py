"""Learned perceptual similarity (LPIPS: Zhang et al. 2018, eq. 1), from a file of weights of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.lab.checkpoint import read_tensors
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.model.spec import DataSpec

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of channels on [-1, 1], as the networks were trained
EPSILON = 1e-8
ROWS = 32  # at a time


@dataclass(frozen=True)
class Layout:
    """The layers of a network.

    Attributes:
        layers: number, stride and padding of each convolution; None where the largest of neighbours is taken.
        pool: side of such a neighbourhood.
        taps: numbers of the convolutions after which features are taken.
    """

    layers: tuple[tuple[int, int, int] | None, ...]
    pool: int
    taps: tuple[int, ...]


ALEXNET = Layout(
    ((0, 4, 2), None, (3, 1, 2), None, (6, 1, 1), (8, 1, 1), (10, 1, 1)),
    3,
    (0, 3, 6, 8, 10),
)
VGG16 = Layout(
    ((0, 1, 1), (2, 1, 1), None, (5, 1, 1), (7, 1, 1), None, (10, 1, 1), (12, 1, 1), (14, 1, 1), None,
     (17, 1, 1), (19, 1, 1), (21, 1, 1), None, (24, 1, 1), (26, 1, 1), (28, 1, 1)),
    2,
    (2, 7, 14, 21, 28),
)  # fmt: skip
KINDS = {(64, 3, 11, 11): ALEXNET, (64, 3, 3, 3): VGG16}  # by the shape of the first layer


class ConvolutionalNetwork:
    """The convolutions of AlexNet or VGG-16, on images from -1 to 1.

    Args:
        path: safetensors with `features.N.weight` and `.bias`, numbered as torchvision does.

    Raises:
        DataError: the file is missing, damaged, or has other tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.weights = path, {name: tensor.float() for name, tensor in read_tensors(path).items()}
        first = self.weights.get("features.0.weight")
        layout = None if first is None else KINDS.get(cast(tuple[int, int, int, int], tuple(first.shape)))
        if layout is None:
            raise DataError(f"{path} has no first layer of AlexNet or VGG-16 (`features.0.weight`).")
        self.layout = layout
        numbers = [layer[0] for layer in layout.layers if layer is not None]
        self.need([f"features.{number}.{part}" for number in numbers for part in ("weight", "bias")])

    def need(self, names: list[str]) -> None:
        """Refuse a file without these tensors."""
        if missing := [name for name in names if name not in self.weights]:
            raise DataError(f"{self.path} lacks the tensor `{missing[0]}`.")

    def features(self, x: Tensor) -> list[Tensor]:
        """Features of images (N, 3, H, W) at five depths, (N, C, h, w) each.

        Raises:
            NotSupportedError: images that are too small.
        """
        size = list(x.shape[-2:])
        x = (x - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        found = []
        try:
            for layer in self.layout.layers:
                if layer is None:
                    x = functional.max_pool2d(x, self.layout.pool, 2)
                    continue
                number, stride, padding = layer
                weight, bias = (self.weights[f"features.{number}.{part}"] for part in ("weight", "bias"))
                x = functional.conv2d(x, weight, bias, stride, padding).relu()
                if number in self.layout.taps:
                    found.append(x)
        except RuntimeError:
            raise NotSupportedError(f"images of {size} pixels are too small for this network.") from None
        return found


class Perceptual:
    """The distance, with weights of AlexNet or VGG-16.

    Args:
        path: as for the network, with `lin0.model.1.weight` to `lin4.model.1.weight`, as LPIPS does.

    Raises:
        DataError: the file is missing, damaged, or has other tensors.
    """

    def __init__(self, path: Path) -> None:
        self.network = ConvolutionalNetwork(path)
        self.names = [f"lin{place}.model.1.weight" for place in range(len(self.network.layout.taps))]
        self.network.need(self.names)

    @torch.no_grad()
    def __call__(self, real: Tensor, made: Tensor) -> Tensor:
        """The distance of images on [-1, 1], (N, 3, H, W), of each, (N,).

        Raises:
            NotSupportedError: images that are too small.
        """
        parts = []
        for one, other in zip(real.float().split(ROWS), made.float().split(ROWS), strict=True):
            pairs = zip(self.network.features(one), self.network.features(other), strict=True)
            weighed = [
                functional.conv2d((_unit(a) - _unit(b)).square(), self.network.weights[name]).mean(dim=(1, 2, 3))
                for name, (a, b) in zip(self.names, pairs, strict=True)
            ]
            parts.append(torch.stack(weighed).sum(dim=0))
        return torch.cat(parts)


def _unit(features: Tensor) -> Tensor:
    """Of unit length at each place."""
    return features / (features.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()


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

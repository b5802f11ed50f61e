"""Networks that pictures are compared by: their features, and the learned perceptual distance (LPIPS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lowerbound.errors import DataError, NotSupportedError

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of channels on [-1, 1], as the networks were trained
EPSILON = 1e-8


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


class PictureNetwork(nn.Module):
    """The convolutions of AlexNet or VGG-16, on images from -1 to 1, with weights that stay as they are.

    The weights are kept by nobody but the file that they came from: they are in no checkpoint.

    Args:
        weights: `features.N.weight` and `.bias`, numbered as torchvision does.
        source: what they were read from, for errors.

    Raises:
        DataError: there are other tensors.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Mapping[str, Tensor], source: str) -> None:
        super().__init__()
        first = weights.get("features.0.weight")
        layout = None if first is None else KINDS.get(cast(tuple[int, int, int, int], tuple(first.shape)))
        if layout is None:
            raise DataError(f"{source} has no first layer of AlexNet or VGG-16 (`features.0.weight`).")
        self.layout = layout
        numbers = [layer[0] for layer in layout.layers if layer is not None]
        keep(self, weights, [f"features.{number}.{part}" for number in numbers for part in ("weight", "bias")], source)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images (N, 3, H, W) at five depths, (N, C, h, w) each.

        Raises:
            NotSupportedError: images that are too small.
        """
        size = list(x.shape[-2:])
        x = (x - self.shift) / self.scale
        found = []
        try:
            for layer in self.layout.layers:
                if layer is None:
                    x = functional.max_pool2d(x, self.layout.pool, 2)
                    continue
                number, stride, padding = layer
                weight, bias = (kept(self, f"features.{number}.{part}") for part in ("weight", "bias"))
                x = functional.conv2d(x, weight, bias, stride, padding).relu()
                if number in self.layout.taps:
                    found.append(x)
        except RuntimeError:
            raise NotSupportedError(f"images of {size} pixels are too small for this network.") from None
        return found


class LearnedDistance(nn.Module):
    """The learned perceptual distance (LPIPS: Zhang et al. 2018, eq. 1), with weights of AlexNet or VGG-16.

    Args:
        weights: as for the network, with `lin0.model.1.weight` to `lin4.model.1.weight`, as LPIPS does.
        source: what they were read from, for errors.

    Raises:
        DataError: there are other tensors.
    """

    def __init__(self, weights: Mapping[str, Tensor], source: str) -> None:
        super().__init__()
        self.network = PictureNetwork(weights, source)
        self.names = [f"lin{place}.model.1.weight" for place in range(len(self.network.layout.taps))]
        keep(self, weights, self.names, source)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """The distance of images on [-1, 1], (N, 3, H, W), of each pair, (N,).

        Raises:
            NotSupportedError: images that are too small.
        """
        weighed = [
            functional.conv2d((unit(a) - unit(b)).square(), kept(self, name)).mean(dim=(1, 2, 3))
            for name, a, b in zip(self.names, self.network(one), self.network(other), strict=True)
        ]
        return torch.stack(weighed).sum(dim=0)


def unit(features: Tensor) -> Tensor:
    """Features (N, C, ...) of unit length at each place."""
    return features / (features.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()


def keep(module: nn.Module, weights: Mapping[str, Tensor], names: Sequence[str], source: str) -> None:
    """Keep tensors in a module, in single precision, where they move with it and are not saved.

    Raises:
        DataError: one of them is missing.
    """
    if missing := [name for name in names if name not in weights]:
        raise DataError(f"{source} lacks the tensor `{missing[0]}`.")
    for name in names:
        module.register_buffer(name.replace(".", "_"), weights[name].float(), persistent=False)


def kept(module: nn.Module, name: str) -> Tensor:
    """A tensor that was kept."""
    return module.get_buffer(name.replace(".", "_"))

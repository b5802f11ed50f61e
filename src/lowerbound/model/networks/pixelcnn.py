"""The gated PixelCNN: convolutions that see nothing but the pixels before (van den Oord et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import dropped_channels


class GatedPixelCNN(nn.Module):
    """From planes (N, inputs, H, W) to features (N, outputs, H, W) of each pixel, which depend on those before it.

    Two stacks (van den Oord et al. 2016, section 2.2 and figure 2): the vertical one sees all rows above, the
    horizontal one the pixels on the left and, at each layer, what the vertical one found, so that no earlier pixel lies
    in a blind spot. Images are shifted and padded on one side; no weights are masked (Salimans et al. 2017, section 2).

    Args:
        inputs: channels of the planes; one of ones is added, so that the border can be told from a value of 0.
        outputs: features of each pixel.
        context: width of what all pixels may depend on besides; 0 for nothing.
        width: channels within.
        depth: gated layers of each stack after the first convolution.
        kernel: side of the field of one convolution; odd.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self, inputs: int, outputs: int, context: int, width: int, depth: int, kernel: int, dropout: float
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel < 3:
            raise ShapeError(f"a PixelCNN's `kernel` is {kernel}; it must be an odd number, at least 3.")
        self.above = _Above(inputs + 1, width, kernel)
        self.before = _Before(inputs + 1, width, kernel)
        self.layers = nn.ModuleList(_Layer(width, context, kernel, dropout) for _ in range(depth))
        self.head = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, planes: Tensor, h: Tensor | None) -> Tensor:
        """Features of every pixel, given planes (N, inputs, H, W) and context features (N, C)."""
        return self.along(planes, self.rows_above(planes, h), h)

    def rows_above(self, planes: Tensor, h: Tensor | None) -> list[Tensor]:
        """What the vertical stack tells each layer of the other, (N, 2 width, H, W): of rows above each pixel."""
        hidden = self.above(pad(_with_ones(planes), (0, 0, 1, -1)))
        told: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            hidden, found = layer.down(hidden, h)
            told.append(found)
        return told

    def along(self, planes: Tensor, told: list[Tensor], h: Tensor | None) -> Tensor:
        """Features of the pixels of some rows, given what the vertical stack tells of the rows above each."""
        hidden = self.before(pad(_with_ones(planes), (1, -1)))
        for layer, found in zip(self.layers, told, strict=True):
            assert isinstance(layer, _Layer)
            hidden = layer.right(hidden, found, h)
        features: Tensor = self.head(hidden)
        return features


class _Above(nn.Module):
    """A convolution that sees its own row and those above, on both sides."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2
        self.margin = (half, half, half, 0)
        self.convolution = nn.Conv2d(inputs, outputs, (half + 1, kernel))

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.convolution(pad(hidden, self.margin))
        return result


class _Before(nn.Module):
    """A convolution along a row that sees its own place and those on the left."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2
        self.margin = (half, 0)
        self.convolution = nn.Conv2d(inputs, outputs, (1, half + 1))

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.convolution(pad(hidden, self.margin))
        return result


class _Layer(nn.Module):
    """One gated layer of both stacks, with residual connections (van den Oord et al. 2016, eq. 2 and 4)."""

    def __init__(self, width: int, context: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.above, self.before = _Above(width, 2 * width, kernel), _Before(width, 2 * width, kernel)
        self.across, self.out = nn.Conv2d(2 * width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.known = nn.Linear(context, 4 * width, bias=False) if context else None
        self.drop = nn.Sequential(*dropped_channels(dropout, 2))

    def down(self, hidden: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vertical stack's next state, and what it tells the horizontal one."""
        found = self.above(silu(self.drop(hidden))) + self._bias(h, 0)
        return hidden + _gate(found), self.across(found)

    def right(self, hidden: Tensor, told: Tensor, h: Tensor | None) -> Tensor:
        """The horizontal stack's next state."""
        found = self.before(silu(self.drop(hidden))) + told + self._bias(h, 1)
        result: Tensor = hidden + self.out(_gate(found))
        return result

    def _bias(self, h: Tensor | None, stack: int) -> Tensor | float:
        if self.known is None or h is None:
            return 0.0
        both: Tensor = self.known(h)
        return both.chunk(2, dim=1)[stack][:, :, None, None]


def _gate(found: Tensor) -> Tensor:
    content, gate = found.chunk(2, dim=1)
    return torch.tanh(content) * torch.sigmoid(gate)


def _with_ones(planes: Tensor) -> Tensor:
    return torch.cat([planes, torch.ones_like(planes[:, :1])], dim=1)

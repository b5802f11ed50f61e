"""The gated PixelCNN: convolutions that see nothing but the pixels before (van den Oord et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

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
        planes = _with_ones(planes)
        told = self._told(pad(planes, (0, 0, 1, -1)), h, self._nothing_seen(2))
        return self._along(pad(planes, (1, -1)), told, h, self._nothing_seen(3))

    def row(self, planes: Tensor | None, h: Tensor | None, state: Unrolled) -> list[Tensor]:
        """What a row is told of those above it, (N, 2 width, 1, W) for each layer.

        Args:
            planes: of the row above it, (N, inputs, 1, W); None for the first row.
            h: context features.
            state: of the rows that were passed, which this moves on.
        """
        state.left = self._nothing_seen(3)
        return self._told(state.outside if planes is None else _with_ones(planes), h, state.above)

    def pixel(self, planes: Tensor | None, told: list[Tensor], h: Tensor | None, state: Unrolled) -> Tensor:
        """Features (N, outputs, 1, 1) of the next pixel of a row.

        Args:
            planes: of the pixel on its left, (N, inputs, 1, 1); None for the first of a row.
            told: to its place by the rows above, (N, 2 width, 1, 1) for each layer.
            h: context features.
            state: of the pixels that were passed, which this moves on.
        """
        left = state.outside[..., :1] if planes is None else _with_ones(planes)
        return self._along(left, told, h, state.left)

    def begin(self, count: int, width: int) -> Unrolled:
        """The state before the first of so many images, so many pixels wide."""
        first = self.above.convolution
        outside = first.weight.new_zeros(count, first.in_channels, 1, width)
        return Unrolled(outside, self._nothing_seen(2), [])

    def _nothing_seen(self, axis: int) -> list[Seen]:
        """Of each convolution of a stack, the first one included."""
        return [Seen(axis) for _ in range(len(self.layers) + 1)]

    def _told(self, inputs: Tensor, h: Tensor | None, seen: list[Seen]) -> list[Tensor]:
        """What the vertical stack tells each layer of the other, (N, 2 width, H, W): of rows above each pixel."""
        hidden = self.above(inputs, seen[0])
        told: list[Tensor] = []
        for layer, own in zip(self.layers, seen[1:], strict=True):
            assert isinstance(layer, _Layer)
            hidden, found = layer.down(hidden, h, own)
            told.append(found)
        return told

    def _along(self, inputs: Tensor, told: list[Tensor], h: Tensor | None, seen: list[Seen]) -> Tensor:
        """Features of the pixels of some rows, given what the vertical stack tells of the rows above each."""
        hidden = self.before(inputs, seen[0])
        for layer, found, own in zip(self.layers, told, seen[1:], strict=True):
            assert isinstance(layer, _Layer)
            hidden = layer.right(hidden, found, h, own)
        features: Tensor = self.head(hidden)
        return features


class Seen:
    """The last rows or columns that a convolution has seen and still sees, so that nothing is computed twice.

    Args:
        axis: along which it goes on: 2 for rows, 3 for columns.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.last: Tensor | None = None

    def with_next(self, following: Tensor, reach: int) -> Tensor:
        """These, `reach` along the axis, and what comes next, one or all; zeros before the first."""
        if self.last is None:
            whole = pad(following, (0, 0, reach, 0) if self.axis == 2 else (reach, 0))
        else:
            whole = torch.cat([self.last, following], dim=self.axis)
        self.last = whole.narrow(self.axis, whole.shape[self.axis] - reach, reach)
        return whole


@dataclass
class Unrolled:
    """Where a pixel after the other has come to.

    Attributes:
        outside: what is seen beyond the border, (N, inputs + 1, 1, W).
        above: of each convolution of the vertical stack.
        left: of each one of the horizontal stack, anew in every row.
    """

    outside: Tensor
    above: list[Seen]
    left: list[Seen]


class _Above(nn.Module):
    """A convolution that sees its own row and those above, on both sides."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.convolution = nn.Conv2d(inputs, outputs, (self.reach + 1, kernel))

    def forward(self, hidden: Tensor, seen: Seen) -> Tensor:
        """Whole images, or one row after those that were seen."""
        rows = seen.with_next(hidden, self.reach)
        result: Tensor = self.convolution(pad(rows, (self.reach, self.reach)))
        return result


class _Before(nn.Module):
    """A convolution along a row that sees its own place and those on the left."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.convolution = nn.Conv2d(inputs, outputs, (1, self.reach + 1))

    def forward(self, hidden: Tensor, seen: Seen) -> Tensor:
        """Whole rows, or one column after those that were seen."""
        result: Tensor = self.convolution(seen.with_next(hidden, self.reach))
        return result


class _Layer(nn.Module):
    """One gated layer of both stacks, with residual connections (van den Oord et al. 2016, eq. 2 and 4)."""

    def __init__(self, width: int, context: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.above, self.before = _Above(width, 2 * width, kernel), _Before(width, 2 * width, kernel)
        self.across, self.out = nn.Conv2d(2 * width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.known = nn.Linear(context, 4 * width, bias=False) if context else None
        self.drop = nn.Sequential(*dropped_channels(dropout, 2))

    def down(self, hidden: Tensor, h: Tensor | None, seen: Seen) -> tuple[Tensor, Tensor]:
        """The vertical stack's next state, and what it tells the horizontal one."""
        found = self.above(silu(self.drop(hidden)), seen) + self._bias(h, 0)
        return hidden + _gate(found), self.across(found)

    def right(self, hidden: Tensor, told: Tensor, h: Tensor | None, seen: Seen) -> Tensor:
        """The horizontal stack's next state."""
        found = self.before(silu(self.drop(hidden)), seen) + told + self._bias(h, 1)
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

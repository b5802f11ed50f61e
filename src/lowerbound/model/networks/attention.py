"""Attention networks over patches of an image or over tokens (Vaswani et al. 2017; Dosovitskiy et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import Network, Ports, dropped, with_context
from lowerbound.model.spec import Count, Shape, Share

Look = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys and values (N, heads, T, D) to (N, heads, T, D)


class AttentionBlock(nn.Module):
    """h + attention(norm(h)), then h + feedforward(norm(h)).

    Args:
        width: of each position.
        heads: of the attention; divides the width.
        dropout: share of the units of both branches that are set to 0 in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ShapeError(f"attention of width {width} cannot have {heads} heads; choose a divisor.")
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        # No bias: that of the keys would cancel in the softmax.
        self.in_project, self.out_project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Sequential(*dropped(dropout))

    def forward(self, hidden: Tensor, look: Look = scaled_dot_product_attention) -> Tensor:
        """(N, T, W) to the same shape; by default every position looks at all others."""
        parts = self.in_project(self.before(hidden)).unflatten(2, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (N, heads, T, W / heads) each
        hidden = hidden + self.drop(self.out_project(look(q, k, v).transpose(1, 2).flatten(2)))
        result: Tensor = hidden + self.drop(self.feedforward(self.between(hidden)))
        return result


class AttentionDown(Network):
    """Attention over the patches of an image or over tokens, the mean over positions, and a linear head.

    Args:
        ports: from an image (C, H, W), or tokens (T,) of a known vocabulary, to any shape.
        width: of each position.
        depth: number of blocks.
        heads: of the attention.
        patch: side of a square patch, pixels; divides height and width.
        dropout: share of hidden units that are set to 0 in training.
    """

    takes_tokens = True

    def __init__(
        self,
        ports: Ports,
        *,
        width: Count = 64,
        depth: Count = 2,
        heads: Count = 4,
        patch: Count = 4,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        self.embed: nn.Module
        if len(ports.inputs) == 1 and ports.vocabulary is not None:
            self.patch, positions = None, ports.inputs[0]
            self.embed = nn.Embedding(ports.vocabulary, width)
        else:
            channels, rows, columns = _patches(ports.inputs, "input", patch)
            self.patch, positions = patch, rows * columns
            self.embed = nn.Linear(channels * patch**2, width)
        self.place = nn.Parameter(0.02 * torch.randn(positions, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, heads, dropout) for _ in range(depth)), nn.LayerNorm(width))
        self.head = nn.Linear(width + ports.context, math.prod(ports.outputs))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        given = inputs.long() if self.patch is None else cut(inputs, self.patch)
        hidden = self.blocks(self.embed(given) + self.place).mean(dim=1)
        result: Tensor = self.head(with_context(hidden, context))
        return result.unflatten(1, self.outputs)


class AttentionUp(Network):
    """A linear map to one vector per patch, attention over them, and a linear map to the patches of an image.

    Args:
        ports: from any shape to an image (C, H, W).
        width: of each position.
        depth: number of blocks.
        heads: of the attention.
        patch: side of a square patch, pixels; divides height and width.
        dropout: share of hidden units that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        width: Count = 64,
        depth: Count = 2,
        heads: Count = 4,
        patch: Count = 4,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        channels, self.rows, self.columns = _patches(ports.outputs, "output", patch)
        self.patch, self.width = patch, width
        self.stem = nn.Linear(math.prod(ports.inputs) + ports.context, width)
        self.place = nn.Parameter(0.5 * torch.randn(self.rows * self.columns, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, heads, dropout) for _ in range(depth)), nn.LayerNorm(width))
        self.head = nn.Linear(width, channels * patch**2)

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        stem = self.stem(with_context(inputs.flatten(1), context))
        patches = self.head(self.blocks(stem.unsqueeze(1) + self.place))
        return joined(patches, self.rows, self.patch)


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of the patches that a picture is cut into.

    Raises:
        ShapeError: they do not fill it.
    """
    if height % patch or width % patch:
        raise ShapeError(
            f"an image of {height} x {width} pixels cannot be cut into patches of {patch} x {patch}; choose a `patch` "
            "that divides both."
        )
    return height // patch, width // patch


def cut(images: Tensor, patch: int) -> Tensor:
    """(N, C, H, W) to patches (N, T, C * patch^2), row after row."""
    grid = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (N, C, rows, patch, columns, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def joined(patches: Tensor, rows: int, patch: int) -> Tensor:
    """Patches (N, T, C * patch^2) to (N, C, H, W): the inverse of `cut`, for so many rows of patches."""
    grid = patches.unflatten(2, (-1, patch, patch)).unflatten(1, (rows, -1))  # (N, rows, columns, C, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _patches(shape: Shape, what: str, patch: int) -> tuple[int, int, int]:
    """Channels, and rows and columns of patches, of an image; refuses other shapes."""
    if len(shape) != 3:
        raise ShapeError(
            f"an attention network needs an image (channels, height, width) as its {what}, and was given "
            f'shape {list(shape)}; use `kind = "mlp"` for it.'
        )
    channels, height, width = shape
    return channels, *grid_of(height, width, patch)

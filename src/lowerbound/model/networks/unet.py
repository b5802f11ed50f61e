"""The U-Net of diffusion models: from a grid to a grid of the same size (Ho et al. 2020; Dhariwal & Nichol 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lowerbound.errors import ShapeError
from lowerbound.model.networks.attention import AttentionBlock
from lowerbound.model.networks.convolutional import (
    CONVOLUTIONS,
    DoublingConvolution,
    channels_last,
    grid_shape,
    halved,
)
from lowerbound.model.networks.network import Network, Ports, dropped_channels
from lowerbound.model.spec import Count, Share, Whole, Widths


class UNet(Network):
    """Residual blocks down to a small grid and up again, with what was seen on the way down beside what goes up.

    What is known of a row (the time, a context) scales and shifts the normalised channels of every block. Where the
    context holds tokens, cross-attention looks at them one by one.

    Args:
        ports: from an image (C, H, W), signal (C, L) or video (C, T, H, W) to one of the same size.
        widths: channels at each resolution, largest grid first.
        depth: residual blocks at each resolution, on each side.
        attention: resolutions with attention, 0 for the full one.
        heads: of the attention; divides the widths there.
        tokens: how many tokens the context holds, just before its last number, which says whether they are there.
        token_width: numbers of each.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        widths: Widths = (32, 64),
        depth: Count = 1,
        attention: Sequence[Whole] = (1,),
        heads: Count = 4,
        tokens: Whole = 0,
        token_width: Whole = 0,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        (channels, grid), (made, size) = grid_shape(ports.inputs, "input"), grid_shape(ports.outputs, "output")
        if grid != size:
            raise ShapeError(f"a U-Net keeps the size of its grid, and was asked to lead from {grid} to {size}.")
        if tokens and tokens * token_width >= ports.context:
            raise ShapeError(
                f"the network `unet` was told of {tokens} tokens of {token_width} numbers in a context of "
                f"{ports.context} numbers with the time; give the numbers of the text's encoder."
            )
        self.tokens, self.token_width, known = tokens, token_width, 4 * widths[0] if ports.context else 0
        convolution, axes = CONVOLUTIONS[len(grid)], len(grid)
        self.embed: nn.Sequential | None = _embedding(ports.context, known)
        self.stem = convolution(channels, widths[0], 3, padding=1)

        def stage(before: int, level: int) -> Stage:
            looks = heads if level in attention else 0
            return Stage(before, widths[level], axes, known, looks, token_width if tokens else 0, dropout)

        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        beside, here = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            if level:
                self.shrink.append(convolution(here, here, 3, stride=2, padding=1))
                beside.append(here)
            for _ in range(depth):
                self.down.append(stage(here, level))
                here = width
                beside.append(here)
        self.middle = stage(here, len(widths) - 1)
        for level in reversed(range(len(widths))):
            for _ in range(depth + 1):
                self.up.append(stage(here + beside.pop(), level))
                here = widths[level]
            if level:
                larger = tuple(halved(side, level - 1) for side in grid)
                self.grow.append(DoublingConvolution(here, here, larger))
        self.depth = depth
        last = convolution(here, made, 3, padding=1)
        with torch.no_grad():  # a denoiser begins by saying little
            last.weight.mul_(0.1)
        self.head = nn.Sequential(nn.GroupNorm(math.gcd(here, 8), here), nn.SiLU(), last)

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        known = None if context is None or self.embed is None else self.embed(context)
        tokens = self._tokens(context)
        hidden = self.stem(channels_last(inputs))
        beside = [hidden]
        for number, stage in enumerate(self.down):
            if number and number % self.depth == 0:
                hidden = self.shrink[number // self.depth - 1](hidden)
                beside.append(hidden)
            hidden = stage(hidden, known, tokens)
            beside.append(hidden)
        hidden = self.middle(hidden, known, tokens)
        for number, stage in enumerate(self.up):
            if number and number % (self.depth + 1) == 0:
                hidden = self.grow[number // (self.depth + 1) - 1](hidden)
            hidden = stage(torch.cat([hidden, beside.pop()], dim=1), known, tokens)
        result: Tensor = self.head(hidden)
        return result

    def _tokens(self, context: Tensor | None) -> Tensor | None:
        """The tokens in the context, (N, L, d), which stand before its last number."""
        if context is None or not self.tokens:
            return None
        return context[:, -1 - self.tokens * self.token_width : -1].unflatten(1, (self.tokens, self.token_width))


def _embedding(given: int, width: int) -> nn.Sequential | None:
    """What blocks see of the context; None where there is none."""
    return nn.Sequential(nn.Linear(given, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()) if given else None


class Stage(nn.Module):
    """A residual block, then attention over the grid and over tokens where they are wanted.

    Args:
        before, after: channels.
        axes: of the grid.
        known: width of what is known of a row, 0 where nothing is.
        heads: of the attention, 0 for none.
        tokens: width of a token of the context, 0 where there are none.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(self, before: int, after: int, axes: int, known: int, heads: int, tokens: int, dropout: float) -> None:
        super().__init__()
        self.block = AdaptiveBlock(before, after, axes, known, dropout)
        self.among = AttentionBlock(after, heads, 0.0) if heads else None
        self.across = CrossAttention(after, heads, tokens) if heads and tokens else None

    def forward(self, hidden: Tensor, known: Tensor | None, tokens: Tensor | None) -> Tensor:
        """(N, before, *grid) to (N, after, *grid)."""
        hidden = self.block(hidden, known)
        if self.among is None:
            return hidden
        places = self.among(hidden.flatten(2).transpose(1, 2))
        if self.across is not None:
            places = self.across(places, tokens)
        return places.transpose(1, 2).reshape(hidden.shape)


class AdaptiveBlock(nn.Module):
    """A residual block whose second normalisation is scaled and shifted by what is known (Dhariwal & Nichol 2021).

    Args:
        before, after: channels.
        axes: of the grid.
        known: width of what is known of a row, 0 where nothing is.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(self, before: int, after: int, axes: int, known: int, dropout: float) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.first = nn.Sequential(
            nn.GroupNorm(math.gcd(before, 8), before), nn.SiLU(), convolution(before, after, 3, padding=1)
        )
        self.norm = nn.GroupNorm(math.gcd(after, 8), after)
        self.adapt = nn.Linear(known, 2 * after) if known else None
        self.second = nn.Sequential(
            nn.SiLU(), *dropped_channels(dropout, axes), convolution(after, after, 3, padding=1)
        )
        self.past = convolution(before, after, 1) if before != after else nn.Identity()

    def forward(self, hidden: Tensor, known: Tensor | None) -> Tensor:
        """(N, before, *grid) to (N, after, *grid)."""
        inner = self.norm(self.first(hidden))
        if self.adapt is not None:
            moved = self.adapt(known)
            scale, shift = moved.reshape(*moved.shape, *(1,) * (inner.ndim - 2)).chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        result: Tensor = self.past(hidden) + self.second(inner)
        return result


class CrossAttention(nn.Module):
    """h + attention from each place to the tokens of the context (Rombach et al. 2022, section 3.3).

    Args:
        width: of each place.
        heads: of the attention; divides the width.
        tokens: width of a token.
    """

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.before = heads, nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, width, bias=False), nn.Linear(tokens, 2 * width, bias=False)
        self.out_project = nn.Linear(width, width)

    def forward(self, places: Tensor, tokens: Tensor | None) -> Tensor:
        """Places (N, T, W) that have seen tokens (N, L, d)."""
        assert tokens is not None
        q = self.ask(self.before(places)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.answer(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        result: Tensor = places + self.out_project(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return result

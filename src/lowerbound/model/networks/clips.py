"""Networks over clips that keep their frames: convolutions apart in space and time, and attention over time."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lowerbound.errors import ShapeError
from lowerbound.model.networks.attention import AttentionBlock, cut, grid_of, joined
from lowerbound.model.networks.convolutional import halved
from lowerbound.model.networks.network import ACTIVATIONS, Activation, Network, Ports, with_context
from lowerbound.model.spec import Count, Shape, Widths

Reach = Literal[1, 3, 5]


class FrameConvolution(nn.Module):
    """A convolution of each frame, 3 wide, an activation, and one over time at each place: (2+1)-D (Tran et al. 2018).

    Args:
        before, after: channels.
        stride: in space.
        reach: frames that the second one sees; 1 leaves it out, so that frames know nothing of one another.
        activation: between the two.
    """

    def __init__(self, before: int, after: int, stride: int, reach: int, activation: Activation) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv3d(before, after, (1, 3, 3), (1, stride, stride), (0, 1, 1))]
        if reach > 1:
            layers += [ACTIVATIONS[activation](), nn.Conv3d(after, after, (reach, 1, 1), padding=(reach // 2, 0, 0))]
        self.layers = nn.Sequential(*layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, before, T, H, W) to (N, after, T, h, w)."""
        result: Tensor = self.layers(hidden)
        return result


class ClipDown(Network):
    """(2+1)-D convolutions that halve height and width once per width, and leave every frame its own place.

    Args:
        ports: from a clip (C, T, H, W) to a clip (C', T, h, w) of as many frames.
        widths: channels after each halving.
        reach: frames that a convolution over time sees; 1 codes each frame alone.
        activation: between layers.
    """

    def __init__(
        self, ports: Ports, *, widths: Widths = (16, 32), reach: Reach = 3, activation: Activation = "silu"
    ) -> None:
        super().__init__(ports)
        _check(ports.inputs, ports.outputs, len(widths))
        sizes = [ports.inputs[0] + ports.context, *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [FrameConvolution(before, after, 2, reach, activation), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Conv3d(sizes[-1], ports.outputs[0], 1))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = self.layers(with_context(inputs, context))
        return result


class ClipUp(Network):
    """Doubles height and width once per width, each time with a (2+1)-D convolution, frame by frame.

    Args:
        ports: from a clip (C, T, h, w) to a clip (C', T, H, W) of as many frames.
        widths: channels at each size, the smallest first.
        reach: frames that a convolution over time sees; 1 decodes each frame alone.
        activation: between layers.
    """

    def __init__(
        self, ports: Ports, *, widths: Widths = (32, 16), reach: Reach = 3, activation: Activation = "silu"
    ) -> None:
        super().__init__(ports)
        _check(ports.outputs, ports.inputs, len(widths))
        self.sizes = [tuple(halved(side, k) for side in ports.outputs[2:]) for k in reversed(range(len(widths)))]
        self.stem = nn.Conv3d(ports.inputs[0] + ports.context, widths[0], 1)
        self.layers = nn.ModuleList(
            FrameConvolution(before, after, 1, reach, activation)
            for before, after in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.between = ACTIVATIONS[activation]()
        self.head = nn.Conv3d(widths[-1], ports.outputs[0], 1)

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.stem(with_context(inputs, context))
        for layer, (height, width) in zip(self.layers, self.sizes, strict=True):
            doubled = functional.interpolate(self.between(hidden), scale_factor=(1, 2, 2))
            hidden = layer(doubled[..., :height, :width])
        result: Tensor = self.head(self.between(hidden))
        return result


class ClipAttention(Network):
    """A denoiser of clips: each frame is convolved, and each place looks along time (Ho et al. 2022, section 3).

    What is known of a row scales and shifts the channels. With `given`, the context ends with frames that are given:
    as many numbers as a clip has, 0 where nothing is given, then a 1 or 0 for each frame; they stand beside the noisy
    clip as more channels, so that one network continues a first frame and fills in between key frames.

    Args:
        ports: from a clip (C, T, H, W) to one of the same size.
        width: channels.
        depth: blocks.
        heads: of the attention; divides the width.
        given: whether the context holds given frames, before its last number, which says whether it is there.
    """

    def __init__(
        self, ports: Ports, *, width: Count = 32, depth: Count = 3, heads: Count = 4, given: bool = False
    ) -> None:
        super().__init__(ports)
        _check(ports.inputs, ports.outputs, 0)
        self.read = GivenFrames(ports, given)
        self.stem = nn.Conv3d(self.read.channels, width, (1, 3, 3), padding=(0, 1, 1))
        self.blocks = nn.ModuleList(ClipBlock(width, ports.inputs[1], self.read.known, heads) for _ in range(depth))
        last = nn.Conv3d(width, ports.outputs[0], (1, 3, 3), padding=(0, 1, 1))
        self.head = nn.Sequential(nn.GroupNorm(math.gcd(width, 8), width), nn.SiLU(), last)

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        inputs, context = self.read(inputs, context)
        hidden: Tensor = self.stem(inputs)
        for block in self.blocks:
            hidden = block(hidden, context)
        result: Tensor = self.head(hidden)
        return result


class ClipTransformer(Network):
    """A denoiser of clips whose every patch looks at all patches of all frames (Peebles & Xie 2023, section 3.2).

    What is known of a row scales and shifts what a block sees, and gates what it adds. Given frames come as in
    `ClipAttention`.

    Args:
        ports: from a clip (C, T, H, W) to one of the same size.
        width: of each position.
        depth: blocks.
        heads: of the attention; divides the width.
        patch: side of a square patch of a frame; divides height and width.
        given: whether the context holds given frames, before its last number, which says whether it is there.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        width: Count = 128,
        depth: Count = 4,
        heads: Count = 4,
        patch: Count = 2,
        given: bool = False,
    ) -> None:
        super().__init__(ports)
        _check(ports.inputs, ports.outputs, 0)
        channels, frames, height, side = ports.inputs
        self.read, self.patch = GivenFrames(ports, given), patch
        self.grid = (frames, *grid_of(height, side, patch))
        self.stem = nn.Linear(self.read.channels * patch**2, width)
        self.place = nn.Parameter(0.5 * torch.randn(math.prod(self.grid), width))
        self.blocks = nn.ModuleList(KnownBlock(width, self.read.known, heads) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels * patch**2))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        inputs, context = self.read(inputs, context)
        frames, rows, columns = self.grid
        patches = cut(inputs.transpose(1, 2).flatten(0, 1), self.patch)  # of each frame
        hidden = self.stem(patches.unflatten(0, (-1, frames)).flatten(1, 2)) + self.place
        for block in self.blocks:
            hidden = block(hidden, context)
        made = self.head(hidden).unflatten(1, (frames, rows * columns)).flatten(0, 1)
        return joined(made, rows, self.patch).unflatten(0, (-1, frames)).transpose(1, 2)


class KnownBlock(nn.Module):
    """An attention block that is told what is known of a row: see `ClipTransformer`.

    Args:
        width: of each position.
        known: width of what is known of a row, 0 where nothing is.
        heads: of the attention.
    """

    def __init__(self, width: int, known: int, heads: int) -> None:
        super().__init__()
        self.tell = nn.Sequential(nn.Linear(known, width), nn.SiLU(), nn.Linear(width, 3 * width)) if known else None
        self.along = AttentionBlock(width, heads, 0.0)

    def forward(self, hidden: Tensor, known: Tensor | None) -> Tensor:
        """(N, T, W) to the same shape."""
        if known is None or self.tell is None:
            return self.along(hidden)
        scale, shift, gate = self.tell(known)[:, None].chunk(3, dim=2)
        seen = hidden * (1 + scale) + shift
        return hidden + (1 + gate) * (self.along(seen) - seen)


class GivenFrames(nn.Module):
    """Takes given frames out of the context of a denoiser of clips, and puts them beside the noisy clip.

    Args:
        ports: of the denoiser, from a clip (C, T, H, W).
        given: whether there are any; without, all stays as it is.

    Attributes:
        channels: of the clip with what is beside it.
        known: width of the context that is left.

    Raises:
        ShapeError: frames are given, and the context is too short to hold them.
    """

    def __init__(self, ports: Ports, given: bool) -> None:
        super().__init__()
        self.clip, frames = ports.inputs, ports.inputs[1]
        self.held = math.prod(self.clip) + frames if given else 0
        if self.held >= max(1, ports.context):
            raise ShapeError(
                f"this network was told of given frames, {self.held} numbers, and the context has {ports.context}; "
                'train it on data of the kind "given-frames".'
            )
        self.channels = self.clip[0] + (self.clip[0] + 1 if given else 0)
        self.known = ports.context - self.held

    def forward(self, inputs: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The clip (N, C, T, H, W) with the given frames and a channel that says which they are, and the rest."""
        if context is None or not self.held:
            return inputs, context
        frames = self.clip[1]
        values, flags = context[:, -1 - self.held : -1].split([self.held - frames, frames], dim=1)
        mask = flags[:, None, :, None, None].expand(-1, 1, -1, *self.clip[2:])
        rest = torch.cat([context[:, : -1 - self.held], context[:, -1:]], dim=1)
        return torch.cat([inputs, values.unflatten(1, self.clip), mask], dim=1), rest


class ClipBlock(nn.Module):
    """A residual block of each frame, scaled and shifted by what is known, then attention along time.

    Args:
        width: channels.
        frames: of the clip.
        known: width of what is known of a row, 0 where nothing is.
        heads: of the attention.
    """

    def __init__(self, width: int, frames: int, known: int, heads: int) -> None:
        super().__init__()
        groups = math.gcd(width, 8)
        self.before, self.between = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.first, self.second = (nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)) for _ in range(2))
        self.tell = nn.Sequential(nn.Linear(known, width), nn.SiLU(), nn.Linear(width, 2 * width)) if known else None
        self.when = nn.Parameter(0.02 * torch.randn(frames, width))
        self.along = AttentionBlock(width, heads, 0.0)

    def forward(self, hidden: Tensor, known: Tensor | None) -> Tensor:
        """(N, W, T, h, w) to the same shape."""
        inner = self.between(self.first(functional.silu(self.before(hidden))))
        if known is not None and self.tell is not None:
            scale, shift = self.tell(known)[..., None, None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        hidden = hidden + self.second(functional.silu(inner))
        size = hidden.shape
        places = hidden.permute(0, 3, 4, 2, 1).reshape(-1, size[2], size[1])
        seen = self.along(places + self.when)
        return seen.reshape(size[0], *size[3:], size[2], size[1]).permute(0, 4, 3, 1, 2)


def _check(large: Shape, small: Shape, halvings: int) -> None:
    """Refuse what are no two clips of as many frames, the smaller the larger one halved so many times."""
    if len(large) != 4 or len(small) != 4:
        raise ShapeError(
            f"a network of clips needs clips (channels, frames, height, width) on both sides, and was given shapes "
            f"{list(large)} and {list(small)}; give a model of clips latents of that form, or use `convolutional-down`."
        )
    needed = (large[1], *(halved(side, halvings) for side in large[2:]))
    if small[1:] != needed:
        raise ShapeError(
            f"a clip of {list(large[1:])} (frames, height, width), halved {halvings} times in space, is one of "
            f"{list(needed)}, and {list(small[1:])} was asked for; choose latents of that size."
        )

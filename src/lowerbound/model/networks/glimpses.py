"""What is seen and where, apart: networks over clips of one thing that moves on an even ground."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count, Shape


class ClipGlimpse(Network):
    """Codes each frame alone: where the thing in it is, and what a square about that place shows.

    The place is the centre of what differs from the ground, a frame's median, moved so that pixels of the square are
    pixels of the frame. So the same thing has the same code elsewhere but for two numbers (Eslami et al. 2016, section
    2.1, where the place is inferred, too). Choose it for one thing that moves before an even ground.

    Args:
        ports: from a clip (C, T, H, W) to codes (C', T, 1, 1). The first two numbers of a code are the place, downwards
            and to the right, pixels from the middle; the mean of a Gaussian comes first, so that its are.
        network: from the square, (C, side, side), to the other numbers.
        side: of the square, pixels.
    """

    def __init__(self, ports: Ports, *, network: Part[Network] = Part(MLP), side: Count = 12) -> None:
        super().__init__(ports)
        _check(ports.inputs, ports.outputs)
        self.side = side
        self.network = network(Ports((ports.inputs[0], side, side), (ports.outputs[0] - 2,), ports.context))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        frames = inputs.transpose(1, 2).flatten(0, 1)
        ground = ground_of(frames.float())
        contrast = frames.float() - ground
        half = torch.tensor([0.5 * ((size - self.side) % 2) for size in frames.shape[2:]], device=frames.device)
        with torch.no_grad():  # where the thing is, and not where the network would like it to be
            where = (centre(contrast) + half).round() - half
        rows, columns = (hats(where[:, axis], self.side, frames.shape[2 + axis]) for axis in (0, 1))
        square = torch.einsum("nih,nchw,njw->ncij", rows, contrast, columns) + ground
        what = self.network(square.to(frames.dtype), _of_frames(context, inputs.shape[2]))
        code = torch.cat([where.to(what.dtype), what], dim=1)
        return code.unflatten(0, (-1, inputs.shape[2])).transpose(1, 2)[..., None, None]


class ClipSprite(Network):
    """Paints each frame alone: a square of what the code says, on an even ground, where it says (Eslami et al. 2016).

    Between pixels it is interpolated linearly (Jaderberg et al. 2015, eq. 5), so that the place has a gradient.

    Args:
        ports: from codes (C', T, 1, 1), as `ClipGlimpse` makes them, to a clip (C, T, H, W).
        network: from a code without its place to the square, (C, side, side).
        side: of the square, pixels.
    """

    def __init__(self, ports: Ports, *, network: Part[Network] = Part(MLP), side: Count = 12) -> None:
        super().__init__(ports)
        _check(ports.outputs, ports.inputs)
        self.side, self.size = side, ports.outputs[2:]
        self.ground = nn.Parameter(torch.zeros(ports.outputs[0], 1, 1))
        self.network = network(Ports((ports.inputs[0] - 2,), (ports.outputs[0], side, side), ports.context))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        codes = inputs[..., 0, 0].transpose(1, 2).flatten(0, 1)
        square = self.network(codes[:, 2:], _of_frames(context, inputs.shape[2]))
        rows, columns = (hats(codes[:, axis].float(), self.side, self.size[axis]) for axis in (0, 1))
        frames = torch.einsum("nih,ncij,njw->nchw", rows, square.float(), columns) + self.ground
        return frames.to(square.dtype).unflatten(0, (-1, inputs.shape[2])).transpose(1, 2)


def ground_of(frames: Tensor) -> Tensor:
    """The median of each channel of each frame (N, C, H, W), (N, C, 1, 1)."""
    flat = frames.flatten(2)
    return flat.sort(dim=2).values[..., flat.shape[2] // 2, None, None]


def centre(contrast: Tensor) -> Tensor:
    """Where frames (N, C, H, W) are not 0, (N, 2), pixels from the middle; 0 if they are so everywhere.

    Places are weighted by the square of the value, over all channels.
    """
    weight = contrast.square().sum(dim=1)
    total = weight.sum(dim=(1, 2))
    found = []
    for axis, other in ((1, 2), (2, 1)):
        size = weight.shape[axis]
        places = torch.arange(size).to(weight) - 0.5 * (size - 1)
        found.append((weight.sum(dim=other) * places).sum(dim=1) / total.clamp_min(1e-12))
    return torch.stack(found, dim=1)


def hats(where: Tensor, side: int, size: int) -> Tensor:
    """How much of each of `size` pixels lies in each of `side` places about `where` (N,): (N, side, size).

    A place is a pixel wide, and takes from its two neighbours what linear interpolation does. The same weights read a
    square from a line of pixels and write it there (Gregor et al. 2015, eq. 27 and 29, with hats for Gaussians).
    """
    places, pixels = (torch.arange(length).to(where) - 0.5 * (length - 1) for length in (side, size))
    return (1 - (where[:, None, None] + places[:, None] - pixels).abs()).clamp_min(0)


def _of_frames(context: Tensor | None, frames: int) -> Tensor | None:
    """The context of rows (N, C) for each of their frames, (N * T, C)."""
    return None if context is None else context.repeat_interleave(frames, dim=0)


def _check(clip: Shape, code: Shape) -> None:
    """Refuse what are no clip and a code of two numbers at least and one more for each of its frames."""
    if len(clip) != 4 or len(code) != 4 or code[1:] != (clip[1], 1, 1) or code[0] < 3:
        frames = clip[1] if len(clip) == 4 else "T"
        raise ShapeError(
            f"a network of what and where goes between a clip (channels, frames, height, width) and codes of shape "
            f"[3 or more, {frames}, 1, 1], and was given {list(clip)} and {list(code)}; choose such a `latent`, or the "
            "networks `clip-down` and `clip-up`."
        )

"""What is seen and where, apart: networks over clips of one thing that moves on an even ground."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.fourier import waves
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count, Shape

SHARPNESS = 30.0  # of reading a place: the next ones get less than a hundred thousandth


class ClipGlimpse(Network):
    """Codes each frame alone: where the thing in it is, and what a square about that place shows.

    The place is the centre of what differs from the ground, a frame's median, moved so that pixels of the square are
    pixels of the frame. So the same thing has the same code elsewhere but for its place (Eslami et al. 2016, section
    2.1, where the place is inferred, too). Choose it for one thing that moves before an even ground.

    Args:
        ports: from a clip (C, T, H, W) to codes (C', T, 1, 1), which begin with the place as `Places` writes it; the
            mean of a Gaussian comes first, so that its does.
        network: from the square, (C, side, side), to the other numbers.
        side: of the square, pixels.
    """

    def __init__(self, ports: Ports, *, network: Part[Network] = Part(MLP), side: Count = 12) -> None:
        super().__init__(ports)
        self.places = Places(ports.inputs, ports.outputs, side)
        what = (ports.outputs[0] - self.places.numbers,)
        self.network = network(Ports((ports.inputs[0], side, side), what, ports.context))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        frames = inputs.transpose(1, 2).flatten(0, 1)
        ground = ground_of(frames.float())
        contrast = frames.float() - ground
        with torch.no_grad():  # where the thing is, and not where the network would like it to be
            where = self.places.written(centre(contrast))
        rows, columns = self.places.weights(where)
        square = torch.einsum("nih,nchw,njw->ncij", rows, contrast, columns) + ground
        what = self.network(square.to(frames.dtype), _of_frames(context, inputs.shape[2]))
        code = torch.cat([where.to(what.dtype), what], dim=1)
        return code.unflatten(0, (-1, inputs.shape[2])).transpose(1, 2)[..., None, None]


class ClipSprite(Network):
    """Paints each frame alone: a square of what the code says, on an even ground, where it says (Eslami et al. 2016).

    Args:
        ports: from codes (C', T, 1, 1), as `ClipGlimpse` makes them, to a clip (C, T, H, W).
        network: from a code without its place to the square, (C, side, side).
        side: of the square, pixels.
    """

    def __init__(self, ports: Ports, *, network: Part[Network] = Part(MLP), side: Count = 12) -> None:
        super().__init__(ports)
        self.places = Places(ports.outputs, ports.inputs, side)
        what = (ports.inputs[0] - self.places.numbers,)
        self.ground = nn.Parameter(torch.zeros(ports.outputs[0], 1, 1))
        self.network = network(Ports(what, (ports.outputs[0], side, side), ports.context))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        where, what = (
            part.squeeze(-1).squeeze(-1).transpose(1, 2).flatten(0, 1)
            for part in (inputs[:, : self.places.numbers], inputs[:, self.places.numbers :])
        )
        square = self.network(what, _of_frames(context, inputs.shape[2]))
        rows, columns = self.places.weights(where.float())
        frames = torch.einsum("nih,ncij,njw->nchw", rows, square.float(), columns) + self.ground
        return frames.to(square.dtype).unflatten(0, (-1, inputs.shape[2])).transpose(1, 2)


class Places:
    """Places of a square in a frame, written as waves and read by attention (Vaswani et al. 2017, section 3.5).

    Along each axis, sines and cosines of periods of 2 pixels and its doubles, up to twice the frame. A place that is
    off by a little is read as the nearest one, and steps of a pixel are as large as long ways, so that a model of codes
    sees both. The same weights read a square from a frame and write it there (Gregor et al. 2015, section 3.2).

    Args:
        clip: (C, T, H, W).
        code: (C', T, 1, 1).
        side: of the square, pixels.

    Attributes:
        numbers: how many a place is written with.

    Raises:
        ShapeError: what are no clip and a code of more numbers for each of its frames.
    """

    def __init__(self, clip: Shape, code: Shape, side: int) -> None:
        whole = len(clip) == 4 and len(code) == 4
        self.octaves = (max(clip[2:]) - 1).bit_length() + 1 if whole else 0
        self.numbers = 4 * self.octaves
        if not whole or code[1:] != (clip[1], 1, 1) or code[0] <= self.numbers:
            raise ShapeError(
                "a network of what and where goes between a clip (channels, frames, height, width) and codes (numbers, "
                f"frames, 1, 1) of more than {self.numbers} numbers, which say where, and was given {list(clip)} and "
                f"{list(code)}; choose such a `latent`, or the networks `clip-down` and `clip-up`."
            )
        self.side, self.sizes = side, clip[2:]

    def lattice(self, axis: int) -> Tensor:
        """The places along an axis at which pixels of the square are pixels of the frame, pixels from the middle."""
        size = self.sizes[axis]
        return torch.arange(-(size // 2), size // 2 + 1) - self._half(axis)

    def written(self, where: Tensor) -> Tensor:
        """Places (N, 2), pixels from the middle, moved to the nearest of the lattice and written, (N, numbers)."""
        halves = [self._half(axis) for axis in (0, 1)]
        near = [(along + half).round() - half for along, half in zip(where.unbind(1), halves, strict=True)]
        return torch.cat([self._waves(along) for along in near], dim=1)

    def weights(self, code: Tensor) -> list[Tensor]:
        """What of each pixel of a line of the frame is in each of the square, (N, side, H) and (N, side, W)."""
        found = []
        for axis, said in enumerate(code.chunk(2, dim=1)):
            lattice = self.lattice(axis).to(code)
            likeness = said @ self._waves(lattice).T / self.octaves  # 1 for the place that was written
            found.append(torch.einsum("np,psl->nsl", (SHARPNESS * likeness).softmax(dim=1), self._lines(lattice, axis)))
        return found

    def _half(self, axis: int) -> float:
        """How far the lattice lies from whole pixels from the middle."""
        return 0.5 * ((self.sizes[axis] - self.side) % 2)

    def _waves(self, where: Tensor) -> Tensor:
        return waves(where[:, None] / 2**self.octaves, self.octaves)

    def _lines(self, lattice: Tensor, axis: int) -> Tensor:
        """1 where a pixel of the square at a place is one of the frame, (P, side, size)."""
        inner, outer = (
            torch.arange(length).to(lattice) - 0.5 * (length - 1) for length in (self.side, self.sizes[axis])
        )
        return ((lattice[:, None, None] + inner[:, None] - outer).abs() < 0.25).to(lattice)


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


def _of_frames(context: Tensor | None, frames: int) -> Tensor | None:
    """The context of rows (N, C) for each of their frames, (N * T, C)."""
    return None if context is None else context.repeat_interleave(frames, dim=0)

"""A radiance field: a solid of light whose views are rendered, so that it can be learned from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count

REACH = math.sqrt(3) / 2  # from the middle of the unit cube to its corners
DENSITY = 40.0  # of the field per unit of length where its number is large; at 40 half of a ray is lost in 0.017


def camera(directions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The rays of orthographic views of the unit cube.

    Args:
        directions: from the middle to the camera, (N, 3), of any length; the third axis is up in every view.
        size: pixels along a side.

    Returns:
        Where the rays start, (N, size^2, 3), row by row from the top left, and where they go, of length 1, (N, 3).
    """
    back = functional.normalize(directions, dim=1)
    # Straight from above there is no up: a pole that leans a little decides.
    pole = back.new_tensor([[1e-4, 0.0, 1.0]]).expand_as(back)
    right = functional.normalize(torch.linalg.cross(pole, back), dim=1)
    up = torch.linalg.cross(back, right)
    line = (torch.arange(size, device=back.device, dtype=back.dtype) + 0.5) / size - 0.5
    across, down = line.repeat(size), line.repeat_interleave(size)
    start = across[:, None] * right[:, None] - down[:, None] * up[:, None] + REACH * back[:, None]
    return start, -back


class RadianceField(Network):
    """Density and colour on a grid of the unit cube, and views of it by volume rendering.

    A ray gathers what each of its samples emits, weighted by what is left of the ray there: T_i (1 - exp(-s_i d)) c_i
    (Mildenhall et al. 2020, eq. 3). The background is black. The camera looks from the direction that the first three
    numbers of the context say, or of the input where there is no context: standard normal ones are directions all
    around, alike.

    Args:
        ports: to an image (C, size, size) on [0, 1].
        grid: of the field along a side.
        samples: along a ray.
        opacity: of the field at the beginning: what its density starts at is a ball around the middle.
    """

    def __init__(self, ports: Ports, *, grid: Count = 16, samples: Count = 32, opacity: float = -2.0) -> None:
        super().__init__(ports)
        if len(ports.outputs) != 3 or ports.outputs[1] != ports.outputs[2]:
            raise ShapeError(
                f"a radiance field makes square images (channels, size, size), and rows of shape {list(ports.outputs)} "
                "were asked for; give it views as data."
            )
        if (ports.context or math.prod(ports.inputs)) < 3:
            raise ShapeError(
                "a radiance field needs the direction of its camera, 3 numbers; give 3 latents or a context."
            )
        line = (torch.arange(grid) + 0.5) / grid - 0.5
        distance = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).norm(dim=0)
        self.density = nn.Parameter(opacity + 4 * (0.35 - distance)[None])
        self.colour = nn.Parameter(0.1 * torch.randn(ports.outputs[0], grid, grid, grid))
        self.samples, self.size = samples, ports.outputs[1]

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        known = inputs.flatten(1) if context is None else context
        return self.render(known[:, :3].to(self.density.dtype))

    def render(self, directions: Tensor) -> Tensor:
        """Views from directions (N, 3), (N, C, size, size)."""
        start, way = camera(directions, self.size)
        step = 2 * REACH / self.samples
        gone = (torch.arange(self.samples, device=start.device, dtype=start.dtype) + 0.5) * step
        points = start[:, :, None] + gone[:, None] * way[:, None, None]
        density, colour = self.at(points)
        clear = -density * step
        left = torch.cat([torch.zeros_like(clear[..., :1]), clear.cumsum(2)[..., :-1]], dim=2).exp()
        weight = left * -torch.expm1(clear)
        image = (weight[..., None] * colour).sum(dim=2)
        return image.transpose(1, 2).unflatten(2, (self.size, self.size))

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (N, ...) per unit of length, and colour (N, ..., C), at points (N, ..., 3); 0 outside of the cube."""
        field = torch.cat([self.density, self.colour])[None]
        # The last axis of a grid comes first in the coordinates of `grid_sample`, which go from -1 to 1.
        where = (2 * points.flip(-1)).reshape(1, 1, 1, -1, 3)
        found = functional.grid_sample(field, where, padding_mode="border", align_corners=False)
        raw = found.reshape(field.shape[1], *points.shape[:-1])
        inside = (points.abs() <= 0.5).all(-1)
        return DENSITY * torch.sigmoid(raw[0]) * inside, torch.sigmoid(raw[1:]).movedim(0, -1)

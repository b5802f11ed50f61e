"""Bijections that mix units or channels, and a coupling of grids: the steps of Glow (Kingma & Dhariwal 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.bijections.bijection import Bijection, Chain, Mapped, Place
from lowerbound.model.networks.gated import GatedGrid
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count, Shape

SCALE = 4.0  # log scales of one coupling lie between -4 and 4


class Mixing(Bijection):
    """Scales and shifts each channel, then turns all channels into mixtures of them: y = W (e^s z + b).

    Kingma & Dhariwal 2018, sections 3.1-3.2, with W = P L U (eq. 10-11), so that its determinant is a product. P, L and
    U start as those of a random rotation. Their scales start from a first batch of data; here they start at 1, because
    a pass changes nothing: let the preparation standardise instead.

    Args:
        place: in the flow; the first axis of its event is that of channels.
    """

    order: Tensor
    sign: Tensor

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.channels, self.positions = place.event[0], place.size // place.event[0]
        rotation = torch.linalg.qr(torch.randn(self.channels, self.channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("order", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())
        self.log_scale, self.shift = nn.Parameter(torch.zeros(self.channels)), nn.Parameter(torch.zeros(self.channels))

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        rows = z.reshape(len(z), self.channels, self.positions)
        scaled = rows * self.log_scale.exp()[:, None] + self.shift[:, None]
        lower, upper = self._triangles()
        return (self.order @ (lower @ (upper @ scaled))).flatten(1), self._log_det(z)

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        rows = y.reshape(len(y), self.channels, self.positions)
        lower, upper = self._triangles()
        found = torch.linalg.solve_triangular(lower, self.order.T @ rows, upper=False, unitriangular=True)
        found = torch.linalg.solve_triangular(upper, found, upper=True)
        return ((found - self.shift[:, None]) * (-self.log_scale).exp()[:, None]).flatten(1), self._log_det(y)

    def _triangles(self) -> Mapped:
        lower = self.lower.tril(-1) + torch.eye(self.channels, dtype=self.lower.dtype, device=self.lower.device)
        return lower, self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())

    def _log_det(self, rows: Tensor) -> Tensor:
        return (self.positions * (self.log_diagonal + self.log_scale).sum()).expand(len(rows))


class ChannelCoupling(Bijection):
    """One half of the channels says how the other is scaled and shifted at every position (Kingma & Dhariwal 2018).

    Args:
        place: of a grid (C, H, W) with two channels at least.
        network: from the half that stays to log scales and shifts of the other.
    """

    def __init__(self, place: Place, network: Part[Network]) -> None:
        super().__init__()
        self.event, self.kept = place.event, place.event[0] // 2
        outputs = (2 * (place.event[0] - self.kept), *place.event[1:])
        self.network = network(Ports((self.kept, *place.event[1:]), outputs, place.context))

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        kept, other = self._split(z)
        log_scale, shift = self._affine(kept, h)
        return torch.cat([kept, other * log_scale.exp() + shift], dim=1).flatten(1), log_scale.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        kept, other = self._split(y)
        log_scale, shift = self._affine(kept, h)
        found = (other - shift) * (-log_scale).exp()
        return torch.cat([kept, found], dim=1).flatten(1), log_scale.flatten(1).sum(dim=1)

    def _split(self, values: Tensor) -> Mapped:
        rows = values.unflatten(1, self.event)
        return rows[:, : self.kept], rows[:, self.kept :]

    def _affine(self, kept: Tensor, h: Tensor | None) -> Mapped:
        raw, shift = self.network(kept, h).chunk(2, dim=1)
        return raw / (1 + raw.abs() / SCALE), shift


class Glow(Bijection):
    """Scales of an image: squares of four pixels become channels, which mix and couple; then half of them leave.

    Kingma & Dhariwal 2018, section 3 and figure 2b; the scales are those of Dinh et al. 2017, section 3.6.

    Args:
        place: of an image (C, H, W) whose sides can be halved at each level.
        levels: scales.
        depth: steps of each scale: a mixture of channels, then a coupling.
        network: of each coupling.

    Raises:
        ShapeError: its rows are no such images.
    """

    def __init__(
        self, place: Place, *, levels: Count = 2, depth: Count = 4, network: Part[Network] = Part(GatedGrid)
    ) -> None:
        super().__init__()
        if len(place.event) != 3 or any(side % 2**levels for side in place.event[1:]):
            raise ShapeError(
                f"a Glow of {levels} levels needs images whose sides divide by {2**levels}, and the rows have shape "
                f"{list(place.event)}; use fewer levels, or another bijection."
            )
        self.event = place.event
        channels, height, width = 4 * place.event[0], place.event[1] // 2, place.event[2] // 2
        self.inner: Shape = (channels, height, width)
        here = Place(self.inner, place.context)
        self.steps = Chain([step for _ in range(depth) for step in (Mixing(here), ChannelCoupling(here, network))])
        self.leaving = channels // 2
        rest = Place((channels - self.leaving, height, width), place.context)
        self.rest = Glow(rest, levels=levels - 1, depth=depth, network=network) if levels > 1 else None

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        rows, log_det = z.unflatten(1, self.inner), z.new_zeros(len(z))
        if self.rest is not None:
            inside, log_det = self.rest(rows[:, self.leaving :].flatten(1), h)
            rows = torch.cat([rows[:, : self.leaving], inside.unflatten(1, self._inside)], dim=1)
        mixed, more = self.steps(rows.flatten(1), h)
        return nn.functional.pixel_shuffle(mixed.unflatten(1, self.inner), 2).flatten(1), log_det + more

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        squeezed = nn.functional.pixel_unshuffle(y.unflatten(1, self.event), 2)
        rows, log_det = self.steps.inverse(squeezed.flatten(1), h)
        if self.rest is not None:
            grid = rows.unflatten(1, self.inner)
            inside, more = self.rest.inverse(grid[:, self.leaving :].flatten(1), h)
            rows = torch.cat([grid[:, : self.leaving], inside.unflatten(1, self._inside)], dim=1).flatten(1)
            log_det = log_det + more
        return rows, log_det

    @property
    def _inside(self) -> Shape:
        return (self.inner[0] - self.leaving, *self.inner[1:])

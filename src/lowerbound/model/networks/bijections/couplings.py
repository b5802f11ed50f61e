"""Couplings: some units stay and say how the others move, so that both ways cost the same."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.bijections.bijection import Bijection, Mapped, Place
from lowerbound.model.networks.bijections.splines import rational_quadratic
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count, Positive

SCALE = 4.0  # log scales of one step lie between -4 and 4


class HalfCoupling(Bijection):
    """One half of the units stays, and at every other step the other half.

    Args:
        place: of two units at least.
        numbers: K, what the network says of each unit that moves.
        network: from the half that stays to K numbers for each unit of the other.

    Raises:
        ShapeError: there is one unit only.
    """

    def __init__(self, place: Place, numbers: int, network: Part[Network]) -> None:
        super().__init__()
        size = place.size
        if size < 2:
            raise ShapeError("a coupling flow needs two units at least, and there is one; use another density for one.")
        self.upper, self.first = place.odd, size // 2
        kept = size - self.first if self.upper else self.first
        self.network = network(Ports((kept,), (numbers * (size - kept),), place.context))

    @abstractmethod
    def move(self, values: Tensor, said: Tensor, back: bool) -> Mapped:
        """Where units (N, M) go, and the log slope there (N,), given what the network said (N, K M); or come from."""

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        return self._go(z, h, back=False)

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        return self._go(y, h, back=True)

    def _go(self, values: Tensor, h: Tensor | None, back: bool) -> Mapped:
        low, high = values[:, : self.first], values[:, self.first :]
        kept, other = (high, low) if self.upper else (low, high)
        moved, log_det = self.move(other, self.network(kept, h), back)
        return torch.cat([moved, kept] if self.upper else [kept, moved], dim=1), log_det


class Coupling(HalfCoupling):
    """One half says how the other is scaled and shifted (RealNVP; Dinh et al. 2017, eq. 7-8).

    Args:
        place: of two units at least.
        network: from the half that stays to log scales and shifts of the other.
    """

    def __init__(self, place: Place, *, network: Part[Network] = Part(MLP, widths=[64, 64])) -> None:
        super().__init__(place, 2, network)

    def move(self, values: Tensor, said: Tensor, back: bool) -> Mapped:
        raw, shift = said.chunk(2, dim=1)
        log_scale = raw / (1 + raw.abs() / SCALE)
        moved = (values - shift) * (-log_scale).exp() if back else values * log_scale.exp() + shift
        return moved, log_scale.sum(dim=1)


class AdditiveCoupling(HalfCoupling):
    """One half says how the other is shifted; volumes stay (NICE; Dinh et al. 2015, eq. 9-12).

    Args:
        place: of two units at least.
        network: from the half that stays to shifts of the other.
    """

    def __init__(self, place: Place, *, network: Part[Network] = Part(MLP, widths=[64, 64])) -> None:
        super().__init__(place, 1, network)

    def move(self, values: Tensor, said: Tensor, back: bool) -> Mapped:
        return (values - said if back else values + said), values.new_zeros(len(values))


class SplineCoupling(HalfCoupling):
    """One half says by which curve each unit of the other moves: a rational-quadratic spline (Durkan et al. 2019).

    Args:
        place: of two units at least.
        bins: pieces of each spline.
        bound: units within -bound and bound move by the spline, others stay.
        network: from the half that stays to widths, heights and slopes of the pieces of each unit of the other.
    """

    def __init__(
        self,
        place: Place,
        *,
        bins: Count = 8,
        bound: Positive = 5.0,
        network: Part[Network] = Part(MLP, widths=[64, 64]),
    ) -> None:
        self.bins, self.bound = bins, bound
        super().__init__(place, 3 * bins - 1, network)

    def move(self, values: Tensor, said: Tensor, back: bool) -> Mapped:
        pieces = said.unflatten(1, (values.shape[1], 3 * self.bins - 1))
        widths, heights, slopes = pieces.split([self.bins, self.bins, self.bins - 1], dim=2)
        moved, log_slope = rational_quadratic(values, widths, heights, slopes, self.bound, back)
        return moved, log_slope.sum(dim=1)

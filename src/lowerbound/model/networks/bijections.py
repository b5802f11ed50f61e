"""Bijections: networks that can be inverted, with the log-determinant of their Jacobian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.network import Network, Ports, with_context

Mapped = tuple[Tensor, Tensor]
SCALE = 4.0  # log scales of one step lie between -4 and 4


class Bijection(nn.Module, ABC):
    """An invertible function of z (N, D), given features h (N, C) or None."""

    @abstractmethod
    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        """y (N, D) and log |det dy/dz| (N,)."""

    @abstractmethod
    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        """z (N, D) and log |det dy/dz| (N,), the same as `forward` says at z."""


class Coupling(Bijection):
    """One half stays and says how the other is scaled and shifted (Dinh et al. 2017, eq. 7-8); both ways cost the same.

    Args:
        size: D, at least 2.
        context: C.
        upper: which half stays.
        network: from the half that stays to log scales and shifts of the other.
    """

    def __init__(self, size: int, context: int, upper: bool, network: Part[Network]) -> None:
        super().__init__()
        if size < 2:
            raise ShapeError("a coupling flow needs two units at least, and there is one; use another density for one.")
        self.upper, self.first = upper, size // 2
        kept = size - self.first if upper else self.first
        self.network = network(Ports((kept,), (2 * (size - kept),), context))

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        kept, other = self._split(z)
        log_scale, shift = self._affine(kept, h)
        return self._join(kept, other * log_scale.exp() + shift), log_scale.sum(dim=1)

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        kept, other = self._split(y)
        log_scale, shift = self._affine(kept, h)
        return self._join(kept, (other - shift) * (-log_scale).exp()), log_scale.sum(dim=1)

    def _affine(self, kept: Tensor, h: Tensor | None) -> Mapped:
        raw, shift = self.network(kept, h).chunk(2, dim=1)
        return raw / (1 + raw.abs() / SCALE), shift

    def _split(self, values: Tensor) -> Mapped:
        low, high = values[:, : self.first], values[:, self.first :]
        return (high, low) if self.upper else (low, high)

    def _join(self, kept: Tensor, other: Tensor) -> Tensor:
        return torch.cat([other, kept] if self.upper else [kept, other], dim=1)


class MaskedMLP(nn.Module):
    """A fully connected network whose outputs for unit d depend on units before d (Germain et al. 2015, eq. 12-13).

    Args:
        size: D.
        outputs: K numbers per unit.
        context: C, features that all outputs may depend on.
        widths: units of the hidden layers.
    """

    def __init__(self, size: int, outputs: int, context: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.size, self.outputs = size, outputs
        places = torch.arange(size)
        # A hidden unit of degree k sees the first k units; one of degree 0 sees the context only.
        degrees = [places + 1, *(torch.arange(width) % size for width in widths)]
        masks = [after[:, None] >= before for before, after in zip(degrees[:-1], degrees[1:], strict=True)]
        masks.append(places.repeat_interleave(outputs)[:, None] >= degrees[-1])
        masks[0] = torch.cat([masks[0], torch.ones(len(masks[0]), context, dtype=torch.bool)], dim=1)
        self.layers = nn.ModuleList(nn.Linear(mask.shape[1], mask.shape[0]) for mask in masks)
        for number, mask in enumerate(masks):
            self.register_buffer(f"mask{number}", mask.float(), persistent=False)

    def forward(self, z: Tensor, h: Tensor | None) -> Tensor:
        """(N, D) to (N, D, K)."""
        hidden = with_context(z, h)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            hidden = nn.functional.silu(hidden) if number else hidden
            hidden = linear(hidden, layer.weight * self.get_buffer(f"mask{number}"), layer.bias)
        return hidden.unflatten(1, (self.size, self.outputs))


class InverseAutoregressive(Bijection):
    """y_d = s_d z_d + (1 - s_d) m_d with s_d in (0, 1) and m_d from z_<d (Kingma et al. 2016, algorithm 1).

    One pass forward, D passes backward: fast to draw from, slow to score values that it did not draw.

    Args:
        size: D.
        context: C.
        widths: units of the hidden layers of the masked network.
        last_first: whether the order of units is reversed.
    """

    def __init__(self, size: int, context: int, widths: Sequence[int], last_first: bool) -> None:
        super().__init__()
        self.network, self.last_first = MaskedMLP(size, 2, context, widths), last_first

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        z = self._ordered(z)
        gate, shift = self._gates(z, h)
        y = gate.sigmoid() * z + (-gate).sigmoid() * shift
        return self._ordered(y), logsigmoid(gate).sum(dim=1)

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        y = self._ordered(y)
        z, log_det = torch.zeros_like(y), y.new_zeros(y.shape[0])
        for unit in range(y.shape[1]):
            gate, shift = (values[:, unit] for values in self._gates(z, h))
            found = (y[:, unit] - (-gate).sigmoid() * shift) / gate.sigmoid()
            z = torch.cat([z[:, :unit], found[:, None], z[:, unit + 1 :]], dim=1)
            log_det = log_det + logsigmoid(gate)
        return self._ordered(z), log_det

    def _gates(self, z: Tensor, h: Tensor | None) -> Mapped:
        gate, shift = self.network(z, h).unbind(dim=2)
        # At the start a gate is nearly open, so that a long chain is nearly the identity; it never closes for good.
        return 2 + gate / (1 + gate.abs() / SCALE), shift

    def _ordered(self, values: Tensor) -> Tensor:
        return values.flip(1) if self.last_first else values


class Chain(Bijection):
    """Bijections one after another.

    Args:
        steps: in the order from z to y.
    """

    def __init__(self, steps: Sequence[Bijection]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        log_det = z.new_zeros(z.shape[0])
        for step in self.steps:
            z, more = step(z, h)
            log_det = log_det + more
        return z, log_det

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        log_det = y.new_zeros(y.shape[0])
        for step in reversed(self.steps):
            assert isinstance(step, Bijection)
            y, more = step.inverse(y, h)
            log_det = log_det + more
        return y, log_det

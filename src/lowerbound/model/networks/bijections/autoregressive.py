"""Autoregressive bijections: every unit moves by those before it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from lowerbound.model.networks.bijections.bijection import Bijection, Mapped, Place
from lowerbound.model.networks.network import with_context
from lowerbound.model.spec import Widths

SCALE = 4.0  # how far a gate moves from where it starts


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


class Autoregressive(Bijection, ABC):
    """A masked network says two numbers of each unit from those before it; the order is reversed at every other step.

    Args:
        place: in the flow.
        widths: units of the hidden layers of the masked network.
    """

    def __init__(self, place: Place, *, widths: Widths = (64, 64)) -> None:
        super().__init__()
        self.network, self.last_first = MaskedMLP(place.size, 2, place.context, widths), place.odd

    def _ordered(self, values: Tensor) -> Tensor:
        return values.flip(1) if self.last_first else values


class InverseAutoregressive(Autoregressive):
    """y_d = s_d z_d + (1 - s_d) m_d with s_d in (0, 1) and m_d from z_<d (Kingma et al. 2016, algorithm 1).

    One pass forward, D passes backward: fast to draw from, slow to score values that it did not draw. The order of
    units is reversed at every other step.

    Args:
        place: in the flow.
        widths: units of the hidden layers of the masked network.
    """

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


class MaskedAutoregressive(Autoregressive):
    """y_d = exp(a_d) z_d + m_d with a_d and m_d from y_<d (MAF; Papamakarios et al. 2017, eq. 3-5).

    One pass to score, D passes to draw: for densities of data. The order of units is reversed at every other step.

    Args:
        place: in the flow.
        widths: units of the hidden layers of the masked network.
    """

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        z = self._ordered(z)
        y, log_det = torch.zeros_like(z), z.new_zeros(z.shape[0])
        for unit in range(z.shape[1]):
            log_scale, shift = (values[:, unit] for values in self._affine(y, h))
            found = log_scale.exp() * z[:, unit] + shift
            y = torch.cat([y[:, :unit], found[:, None], y[:, unit + 1 :]], dim=1)
            log_det = log_det + log_scale
        return self._ordered(y), log_det

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        y = self._ordered(y)
        log_scale, shift = self._affine(y, h)
        return self._ordered((y - shift) * (-log_scale).exp()), log_scale.sum(dim=1)

    def _affine(self, y: Tensor, h: Tensor | None) -> Mapped:
        raw, shift = self.network(y, h).unbind(dim=2)
        return raw / (1 + raw.abs() / SCALE), shift

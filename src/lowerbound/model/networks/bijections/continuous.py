"""A bijection that is the flow of an ordinary differential equation."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.bijections.bijection import Bijection, Mapped, Place
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count

LARGEST = 64  # units whose trace is still summed one by one


class Continuous(Bijection):
    """y = z(1) with dz/dt = f(z, t), and log |det dy/dz| the integral of the trace of df/dz (Grathwohl et al. 2019).

    Their eq. 3-4, but the trace is exact, one backward pass a unit, where they estimate it: a density whose logarithm
    is a random estimate could have no bound of importance weights. Steps are Runge and Kutta's of the fourth order, and
    fixed, so the inverse and the determinant are those of the equation up to the solver's error.

    Args:
        place: of at most 64 units.
        steps: of the solver.
        network: f, from z and t (and features); its activations must be smooth.

    Raises:
        ShapeError: there are more units.
    """

    def __init__(
        self, place: Place, *, steps: Count = 8, network: Part[Network] = Part(MLP, widths=[64, 64], activation="tanh")
    ) -> None:
        super().__init__()
        if place.size > LARGEST:
            raise ShapeError(
                f"a continuous flow sums the trace of its Jacobian unit by unit, which is too slow for {place.size} of "
                f"them (at most {LARGEST}); use couplings."
            )
        self.steps = steps
        self.network = network(Ports((place.size,), (place.size,), place.context + 1))

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        return self._solve(z, h, 0.0, 1.0)

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        z, log_det = self._solve(y, h, 1.0, 0.0)
        return z, -log_det

    def _solve(self, values: Tensor, h: Tensor | None, start: float, end: float) -> Mapped:
        """Where the equation leads, and the integral of the trace on the way."""
        dt = (end - start) / self.steps
        log_det = values.new_zeros(len(values))
        for step in range(self.steps):
            t = start + step * dt
            v1, d1 = self._slope(values, t, h)
            v2, d2 = self._slope(values + 0.5 * dt * v1, t + 0.5 * dt, h)
            v3, d3 = self._slope(values + 0.5 * dt * v2, t + 0.5 * dt, h)
            v4, d4 = self._slope(values + dt * v3, t + dt, h)
            values = values + dt / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
            log_det = log_det + dt / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        return values, log_det

    def _slope(self, values: Tensor, t: float, h: Tensor | None) -> Mapped:
        """f (N, D) and the trace of its Jacobian (N,)."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = values if values.requires_grad else values.detach().requires_grad_()
            time = torch.full_like(inputs[:, :1], t)
            slope = self.network(inputs, time if h is None else torch.cat([time, h], dim=1))
            parts = [
                torch.autograd.grad(slope[:, unit].sum(), inputs, create_graph=keep, retain_graph=True)[0][:, unit]
                for unit in range(values.shape[1])
            ]
        trace = torch.stack(parts).sum(dim=0)
        return (slope, trace) if keep else (slope.detach(), trace.detach())

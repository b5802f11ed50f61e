"""Relief of the rate: what brings latents back into use after a collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Needs, Objective
from lowerbound.noise import Noise

DECAY = 0.9  # of the moving average of each unit's rate


class Relief(Objective):
    """Another objective, from which a part of the rate is taken away for some time: the less a unit carries, the more.

    While it lasts, the loss is that objective's less beta * sum_j (1 - w_j) rate_j, where w_j = min(1, m_j / floor)
    and m_j is the mean rate of unit j over recent steps. So a unit that carries nothing pays nothing, as at the start
    of a warm-up, and one that carries `floor` nats pays in full, so that no rate runs away; weights in proportion to
    what is carried are those of Vahdat & Kautz 2020, per unit. The floor falls along a line to what is to stay of it;
    at 0 the loss is the other objective's again. Until `begin` is called it always is.

    The weights come from the steps before, so that micro-batches and processes all have the same. Where units do not
    factorise, each carries its share of the group.

    Args:
        inner: the objective.
        units: of all groups of latents together.
        floor: nats per unit at which the rate weighs in full, at the start.
        steps: over which the floor falls.
    """

    start: Tensor
    stays: Tensor
    carried: Tensor

    def __init__(self, inner: Objective, units: int, *, floor: float, steps: int) -> None:
        super().__init__()
        self.inner, self.floor, self.steps = inner, floor, steps
        self.needs, self.players = inner.needs, inner.players
        self.register_buffer("start", torch.tensor(-1))
        self.register_buffer("stays", torch.zeros(()))
        self.register_buffer("carried", torch.zeros(units))

    def begin(self, step: int, stays: float) -> None:
        """Relieve the rate from optimiser step `step` on; of the floor, `stays` nats per unit stay for good."""
        self.start.fill_(step)
        self.stays.fill_(stays)
        self.carried.zero_()

    def needs_at(self, step: int) -> Needs:
        return self.inner.needs_at(step)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        loss, floor = self.inner(evidence, step, player, noise), self._floor(step)
        if floor is None or player == "critic":
            return loss
        rates = _per_unit(evidence)
        mean = rates.mean(dim=0)
        relief = (1 - self.weights(floor)) * loss.parts.get("beta", 1.0)
        parts = {"relief_floor_nats": mean.new_tensor(floor), "relief_nats": (relief * mean).sum().detach()}
        statistics = {"relief_rates": rates.sum(dim=0).detach(), "relief_rows": mean.new_tensor(float(len(rates)))}
        value = loss.value - (relief * mean).sum()
        return Loss(value, {**loss.parts, "loss": value.detach(), **parts}, {**loss.statistics, **statistics})

    def weights(self, floor: float) -> Tensor:
        """What each unit's rate weighs, (units,), from 0 to 1."""
        return (self.carried / max(floor, 1e-12)).clamp(0.0, 1.0)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        rest = dict(statistics)
        if "relief_rates" in rest:
            mean = rest.pop("relief_rates") / rest.pop("relief_rows")
            self.carried.lerp_(mean.to(self.carried.dtype), 1 - DECAY)
        self.inner.absorb(rest)

    def _floor(self, step: int) -> float | None:
        """The floor at a step; None where nothing is relieved."""
        start = int(self.start)
        if start < 0:
            return None
        stays = float(self.stays)
        floor = stays + (self.floor - stays) * max(0.0, 1 - (step - start) / self.steps)
        return floor if floor > 0 else None


def _per_unit(evidence: Evidence) -> Tensor:
    """The rate of each unit of all groups, (B, units), nats; the share of its group where units do not factorise."""
    try:
        rates = evidence.rates_per_unit()
    except NotSupportedError:
        rates = {}
        for name, rate in evidence.rates()[1].items():
            units = math.prod(evidence.latents[name].z.shape[2:])
            rates[name] = (rate / units).unsqueeze(2).expand(*rate.shape, units)
    return torch.cat([evidence.average(rate).flatten(1) for rate in rates.values()], dim=1)

"""Objectives that shape the rate by its mean over the batch of all processes: free bits, capacity, balance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Needs, Objective, bound_loss
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class FreeBits(Objective):
    """distortion + beta * sum_j max(free_bits, mean rate of j) + penalties (Kingma et al. 2016, appendix C.8).

    The mean is over the batch, not per row. A unit or group below its floor costs nothing more, so that it is not
    pushed to collapse. The reported ELBO is never the clamped one.

    Args:
        settings: from the assembly.
        free_bits: the floor of each unit or group, nats; a schedule.
        per: whether units or groups have a floor each; a prior that does not factorise has groups only.
        beta: a schedule of the clamped rate's weight.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        free_bits: Schedule = constant(value=0.5),
        per: Literal["unit", "group"] = "unit",
        beta: Schedule = constant(value=1.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.free_bits, self.per, self.beta, self.penalties = free_bits, per, beta, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        floor, beta, rates = self.free_bits(step), self.beta(step), evidence.rates()
        if not evidence.latents:
            raise NotSupportedError("`free-bits` has a floor for each unit, and this model has no latents; use `elbo`.")
        each = _means(evidence, evidence.rates_per_unit() if self.per == "unit" else rates[1])
        clamped = torch.cat([mean.clamp_min(floor).flatten() for mean in each.values()]).sum()
        below = torch.cat([(mean < floor).flatten() for mean in each.values()]).sum()
        parts: dict[str, float | Tensor] = {"beta": beta, "free_bits_nats": floor, "clamped_rate_nats": clamped}
        parts[f"{self.per}s_at_floor"] = below
        return bound_loss(evidence, beta * clamped, rates, self.penalties, parts)


class Capacity(Objective):
    """distortion + weight * |mean rate - capacity| + penalties, with a capacity that grows (Burgess et al. 2018).

    Args:
        settings: from the assembly.
        capacity: the rate to hold, nats; a schedule.
        weight: of the deviation; large enough to bind.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        capacity: Schedule,
        weight: Schedule = constant(value=30.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.capacity, self.weight, self.penalties = capacity, weight, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        capacity, weight, rates = self.capacity(step), self.weight(step), evidence.rates()
        mean = evidence.average(evidence.rate(rates)).mean()
        parts = {"capacity_nats": capacity, "capacity_weight": weight}
        return bound_loss(evidence, weight * (mean - capacity).abs(), rates, self.penalties, parts)


class Balanced(Objective):
    """distortion + beta * sum_l g_l rate_l + penalties: groups of a hierarchy warm up together (Vahdat & Kautz 2020).

    While beta < 1, the weight g_l of a group is in proportion to its mean rate per unit, with mean 1 over groups: a
    group that says little is cheap, so that it is not turned off early. From beta = 1 on every weight is 1, and the
    loss is the ELBO's.

    Args:
        settings: from the assembly.
        beta: a schedule of the rate's weight.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    # Added to each group's mean rate, nats, so that no weight is 0 (as in the code of the paper).
    LEAST = 0.01

    def __init__(self, settings: Settings, *, beta: Schedule, penalties: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.beta, self.penalties = beta, dict(penalties or {})
        self.units = [math.prod(shape) for shape in settings.latents.values()]

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        beta, rates = self.beta(step), evidence.rates()
        means = torch.stack(list(_means(evidence, rates[1]).values()))
        balance = self.balance(means.detach()) if beta < 1 else torch.ones_like(means)
        named = {f"balance_{name}": weight for name, weight in zip(rates[1], balance, strict=True)}
        return bound_loss(evidence, beta * (balance * means).sum(), rates, self.penalties, {"beta": beta, **named})

    def balance(self, means: Tensor) -> Tensor:
        """The weight of each group, (L,), from mean rates (L,), nats."""
        per_unit = (means.abs() + self.LEAST) / means.new_tensor(self.units)
        return per_unit / per_unit.mean()


def _means(evidence: Evidence, rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean over samples and rows, (S, B, *units) -> (*units)."""
    return {name: evidence.average(rate).mean(dim=0) for name, rate in rates.items()}

"""Whether the latents are used."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.result import Result, number
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import Noise

ACTIVE = 0.01  # Burda et al. 2016, section 5: a unit is active if Var_x(E_q[z|x]) is above this


@torch.no_grad()
def latent_results(model: Family, batches: Iterable[tuple[Tensor, Context | None, Noise]]) -> dict[str, Result]:
    """Rate per unit, and active units, of each group of continuous latents whose units are independent.

    Names carry the group where there are several: `active_units_z1`.
    """
    means: dict[str, list[Tensor]] = {}
    rates: dict[str, list[Tensor]] = {}
    for x, context, noise in batches:
        for name, latent in model.evidence(x, context, noise.child("latents")).latents.items():
            try:
                rate = latent.closed_per_unit()
            except NotSupportedError:
                try:
                    rate = latent.sampled_per_unit()
                except NotSupportedError:
                    continue
            means.setdefault(name, []).append(tree.point(latent.q).expand(rate.shape)[0].flatten(1))
            rates.setdefault(name, []).append(rate[0].flatten(1))
    results: dict[str, Result] = {}
    for name in means:
        suffix = f"_{name}" if len(means) > 1 else ""
        mu, rate = torch.cat(means[name]).double(), torch.cat(rates[name]).double()
        active = (mu.var(dim=0) > ACTIVE).sum().item()
        results[f"active_units{suffix}"] = number(float(active), "estimate", len(mu))
        results[f"units{suffix}"] = number(float(mu.shape[1]), "exact", len(mu))
        results[f"rate_per_unit{suffix}_nats"] = number(rate.mean(dim=0), "estimate", len(rate))
    return results

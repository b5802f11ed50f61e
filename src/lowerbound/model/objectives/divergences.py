"""Objectives about the aggregate posterior: they need the batch of all processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.objectives.objective import Loss, Needs, Objective, bound_parts
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


def decompose_rate(latent: Latent, examples: int) -> dict[str, Tensor]:
    """Split the rate into mutual information, total correlation and dimension-wise KL (Chen et al. 2018, eq. 2).

    The aggregate posterior is estimated from the batch by minibatch-weighted sampling (eq. 7); the three add up to
    the sampled rate exactly.

    Args:
        latent: one group whose posterior factorises; S = 1 is used.
        examples: rows in the training set, N.

    Returns:
        "mutual_information", "total_correlation", "dimension_wise_kl", each (B,), nats.
    """
    q, p = tree.factors(latent.q), tree.factors(latent.p)
    z = latent.z[0]
    rows = z.shape[0]
    pairs = q.log_prob(z.unsqueeze(1)).flatten(2)  # log q(z_i,d | x_j), (i, j, D)
    own = q.log_prob(z).flatten(1)
    scale = math.log(rows * examples)
    log_q_aggregate = torch.logsumexp(pairs.sum(dim=2), dim=1) - scale
    log_q_marginals = torch.logsumexp(pairs, dim=1) - scale
    return {
        "mutual_information": own.sum(dim=1) - log_q_aggregate,
        "total_correlation": log_q_aggregate - log_q_marginals.sum(dim=1),
        "dimension_wise_kl": (log_q_marginals - p.log_prob(z).flatten(1)).sum(dim=1),
    }


class TotalCorrelation(Objective):
    """The beta-TCVAE: distortion + I(x; z) + beta * total correlation + dimension-wise KL (Chen et al. 2018, eq. 4).

    Args:
        settings: from the assembly.
        beta: weight of the total correlation.
    """

    def __init__(self, settings: Settings, *, beta: Schedule = constant(value=6.0)) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.beta, self.examples = beta, settings.data.examples

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        terms: dict[str, Tensor] = {}
        for latent in evidence.latents.values():
            for name, term in decompose_rate(latent, self.examples).items():
                terms[name] = terms.get(name, torch.zeros_like(term)) + term
        beta = self.beta(step)
        weighted = terms["mutual_information"] + beta * terms["total_correlation"] + terms["dimension_wise_kl"]
        value = (evidence.average(evidence.reconstruction()) + weighted).mean()
        named = {f"{name}_nats": term.mean().detach() for name, term in terms.items()}
        return Loss(value, {"loss": value.detach()} | bound_parts(evidence) | named)

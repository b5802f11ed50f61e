"""Objectives about the aggregate posterior: they need the batch of all processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.objectives.objective import Loss, Needs, Objective, bound_parts
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise

# From (rows of the batch B, rows of the training set N) to log weights (B, B) of the posterior of row j in the estimate
# of the aggregate posterior at the draw of row i.
Weights = Callable[[int, int], Tensor]


def weighted(rows: int, examples: int) -> Tensor:
    """Minibatch-weighted sampling (Chen et al. 2018, section 4.1): every posterior of the batch counts 1 / (N B).

    Simple and biased: log q(z) comes out too low, by up to log N where the posteriors overlap, and the mutual
    information too high by as much. The gradient differs less than the value.
    """
    return torch.full((rows, rows), -math.log(rows * examples))


def stratified(rows: int, examples: int) -> Tensor:
    """Minibatch-stratified sampling (Chen et al. 2018, appendix C.2): q(z) without bias, M = B - 1.

    The row's own posterior counts 1/N, one other (N - M) / (N M) and all the rest 1/M, so that the weights of a row add
    up to 1 and q(z) is right on average over batches. Its logarithm is too low on average.
    """
    own, other = 1 / examples, max(1, rows - 1)
    weights = torch.full((rows, rows), 1 / other, dtype=torch.float64)
    place = torch.arange(rows)
    weights[place, (place + 1) % rows] = (examples - other) / (examples * other)
    weights[place, place] = own if rows > 1 else 1.0
    return weights.log()


ESTIMATORS: dict[str, Weights] = {"weighted": weighted, "stratified": stratified}


def decompose_rate(latent: Latent, examples: int, weights: Weights = weighted) -> dict[str, Tensor]:
    """Split the rate into mutual information, total correlation and dimension-wise KL (Chen et al. 2018, eq. 2).

    The aggregate posterior is estimated from the batch; the three add up to the sampled rate exactly, whatever the
    weights.

    Args:
        latent: one group whose posterior and prior factorise; S = 1 is used.
        examples: rows in the training set, N; taken as the batch's where it has more.
        weights: `weighted` or `stratified`.

    Returns:
        "mutual_information", "total_correlation", "dimension_wise_kl", each (B,), nats.
    """
    q, p = tree.factors(latent.q), tree.factors(latent.p)
    z = latent.z[0]
    rows = z.shape[0]
    pairs = q.log_prob(z.unsqueeze(1)).flatten(2)  # log q(z_i,d | x_j), (i, j, D)
    own = q.log_prob(z).flatten(1)
    log_weights = weights(rows, max(rows, examples)).to(pairs)
    log_q_aggregate = torch.logsumexp(pairs.sum(dim=2) + log_weights, dim=1)
    log_q_marginals = torch.logsumexp(pairs + log_weights[:, :, None], dim=1)
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
        estimator: of the aggregate posterior from the batch: "weighted" or "stratified" sampling.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        beta: Schedule = constant(value=6.0),
        estimator: Literal["weighted", "stratified"] = "weighted",
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.beta, self.examples, self.weights = beta, settings.data.examples, ESTIMATORS[estimator]

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        terms: dict[str, Tensor] = {}
        for latent in evidence.latents.values():
            for name, term in decompose_rate(latent, self.examples, self.weights).items():
                terms[name] = terms.get(name, torch.zeros_like(term)) + term
        beta = self.beta(step)
        weighted = terms["mutual_information"] + beta * terms["total_correlation"] + terms["dimension_wise_kl"]
        value = (evidence.average(evidence.reconstruction()) + weighted).mean()
        named = {f"{name}_nats": term.mean().detach() for name, term in terms.items()}
        return Loss(value, {"loss": value.detach()} | bound_parts(evidence) | named)

"""Objectives that hold the second moments of the aggregate posterior at those of a standard prior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence
from lowerbound.model.objectives.objective import Loss, Needs, Objective, bound_loss
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class Moments(Objective):
    """distortion + rate + off_diagonal * sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2 + penalties.

    C is a covariance over the batch of all processes; each group of latents has its own. Kumar et al. 2018, eq. 6-7.

    Args:
        settings: from the assembly.
        off_diagonal: a schedule of the weight of what units have in common.
        diagonal: a schedule of the weight of the deviation of their variances from 1.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        off_diagonal: Schedule = constant(value=10.0),
        diagonal: Schedule = constant(value=10.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.needs = Needs(global_batch=True)
        self.off_diagonal, self.diagonal, self.penalties = off_diagonal, diagonal, dict(penalties or {})

    @abstractmethod
    def covariance(self, q: Distribution) -> Tensor:
        """C, (D, D), of the posteriors of the batch."""

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        rates = evidence.rates()
        off, on = self.penalties_of([self.covariance(latent.q) for latent in evidence.latents.values()])
        rate = evidence.average(evidence.rate(rates)).mean()
        total = rate + self.off_diagonal(step) * off + self.diagonal(step) * on
        return bound_loss(evidence, total, rates, self.penalties, {"off_diagonal": off, "diagonal": on})

    @staticmethod
    def penalties_of(covariances: list[Tensor]) -> tuple[Tensor, Tensor]:
        """sum_{i != j} C_ij^2 and sum_i (C_ii - 1)^2 over groups, both ()."""
        diagonals = [covariance.diagonal() for covariance in covariances]
        off = [
            covariance.square().sum() - diagonal.square().sum()
            for covariance, diagonal in zip(covariances, diagonals, strict=True)
        ]
        return torch.stack(off).sum(), torch.stack([(diagonal - 1).square().sum() for diagonal in diagonals]).sum()


class DIPI(Moments):
    """DIP-VAE I: `Moments` with C = Cov_x(E_q[z]), the covariance of the posteriors' means (Kumar et al. 2018, eq. 6).

    The variances of the posteriors are free, so the diagonal's term pushes units to say much.
    """

    def covariance(self, q: Distribution) -> Tensor:
        return covariance_of_means(q)


class DIPII(Moments):
    """DIP-VAE II: `Moments` with C = Cov_x(E_q[z]) + E_x[Cov_q(z)], that of q(z) (Kumar et al. 2018, eq. 7)."""

    def covariance(self, q: Distribution) -> Tensor:
        return covariance_of_means(q) + mean_covariance(q)


def covariance_of_means(q: Distribution) -> Tensor:
    """Cov(E_q[z]) over the rows of a batch, (D, D), with 1/B."""
    units = tree.factors(q).mean if not hasattr(q, "covariance") else q.mean
    means = _flat(units, q)
    centred = means - means.mean(dim=0)
    return centred.T @ centred / len(means)


def mean_covariance(q: Distribution) -> Tensor:
    """The posteriors' own covariance, a mean over the rows of a batch, (D, D)."""
    if hasattr(q, "covariance"):
        own: Tensor = q.covariance
        return own.flatten(0, -3).mean(dim=0)
    return torch.diag(_flat(tree.factors(q).variance, q).mean(dim=0))


def _flat(values: Tensor, q: Distribution) -> Tensor:
    """(*batch, *units) to (rows, D)."""
    return values.reshape(q.batch_shape.numel(), -1)

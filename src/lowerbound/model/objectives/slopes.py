"""What keeps a critic from being too steep: penalties on its gradient, and bounds on its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lowerbound.model.networks.network import Network
from lowerbound.model.networks.spectral import SpectralNorms
from lowerbound.model.spec import Positive
from lowerbound.noise import Noise

Score = Callable[[Tensor], Tensor]  # rows (N, *event) to scores (N,)


class Penalty(ABC):
    """A term of the critic's loss."""

    @abstractmethod
    def __call__(self, score: Score, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        """(), for rows (B, *event) of both kinds."""


class NoPenalty(Penalty):
    """Nothing."""

    def __call__(self, score: Score, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return real.new_zeros(())


class GradientPenalty(Penalty):
    """weight E (|grad D(y)| - 1)^2 at y between a real row and a made one (Gulrajani et al. 2017, eq. 3).

    Args:
        weight: lambda.
    """

    def __init__(self, *, weight: Positive = 10.0) -> None:
        self.weight = weight

    def __call__(self, score: Score, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        share = noise.child("between").uniform(1)[0].to(real.dtype).reshape(-1, *(1,) * (real.ndim - 1))
        squared = slopes(score, share * real + (1 - share) * fake)
        return self.weight * ((squared + 1e-12).sqrt() - 1).square().mean()


class RealGradientPenalty(Penalty):
    """weight / 2 E |grad D(x)|^2 at real rows, R1 (Mescheder et al. 2018, eq. 9).

    Args:
        weight: gamma.
    """

    def __init__(self, *, weight: Positive = 1.0) -> None:
        self.weight = weight

    def __call__(self, score: Score, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return 0.5 * self.weight * slopes(score, real).mean()


def slopes(score: Score, rows: Tensor) -> Tensor:
    """Squared norms of the gradient of the score at each of the rows, (N,), with gradient."""
    inputs = rows.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(inputs).sum(), inputs, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)


class Weights(nn.Module, ABC):
    """How a critic's weights are held.

    Args:
        network: the critic.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()

    @abstractmethod
    def apply_to(self, network: Network, rows: Tensor, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What the critic says, (N, 1), and statistics to absorb."""

    def absorb(self, network: Network, statistics: dict[str, Tensor]) -> None:
        """After a step that was taken."""


class FreeWeights(Weights):
    """As they are."""

    def apply_to(self, network: Network, rows: Tensor, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        return network(rows, context), {}


class ClippedWeights(FreeWeights):
    """Every weight stays within a box (Arjovsky et al. 2017, algorithm 1).

    Args:
        network: the critic.
        limit: of each weight's size.
    """

    def __init__(self, network: Network, *, limit: Positive = 0.01) -> None:
        super().__init__(network)
        self.limit = limit

    @torch.no_grad()
    def absorb(self, network: Network, statistics: dict[str, Tensor]) -> None:
        for parameter in network.parameters():
            parameter.clamp_(-self.limit, self.limit)


class SpectralWeights(Weights):
    """Each weight matrix is divided by its largest singular value (Miyato et al. 2018, eq. 8).

    So layers with slopes of at most 1 between them (ReLU and its kin) make a critic whose slope is at most 1.

    Args:
        network: the critic.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.norms = SpectralNorms(network)

    def apply_to(self, network: Network, rows: Tensor, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        values, statistics = self.norms(network)
        weights = dict(network.named_parameters())
        held = {name: weights[name] / value for name, value in zip(self.norms.names, values, strict=True)}
        return functional_call(network, held, (rows, context)), statistics

    def absorb(self, network: Network, statistics: dict[str, Tensor]) -> None:
        self.norms.absorb(statistics)

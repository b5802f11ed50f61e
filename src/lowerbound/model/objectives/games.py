"""Games between a generator and a critic: what each player wants, in logits or scores of the critic."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn.functional import relu, softplus

Scores = Tensor  # (N,), of a critic: large for rows that it takes for data


def critic_loss(real: Scores, fake: Scores) -> Tensor:
    """-E log D(real) - E log(1 - D(fake)) for logits (Goodfellow et al. 2014, eq. 1)."""
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(fake: Scores) -> Tensor:
    """The non-saturating loss -E log D(fake) for logits (Goodfellow et al. 2014, section 3)."""
    return softplus(-fake).mean()


class Game(ABC):
    """Two losses: means over rows."""

    @abstractmethod
    def critic(self, real: Scores, fake: Scores) -> Tensor:
        """What the critic minimises, ()."""

    @abstractmethod
    def generator(self, fake: Scores) -> Tensor:
        """What the generator minimises, ()."""


class Saturating(Game):
    """The minimax game (Goodfellow et al. 2014, eq. 1). At the best critic the generator gets 2 JSD - log 4.

    A critic that is sure gives the generator no gradient: it is here to be seen, not to be used.
    """

    def critic(self, real: Scores, fake: Scores) -> Tensor:
        return critic_loss(real, fake)

    def generator(self, fake: Scores) -> Tensor:
        return -softplus(fake).mean()


class NonSaturating(Saturating):
    """The same critic; the generator makes -log D of its rows small (Goodfellow et al. 2014, section 3)."""

    def generator(self, fake: Scores) -> Tensor:
        return generator_loss(fake)


class Wasserstein(Game):
    """The difference of mean scores, the distance where the critic's slope is at most 1 (Arjovsky et al. 2017, eq. 2).

    The critic must be held to that: by a penalty on its gradient, or by its weights.
    """

    def critic(self, real: Scores, fake: Scores) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Scores) -> Tensor:
        return -fake.mean()


class Hinge(Wasserstein):
    """The same generator; scores beyond 1 and -1 count no more for the critic (Lim & Ye 2017; Miyato et al. 2018)."""

    def critic(self, real: Scores, fake: Scores) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()

"""The objective of a GAN: a critic of made rows, and a generator that wants to please it."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.evidence import Evidence
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.objectives.games import Game, NonSaturating
from lowerbound.model.objectives.objective import Loss, Needs, Objective, Player
from lowerbound.model.objectives.slopes import FreeWeights, NoPenalty, Penalty, Weights
from lowerbound.model.spec import Count, Settings
from lowerbound.noise import Noise


class AdversarialSamples(Objective):
    """Any model that can be drawn from against a critic of rows: a GAN (Goodfellow et al. 2014, algorithm 1).

    Nothing in it looks at a likelihood, so no bound is reported. Give the players two time scales by
    `training.learning_rates.critic` (Heusel et al. 2017).

    Args:
        settings: from the assembly.
        critic: from a row of prepared data (and the context) to one score.
        game: what the two players want.
        penalty: on the critic's slope.
        weights: how the critic's weights are held.
        turns: of the critic for one of the generator.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        critic: Part[Network] = Part(MLP, widths=[128, 128], activation="leaky_relu"),
        game: Part[Game] = Part(NonSaturating),
        penalty: Part[Penalty] = Part(NoPenalty),
        weights: Part[Weights] = Part(FreeWeights),
        turns: Count = 1,
    ) -> None:
        super().__init__()
        self.needs = Needs(generated=True, global_batch=True)  # a critic may compare the rows of a batch
        self.players = (Player("critic", turns), Player("model"))
        self.critic = critic(Ports(settings.data.event, (1,), settings.data.context_features))
        self.game, self.penalty, self.weights = game(), penalty(), weights(self.critic)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        made, real = evidence.generated, evidence.x
        assert made is not None
        if not (real.is_floating_point() and made.is_floating_point()):
            raise NotSupportedError(
                "a critic needs rows of real numbers, through which it has a gradient, and this model makes whole "
                "numbers; use a model of intensities or of real numbers."
            )
        fake, statistics = self._score(made, evidence)
        if player != "critic":
            value = self.game.generator(fake)
            spread = made.flatten(1).std(dim=0).mean() / real.flatten(1).std(dim=0).mean().clamp_min(1e-12)
            return Loss(
                value, {"loss": value.detach(), "made_spread": spread.detach(), "made_reach": reach(made, real)}
            )
        seen, _ = self._score(real, evidence)
        value = self.game.critic(seen, fake)
        steep = self.penalty(lambda rows: self._score(rows, evidence)[0], real, made.detach(), noise)
        parts = {"critic_loss": value, "critic_gap": seen.mean() - fake.mean(), "critic_penalty": steep}
        return Loss(value + steep, {name: part.detach() for name, part in parts.items()}, statistics)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.weights.absorb(self.critic, statistics)

    def _score(self, rows: Tensor, evidence: Evidence) -> tuple[Tensor, dict[str, Tensor]]:
        known = None if evidence.context is None else evidence.context.features()
        scores, statistics = self.weights.apply_to(self.critic, rows, known)
        return scores.flatten().float(), statistics


@torch.no_grad()
def reach(made: Tensor, real: Tensor) -> Tensor:
    """Share of real rows that are nearest to some made row, over what equally many further real rows would reach, ().

    One over the number of rows if all made rows are one; near 1 if both have one distribution and few dimensions.

    Args:
        made, real: (N, *event).
    """
    rows = real.flatten(1).float()
    nearest = torch.cdist(made.flatten(1).float(), rows).argmin(dim=1)
    found = torch.zeros(len(rows), device=rows.device).index_fill(0, nearest, 1.0)
    return found.mean() / (1 - (1 - 1 / len(rows)) ** len(made))

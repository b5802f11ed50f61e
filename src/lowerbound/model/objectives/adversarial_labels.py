"""The adversarial autoencoder with a head for labels that are known in some rows only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.objectives.games import critic_loss, generator_loss
from lowerbound.model.objectives.objective import Loss, Objective, Player
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Settings
from lowerbound.noise import Noise


class AdversarialLabels(Objective):
    """The semi-supervised adversarial autoencoder (Makhzani et al. 2016, section 5), for the family "semi-supervised".

    distortion + weight * adversarial + penalties, of which "label" is the classifier's. The critic sees what the
    encoder says of a row, (q(y|x), z), against (one-hot y, z) of the prior. So beliefs become certain, classes equally
    frequent, and the code z independent of the class: the paper's two critics in one. There is no rate in the loss,
    and no bound is reported.

    Args:
        settings: from the assembly.
        critic: from beliefs and code, joined, to one logit.
        weight: of the adversarial term beside the distortion in nats.
        penalties: weight of each of the model's penalties by name; 1 where not given.
    """

    players = (Player("critic"), Player("model"))

    def __init__(
        self,
        settings: Settings,
        *,
        critic: Part[Network] = Part(MLP, widths=[128, 128], activation="leaky_relu"),
        weight: Schedule = constant(value=10.0),
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        units = settings.data.context + sum(math.prod(shape) for name, shape in settings.latents.items() if name != "y")
        self.critic = critic(Ports((units,), (1,)))
        self.weight, self.penalties = weight, dict(penalties or {})

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        if evidence.weights is None or "y" not in evidence.latents:
            raise NotSupportedError(
                "this objective needs a model that has a class among its latents, and this one has none; use the "
                "family `semi-supervised`, or the objective `adversarial-prior`."
            )
        fake = self.critic(_inferred(evidence, evidence.weights, noise.child("class")), None)
        if player == "critic":
            value = critic_loss(self.critic(_imagined(evidence, noise.child("prior")), None), fake)
            return Loss(value, {"critic_loss": value.detach()})
        parts = {"distortion_nats": evidence.average(evidence.reconstruction()).mean()}
        parts["adversarial"] = generator_loss(fake)
        value = parts["distortion_nats"] + self.weight(step) * parts["adversarial"]
        for name, penalty in evidence.penalties.items():
            parts[name] = evidence.average(penalty).mean()
            value = value + self.penalties.get(name, 1.0) * parts[name]
        return Loss(value, {name: part.detach() for name, part in ({"loss": value} | parts).items()})


def _inferred(evidence: Evidence, weights: Tensor, noise: Noise) -> Tensor:
    """q(y|x), and a draw of the code for a class that is drawn from it, (B, classes + units)."""
    chosen = (weights.log().T + noise.gumbel(1, (len(weights),))[0]).argmax(dim=1)
    rows = torch.arange(len(chosen), device=chosen.device)
    codes = [latent.z[chosen, rows].flatten(1) for name, latent in evidence.latents.items() if name != "y"]
    return torch.cat([weights.T.to(codes[0].dtype), *codes], dim=1)


def _imagined(evidence: Evidence, noise: Noise) -> Tensor:
    """The same of the prior: one-hot classes and codes."""
    draws = {name: tree.draw(latent.p, noise.child(name))[0][0] for name, latent in evidence.latents.items()}
    classes = torch.nn.functional.one_hot(draws.pop("y").long(), len(evidence.latents["y"].p.logits))  # type: ignore[attr-defined]
    codes = [draw.flatten(1) for draw in draws.values()]
    return torch.cat([classes.to(codes[0].dtype), *codes], dim=1)

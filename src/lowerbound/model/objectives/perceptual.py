"""Perceptual losses: how far reconstructions are from data in the features of a network that stays as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lowerbound.errors import NotSupportedError
from lowerbound.kinds import Part
from lowerbound.model.evidence import Evidence
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.networks.pictures import LearnedDistance
from lowerbound.model.objectives.elbo import ELBO
from lowerbound.model.objectives.objective import Loss, Objective, reconstructions
from lowerbound.model.objectives.schedules import Schedule, constant
from lowerbound.model.spec import Count, DataSpec, Settings
from lowerbound.noise import Noise


class Comparison(nn.Module, ABC):
    """A distance of made rows from real ones; it has no parameters to train.

    A constructor takes `Settings` from the assembly; its keyword arguments are the recipe's settings.
    """

    @abstractmethod
    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        """The distance of rows on the scale of raw values, (N, *event) both, of each pair, (N,); 0 where equal."""


class RandomFeatures(Comparison):
    """Half the squared distance in the outputs of a network that was never trained: its weights follow from a seed.

    That is -log N(f(real); f(made), I) up to a constant, so it is in nats. Random convolutions are a fair choice where
    no trained network is at hand.

    Args:
        settings: from the assembly.
        network: of any kind that takes the rows.
        features: numbers that it makes of a row.
        seed: of its weights.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        network: Part[Network] = Part(MLP, widths=[256, 256]),
        features: Count = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data = settings.data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = network(Ports(settings.data.event, (features,))).eval().requires_grad_(False)

    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        one, other = (self.network(centred(rows, self.data), None) for rows in (real, made))
        return _half_squared(one - other)


class _Encoder(Protocol):
    """What is used of a trained model."""

    @property
    def preparation(self) -> _Preparation: ...

    def encode(self, x: Tensor) -> dict[str, Tensor]: ...


class _Preparation(Protocol):
    def prepare(self, raw: Tensor, noise: None) -> Tensor: ...


class EncoderFeatures(Comparison):
    """Half the squared distance in the codes of another run's encoder, which is frozen.

    Args:
        settings: from the assembly.
        path: the folder of the run, of the same kind of data.

    Raises:
        NotSupportedError: its codes are discrete.
    """

    def __init__(self, settings: Settings, *, path: str) -> None:
        super().__init__()
        self.model = settings.outside.model(path).requires_grad_(False)

    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        one, other = self._codes(real), self._codes(made)
        return _half_squared(one - other)

    def _codes(self, raw: Tensor) -> Tensor:
        model = cast(_Encoder, self.model)
        codes = model.encode(model.preparation.prepare(raw, None))
        if not all(values.is_floating_point() for values in codes.values()):
            raise NotSupportedError("these codes are discrete, and have no gradient; name a run with continuous ones.")
        return torch.cat([values.flatten(1) for values in codes.values()], dim=1)


class LPIPS(Comparison):
    """The learned perceptual distance of images (Zhang et al. 2018, eq. 1), with weights of AlexNet or VGG-16.

    Grey images are taken as colour.

    Args:
        settings: from the assembly.
        path: safetensors with `features.N.weight` and `.bias`, and `lin0.model.1.weight` to `lin4.model.1.weight`.

    Raises:
        NotSupportedError: other data than images, or images that are too small.
        DataError: the file is missing, damaged, or has other tensors.
    """

    def __init__(self, settings: Settings, *, path: str) -> None:
        super().__init__()
        self.data = settings.data
        if len(self.data.event) != 3 or self.data.event[0] not in (1, 3):
            raise NotSupportedError(
                "perceptual similarity is of grey or colour images, and these rows have shape "
                f"{list(self.data.event)}; compare them by `random-features`."
            )
        self.distance = LearnedDistance(settings.outside.weights(path), path)

    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        one, other = (centred(rows, self.data).expand(-1, 3, -1, -1) for rows in (real, made))
        distance: Tensor = self.distance(one, other)
        return distance


class Perceptual(Objective):
    """Another objective, and beside it weight * E_q[distance of x from the point of p(x|z)] (Johnson et al. 2016).

    Every player but the critic pays for the distance. So `vae-gan` within it is a VAE with a reconstruction, a
    perceptual and an adversarial loss. The distance is no part of the bound that is reported.

    Args:
        settings: from the assembly.
        comparison: whose distance.
        objective: the other one.
        weight: a schedule; of the distance beside the distortion in nats.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        comparison: Part[Comparison] = Part(RandomFeatures),
        objective: Part[Objective] = Part(ELBO),
        weight: Schedule = constant(value=1.0),
    ) -> None:
        super().__init__()
        self.inner, self.comparison, self.weight = objective(settings), comparison(settings), weight
        self.restore = settings.restore
        self.needs, self.players = self.inner.needs, self.inner.players

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        loss: Loss = self.inner(evidence, step, player, noise)
        if player == "critic":
            return loss
        made = self.restore(reconstructions(evidence))
        real = self.restore(evidence.x).expand_as(made)
        distance = self.comparison(real.flatten(0, 1), made.flatten(0, 1)).unflatten(0, made.shape[:2])
        mean = evidence.average(distance).mean()
        value = loss.value + self.weight(step) * mean
        parts = {**loss.parts, "loss": value.detach(), "perceptual": mean.detach()}
        return Loss(value, parts, loss.statistics)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.inner.absorb(statistics)


def centred(raw: Tensor, data: DataSpec) -> Tensor:
    """Integer levels on [-1, 1]; real numbers as they are."""
    return 2 * raw / (data.levels - 1) - 1 if data.levels else raw


def _half_squared(difference: Tensor) -> Tensor:
    return 0.5 * difference.flatten(1).square().sum(dim=1)

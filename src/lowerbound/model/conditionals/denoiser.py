"""The network of a diffusion model, with what it sees of the time and how its output is read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.distributions.diffusing.predictions import Prediction
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Shape


def time_features(t: Tensor, frequencies: int) -> Tensor:
    """Times t (N,) and their sines and cosines at octaves, (N, 2 F + 1): what a denoiser sees of the time."""
    angles = math.pi * t[:, None] * 2.0 ** torch.arange(frequencies, device=t.device)
    return torch.cat([t[:, None], angles.sin(), angles.cos()], dim=1)


class NoiseNetwork(nn.Module):
    """From noisy rows, features of them, the context and the time to a `Guess`.

    Args:
        event: shape of a row.
        context: width of the context features, 0 where there are none.
        network: from the noisy row, with features beside it as more channels; it sees the time and the context.
        prediction: what it predicts.
        frequencies: number of Fourier frequencies of time.
        channels: outputs for each channel of a row: 2 where the variance is learned too.
        features: whether there are features of the shape of a row.
    """

    def __init__(
        self,
        event: Shape,
        context: int,
        network: Part[Network],
        prediction: Prediction,
        frequencies: int,
        channels: int = 1,
        features: bool = False,
    ) -> None:
        super().__init__()
        self.prediction, self.frequencies, self.channels = prediction, frequencies, event[0]
        inputs = ((1 + features) * event[0], *event[1:])
        outputs = (channels * event[0], *event[1:])
        self.network = network(Ports(inputs, outputs, 2 * frequencies + 1 + context))

    def forward(self, z: Tensor, features: Tensor | None, context: Tensor | None, level: Level) -> Guess:
        """What is said of noisy rows (N, *event) with features (N, *event) and context features (N, C)."""
        t = level.t.to(z).expand(len(z))
        known = [time_features(t, self.frequencies), *([] if context is None else [context.to(z)])]
        seen = [self.prediction.inputs(z, level), *([] if features is None else [features])]
        output = self.network(torch.cat(seen, dim=1), torch.cat(known, dim=1)).to(z.dtype)
        guess = self.prediction.guess(output[:, : self.channels], z, level)
        if output.shape[1] == self.channels:
            return guess
        return Guess(guess.x, guess.eps, torch.sigmoid(output[:, self.channels :]))


def check_guidance(guidance: float, context: bool) -> None:
    """Refuse guidance by a context that is not there.

    Raises:
        ShapeError: there is none.
    """
    if guidance != 1 and not context:
        raise ShapeError(
            f"a guidance of {guidance:g} was given, which leads towards a context, and these data have none; leave it "
            "at 1, or train on data with a context (labels)."
        )

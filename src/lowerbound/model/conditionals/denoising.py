"""A likelihood that is a diffusion model: a diffusion decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Features, Slot, in_float
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Scaling, real_numbers
from lowerbound.model.distributions.denoised import Denoised
from lowerbound.model.distributions.diffusion import time_features
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Context, Count


class DiffusionLikelihood(Likelihood):
    """p(x|z) as a diffusion model of x, given what the decoder makes of z (Preechakul et al. 2022; Pandey et al. 2022).

    The features have the shape of the data and stand beside the noisy x as more channels. The log-density is a bound,
    estimated at a random time per row, so the ELBO is a bound on average, and importance bounds are refused. In use,
    the reconstruction is one sample of p(x|z), always the same: the deterministic sampler from noise 0.

    Args:
        slot: the data's place.
        network: predicts the noise from the noisy x, the features, Fourier features of the time and the context.
        start, end: log signal-to-noise ratio at the two ends of time.
        steps: of the samplers.
        frequencies: number of Fourier frequencies of time.
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        network: Part[Network] = Part(MLP, widths=[256, 256]),
        start: float = 10.0,
        end: float = -10.0,
        steps: Count = 50,
        frequencies: Count = 6,
        scaling: Scaling = "standard",
    ) -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape, self.conditional = slot.event, bool(slot.data.context)
        self.start, self.end, self.steps, self.frequencies = start, end, steps, frequencies
        beside = (2 * slot.event[0], *slot.event[1:])
        self.network = network(Ports(beside, slot.event, 2 * frequencies + 1 + slot.data.context_features))

    def forward(self, features: Features, context: Context | None) -> Distribution:
        h, known = in_float(features), None
        assert self.features_shape is not None
        if self.conditional:
            assert context is not None
            batch, own = h.shape[: h.ndim - len(self.features_shape)], context.features()
            shape = (*batch, own.shape[1])
            known = own.expand(shape) if len(own) == batch[-1] else own.reshape(shape)
        event = torch.Size(self.features_shape)
        return Denoised(h, known, self._noise, event, self.start, self.end, self.steps)

    def _noise(self, noisy: Tensor, features: Tensor, context: Tensor | None, t: Tensor) -> Tensor:
        """The network's estimate of the noise in noisy rows."""
        known = [time_features(t, self.frequencies), *([] if context is None else [context])]
        return self.network(torch.cat([noisy, features], dim=1), torch.cat(known, dim=1)).to(noisy.dtype)

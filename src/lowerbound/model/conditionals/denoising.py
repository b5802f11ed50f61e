"""A likelihood that is a diffusion model: a diffusion decoder."""

from __future__ import annotations

import torch
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Features, Slot, in_float
from lowerbound.model.conditionals.denoiser import NoiseNetwork
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Scaling, real_numbers
from lowerbound.model.distributions.diffusing.predictions import Prediction, PredictNoise
from lowerbound.model.distributions.diffusing.samplers import Ancestral, Sampler
from lowerbound.model.distributions.diffusing.schedules import LogLinear, NoiseSchedule
from lowerbound.model.distributions.diffusion import DiffusionDensity, Process
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network
from lowerbound.model.spec import Context, Count


class DiffusionLikelihood(Likelihood):
    """p(x|z) as a diffusion model of x, given what the decoder makes of z (Preechakul et al. 2022; Pandey et al. 2022).

    The features have the shape of the data and stand beside the noisy x as more channels. The log-density is a bound,
    estimated at a random time per row, so the ELBO is a bound on average, and importance bounds are refused. In use,
    the reconstruction is one sample of p(x|z), always the same: the deterministic sampler from noise 0.

    Args:
        slot: the data's place.
        network: from the noisy x, the features, Fourier features of the time and the context.
        schedule: of the noise.
        prediction: what the network predicts.
        sampler, steps: how rows are drawn.
        frequencies: number of Fourier frequencies of time.
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        network: Part[Network] = Part(MLP, widths=[256, 256]),
        schedule: NoiseSchedule = LogLinear(),
        prediction: Prediction = PredictNoise(),
        sampler: Sampler = Ancestral(),
        steps: Count = 50,
        frequencies: Count = 6,
        scaling: Scaling = "standard",
    ) -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape, self.conditional = slot.event, bool(slot.data.context)
        context = slot.data.context_features
        self.denoiser = NoiseNetwork(slot.event, context, network, prediction, frequencies, features=True)
        self.process = Process(torch.Size(slot.event), schedule, sampler=sampler, steps=steps)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        h, known = in_float(features), None
        assert self.features_shape is not None
        if self.conditional:
            assert context is not None
            batch, own = h.shape[: h.ndim - len(self.features_shape)], context.features()
            shape = (*batch, own.shape[1])
            known = own.expand(shape) if len(own) == batch[-1] else own.reshape(shape)
        return DiffusionDensity(h, known, self.denoiser, self.process)

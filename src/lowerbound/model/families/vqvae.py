"""The vector-quantised autoencoder (van den Oord et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor
from torch.distributions import Categorical, Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.likelihoods import Likelihood, OptimalGaussian
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.conditionals.priors import Prior, UniformCodes
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.codes import Codes
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents, apply
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.networks.quantizers.ema import EMACodebook
from lowerbound.model.networks.quantizers.quantizer import Quantized, Quantizer
from lowerbound.model.spec import Context, Count, DataSpec, Shape
from lowerbound.noise import Noise


class VQVAE(Family):
    """A quantiser makes codes of the encoder's outputs; under the uniform prior, a code that is certain costs log K.

    Another prior of codes ("pixelcnn", "transformer") learns what they are while they still change; where codes are
    certain, the gradient of the rate goes to the prior alone. A `Stack` has one that was trained afterwards.

    The evidence is a true lower bound. What a quantiser wants besides is a penalty by name, for the objective to weigh:
    "commitment" is 0.25 in the paper.

    Args:
        data: facts about the data.
        positions: shape of the grid of codes.
        encoder: to (channels, *positions), as many as the quantiser takes.
        quantizer: from the encoder's outputs to codes, and from codes to what the decoder sees.
        prior: over grids of codes.
        decoder: from (channels, *positions), as many as the quantiser gives.
        likelihood: of the data.
    """

    roles = {"encoder": ("encoder", "quantizer"), "prior": ("prior",), "decoder": ("decoder", "likelihood")}  # noqa: RUF012
    beyond_codes = ("prior", "decoder", "likelihood")

    def __init__(
        self,
        data: DataSpec,
        positions: Shape,
        encoder: Network,
        quantizer: Quantizer,
        prior: Prior,
        decoder: Network,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.data, self.positions = data, positions
        self.latents, self.values = {"codes": quantizer.grid(positions)}, {"codes": quantizer.size}
        self.encoder, self.quantizer, self.prior = encoder, quantizer, prior
        self.decoder, self.likelihood = decoder, likelihood

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        positions: Sequence[Count] = (8,),
        quantizer: Part[Quantizer] = Part(EMACodebook),
        encoder: Part[Network] = Part(MLP),
        decoder: Part[Network] = Part(MLP),
        likelihood: Part[Likelihood] = Part(OptimalGaussian),
        prior: Part[Prior] = Part(UniformCodes),
    ) -> Self:
        """Give each part its shapes and put them together."""
        places, codes = tuple(positions), quantizer()
        px, c, grid = likelihood(Slot(data.event, data)), data.context_features, codes.grid(places)
        return cls(
            data,
            places,
            encoder(Ports(px.preparation.inputs_shape, (codes.inputs, *places), c, px.preparation.vocabulary)),
            codes,
            prior(Slot(grid, DataSpec(grid, codes.size, data.context, data.examples))),
            decoder(Ports((codes.dimension, *places), px.features_shape or data.event, c)),
            px,
        )

    @property
    def preparation(self) -> Preparation:
        return self.likelihood.preparation

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        found = self._quantize(x, context, noise.child("quantizer"), samples)
        q, p = self._posterior(found), self.prior(None, context)
        z = found.codes.expand(samples, x.shape[0], *self.latents["codes"])
        g = apply(self.decoder, self._channels_first(found.vectors), context)
        px = tree.attach(self.likelihood(g, context), noise.child("likelihood"))
        # Where the posterior is certain all samples are the same one, and computed once.
        every = (samples, x.shape[0])
        penalties = found.penalties | self.likelihood.penalties(g, x)
        return Evidence(
            x=x,
            context=context,
            distortion=-px.log_prob(x).expand(every),
            latents={"codes": Latent(q, p, z, q.log_prob(z), p.log_prob(z))},
            penalties={name: penalty.expand(every) for name, penalty in penalties.items()},
            px=px,
            anchor=g.expand(samples, *g.shape) if found.logits is None else g,
            statistics={
                "quantizer": found.statistics,
                "likelihood": self.likelihood.statistics(px, x),
            },
            exact=tree.is_exact(px),
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        found = self._quantize(x, context, noise, 1)
        return {"codes": found.codes if found.logits is None else found.codes[0]}

    def at_point(self, x: Tensor, context: Context | None = None) -> dict[str, Latent]:
        q = self._posterior(self._quantize(x, context, None, 1))
        return {"codes": Latent.at_point(q, self.prior(None, context))}

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        vectors = self._channels_first(self.quantizer.lookup(latents["codes"].long()))
        px: Distribution = self.likelihood(apply(self.decoder, vectors, context), context)
        return px

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        codes, _ = tree.draw(self.prior(None, context), noise.child("codes"))
        return self.decode({"codes": codes[0]}, context)

    def vitals(self) -> dict[str, Tensor]:
        return self.quantizer.vitals()

    def _quantize(self, x: Tensor, context: Context | None, noise: Noise | None, samples: int) -> Quantized:
        h = apply(self.encoder, self.preparation.inputs(x), context)
        found: Quantized = self.quantizer(h.movedim(1, -1), noise, samples)
        return found

    def _posterior(self, found: Quantized) -> Distribution:
        axes = len(self.latents["codes"])
        if found.logits is None:
            return Codes(found.codes, axes)
        return tree.independent(Categorical(logits=found.logits, validate_args=False), axes)

    def _channels_first(self, vectors: Tensor) -> Tensor:
        """(*batch, *positions, D) to (*batch, D, *positions)."""
        return vectors.movedim(-1, -1 - len(self.positions))

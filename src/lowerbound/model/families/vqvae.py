"""The vector-quantised autoencoder (van den Oord et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor
from torch.distributions import Distribution

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
from lowerbound.model.networks.quantizers import EMAQuantizer, Quantized
from lowerbound.model.spec import Context, Count, DataSpec, Fraction, Shape
from lowerbound.noise import Noise


class VQVAE(Family):
    """Codes are the nearest codebook vectors of the encoder's outputs; the rate under a uniform prior is log K each.

    The evidence is a true lower bound, with a posterior that is certain. The commitment is a penalty, named
    "commitment", for the objective to weigh (0.25 in the paper); with moving averages there is no codebook loss.

    Args:
        data: facts about the data.
        positions: shape of the grid of codes.
        encoder: to (D, *positions).
        quantizer: of K codes of dimension D.
        prior: over grids of codes.
        decoder: from (D, *positions).
        likelihood: of the data.
    """

    roles = {"encoder": ("encoder",), "prior": ("prior",), "decoder": ("decoder", "likelihood")}  # noqa: RUF012

    def __init__(
        self,
        data: DataSpec,
        positions: Shape,
        encoder: Network,
        quantizer: EMAQuantizer,
        prior: Prior,
        decoder: Network,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.data, self.latents, self.values = data, {"codes": positions}, {"codes": len(quantizer.codebook)}
        self.encoder, self.quantizer, self.prior = encoder, quantizer, prior
        self.decoder, self.likelihood = decoder, likelihood

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        positions: Sequence[Count] = (8,),
        size: Count = 512,
        dimension: Count = 64,
        decay: Fraction = 0.99,
        encoder: Part[Network] = Part(MLP),
        decoder: Part[Network] = Part(MLP),
        likelihood: Part[Likelihood] = Part(OptimalGaussian),
    ) -> Self:
        """Give each part its shapes and put them together."""
        grid = tuple(positions)
        px, c = likelihood(Slot(data.event, data)), data.context_features
        return cls(
            data,
            grid,
            encoder(Ports(px.preparation.inputs_shape, (dimension, *grid), c, px.preparation.vocabulary)),
            EMAQuantizer(size, dimension, decay),
            UniformCodes(Slot(grid, data), size=size),
            decoder(Ports((dimension, *grid), px.features_shape or data.event, c)),
            px,
        )

    @property
    def preparation(self) -> Preparation:
        return self.likelihood.preparation

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        found, h = self._quantize(x, context)
        rows = x.shape[0]
        q = Codes(self._grid(found.codes, rows), len(self.latents["codes"]))
        latent = Latent.drawn(q, self.prior(None, context), noise.child("codes"), samples)
        g = apply(self.decoder, self._unfold(found.vectors, h), context)
        px = self.likelihood(g, context)
        # The posterior is certain, so all samples are the same one.
        every = (samples, rows)
        penalties = {"commitment": found.commitment.reshape(rows, -1).sum(dim=1)} | self.likelihood.penalties(g, x)
        return Evidence(
            x=x,
            context=context,
            distortion=-px.log_prob(x).expand(every),
            latents={"codes": latent},
            penalties={name: penalty.expand(every) for name, penalty in penalties.items()},
            px=px,
            anchor=g.expand(samples, *g.shape),
            statistics={
                "quantizer": found.statistics,
                "likelihood": self.likelihood.statistics(px, x),
            },
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        return {"codes": self._grid(self._quantize(x, context)[0].codes, x.shape[0])}

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        vectors = self.quantizer.codebook[latents["codes"].long()].movedim(-1, 1)
        px: Distribution = self.likelihood(apply(self.decoder, vectors, context), context)
        return px

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        codes, _ = tree.draw(self.prior(None, context), noise.child("codes"))
        return self.decode({"codes": codes[0]}, context)

    def _quantize(self, x: Tensor, context: Context | None) -> tuple[Quantized, Tensor]:
        """Quantise the vectors at all positions of all rows; also the encoder's output (B, D, *positions)."""
        h = apply(self.encoder, self.preparation.inputs(x), context)
        found: Quantized = self.quantizer(h.movedim(1, -1).flatten(0, -2))
        return found, h

    def _grid(self, codes: Tensor, rows: int) -> Tensor:
        return codes.reshape(rows, *self.latents["codes"])

    def _unfold(self, vectors: Tensor, h: Tensor) -> Tensor:
        return vectors.reshape(h.movedim(1, -1).shape).movedim(-1, 1)

"""Densities of whole numbers on a grid, one place after the other: of pixels, or of the codes of a quantiser."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Features, Slot, in_float
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.pixels import CategoricalLikelihood
from lowerbound.model.conditionals.preparation import Preparation, Tokens
from lowerbound.model.conditionals.priors import Prior, known_context
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.raster import Place, Raster
from lowerbound.model.networks.causal import CausalTransformer
from lowerbound.model.networks.pixelcnn import GatedPixelCNN
from lowerbound.model.spec import Context, Count, DataSpec, Shape, Share


class PixelCNN(Prior):
    """A gated PixelCNN: p(pixel | rows above, pixels on the left) (van den Oord et al. 2016), of integers.

    The likelihood says what a pixel's density is, given the network's features: "categorical" is the paper's,
    "logistic-mixture-pixel" that of PixelCNN++ (Salimans et al. 2017), whose channels follow one another. A likelihood
    that sees its values as tokens has them embedded, which suits codes. Where the data have a context, every pixel
    sees it.

    Args:
        slot: the place of the variable: an image, or a grid of codes.
        likelihood: of each pixel.
        width: channels of the network.
        depth: gated layers.
        kernel: side of the field of one convolution; odd.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        likelihood: Part[Likelihood] = Part(CategoricalLikelihood),
        width: Count = 64,
        depth: Count = 5,
        kernel: Count = 5,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.event, self.conditional = torch.Size(slot.event), bool(slot.data.context)
        self.pixels = _pixels(slot, slot.data.context_features, likelihood, width, depth, kernel, dropout)

    def prepares(self, data: DataSpec) -> Preparation:
        return self.pixels.likelihood.preparation

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Raster(known_context(context, self.conditional), self.pixels, self.event)


class PixelCNNLikelihood(Likelihood):
    """p(x|z) a pixel after the other, each seeing the features and the pixels before it (Gulrajani et al. 2017).

    Strong enough to do without z: so free bits, or few layers and a small kernel, which see what is near only and leave
    the rest to z (Chen et al. 2017, "Variational Lossy Autoencoder"). The settings are those of the prior "pixelcnn".

    Args:
        slot: the data's place.
        features: width of the decoder's features.
        likelihood: of each pixel.
        width: channels of the network.
        depth: gated layers.
        kernel: side of the field of one convolution; odd.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        features: Count = 64,
        likelihood: Part[Likelihood] = Part(CategoricalLikelihood),
        width: Count = 32,
        depth: Count = 2,
        kernel: Count = 3,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.event, self.features_shape = torch.Size(slot.event), (features,)
        self.pixels = _pixels(slot, features, likelihood, width, depth, kernel, dropout)
        self.preparation = self.pixels.likelihood.preparation

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Raster(in_float(features), self.pixels, self.event)


def _pixels(
    slot: Slot, known: int, likelihood: Part[Likelihood], width: int, depth: int, kernel: int, dropout: float
) -> Pixels:
    """The densities of pixels that see so many features besides.

    Raises:
        ShapeError: the place is none of whole numbers on a grid, or a pixel's density has no features.
    """
    _check_place(slot, "pixelcnn")
    if len(slot.event) not in (2, 3):
        raise ShapeError(
            f'the density "pixelcnn" needs images (channels, height, width) or grids of codes (height, width), and '
            f'was given rows of shape {list(slot.event)}; use "transformer".'
        )
    shape = slot.event if len(slot.event) == 3 else (1, *slot.event)
    pixel = likelihood(Slot(shape, slot.data))
    vocabulary, embedded = pixel.preparation.vocabulary, 16
    inputs = shape[0] if vocabulary is None else shape[0] * embedded
    if pixel.features_shape is None:
        raise ShapeError('the density "pixelcnn" needs a likelihood that has features, such as "categorical".')
    network = GatedPixelCNN(inputs, pixel.features_shape[0], known, width, depth, kernel, dropout)
    embedding = None if vocabulary is None else nn.Embedding(vocabulary, embedded)
    return Pixels(shape, embedding, network, pixel)


class Pixels(nn.Module):
    """The densities of an image's pixels given those before each.

    Args:
        shape: of an image (C, H, W).
        embedding: of values; None where they are seen as numbers.
        network: to the features of each pixel.
        likelihood: of a pixel given its features.
    """

    def __init__(
        self, shape: Shape, embedding: nn.Embedding | None, network: GatedPixelCNN, likelihood: Likelihood
    ) -> None:
        super().__init__()
        self.shape, self.embedding, self.network, self.likelihood = shape, embedding, network, likelihood

    def forward(self, x: Tensor, h: Tensor | None) -> Distribution:
        """Of all pixels of x (N, C, H, W)."""
        result: Distribution = self.likelihood(self.network(self._planes(x), h), None)
        return result

    def unroll(self, x: Tensor, h: Tensor | None) -> Iterator[tuple[Place, Distribution]]:
        """Of one pixel after the other; nothing of the pixels before it is computed twice."""
        state = self.network.begin(len(x), self.shape[2])
        for row in range(self.shape[1]):
            told = self.network.row(self._planes(x[:, :, row - 1 : row]) if row else None, h, state)
            for column in range(self.shape[2]):
                here = slice(column, column + 1)
                left = self._planes(x[:, :, row : row + 1, column - 1 : column]) if column else None
                features = self.network.pixel(left, [found[..., here] for found in told], h, state)
                yield (slice(None), slice(row, row + 1), here), self.likelihood(features, None)

    def _planes(self, x: Tensor) -> Tensor:
        """What the network sees of values (N, C, H, W)."""
        dtype = next(self.parameters()).dtype
        if self.embedding is None:
            return self.likelihood.preparation.inputs(x.to(dtype))
        return self.embedding(x.long()).permute(0, 1, 4, 2, 3).flatten(1, 2)


class Transformer(Prior):
    """A causal transformer over a raster of whole numbers, each with a probability of its own for every value.

    An image is read pixel by pixel and, within a pixel, channel by channel; all else in the order of memory. Where the
    data have a context, every place sees it. (Chen et al. 2020, "Generative Pretraining from Pixels", section 2.1.)

    Args:
        slot: the place of the variable: an image, a grid of codes, or a sequence.
        width: of each place.
        depth: number of blocks.
        heads: of the attention; divides the width.
        dropout: share of units that are set to 0 in training.
    """

    def __init__(
        self, slot: Slot, *, width: Count = 128, depth: Count = 4, heads: Count = 4, dropout: Share = 0.0
    ) -> None:
        super().__init__()
        _check_place(slot, "transformer")
        self.event, self.conditional = torch.Size(slot.event), bool(slot.data.context)
        self.whole, levels = Tokens(slot.data), slot.data.levels
        assert levels is not None
        size, context = self.event.numel(), slot.data.context_features
        self.tokens = Sequence(slot.event, CausalTransformer(levels, size, context, width, depth, heads, dropout))

    def prepares(self, data: DataSpec) -> Preparation:
        return self.whole

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Raster(known_context(context, self.conditional), self.tokens, self.event)


class Sequence(nn.Module):
    """The densities of the places of a grid given those before each.

    Args:
        shape: of a row; an image's channels are read within its pixels.
        network: to logits.
    """

    def __init__(self, shape: Shape, network: CausalTransformer) -> None:
        super().__init__()
        self.shape, self.network = shape, network
        places = torch.arange(torch.Size(shape).numel()).reshape(shape)
        read = places.movedim(0, -1) if len(shape) == 3 else places
        self.order: Tensor  # number in memory of each place in the order of reading
        self.back: Tensor
        self.register_buffer("order", read.flatten(), persistent=False)
        self.register_buffer("back", read.flatten().argsort(), persistent=False)

    def forward(self, x: Tensor, h: Tensor | None) -> Distribution:
        """Of all places of x (N, *shape)."""
        logits = in_float(self.network(x.flatten(1)[:, self.order], h))
        return self._density(logits[:, self.back].unflatten(1, self.shape))

    def unroll(self, x: Tensor, h: Tensor | None) -> Iterator[tuple[Place, Distribution]]:
        """Of one place after the other; each costs one row, for earlier keys and values are kept."""
        places = list(itertools.product(*(range(size) for size in self.shape)))
        read = torch.zeros(len(x), len(places), dtype=torch.long, device=x.device)
        ones = (1,) * len(self.shape)
        for number, logits in enumerate(self.network.unroll(read, h)):
            place = tuple(slice(index, index + 1) for index in places[int(self.order[number])])
            yield place, self._density(in_float(logits).unflatten(0, (-1, *ones)))
            read[:, number] = x[(slice(None), *place)].flatten().long()

    def _density(self, logits: Tensor) -> Distribution:
        return tree.independent(Categorical(logits=logits, validate_args=False), len(self.shape))


def _check_place(slot: Slot, kind: str) -> None:
    """Refuse a place where there are no whole numbers with a known end."""
    if slot.event != slot.data.event or slot.data.levels is None:
        what = "real numbers" if slot.data.levels is None else f"rows of shape {list(slot.event)} that are none"
        raise ShapeError(
            f'the density "{kind}" describes whole numbers with a known number of levels (8-bit pixels, tokens, codes '
            f'of a quantiser), and was given {what}; use "autoregressive" or "flow" for real numbers.'
        )

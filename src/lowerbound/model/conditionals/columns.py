"""The likelihood of a table with columns of mixed types and missing values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from lowerbound.model.conditionals.conditional import Features, Slot, in_float, softly_bounded
from lowerbound.model.conditionals.counts import negative_binomial
from lowerbound.model.conditionals.likelihoods import LOGVAR_RANGE, Likelihood
from lowerbound.model.conditionals.preparation import Columns
from lowerbound.model.distributions.columns import ColumnProduct
from lowerbound.model.spec import Context


class TableLikelihood(Likelihood):
    """A product over columns: Gaussian, categorical, negative binomial or Bernoulli; missing values are left out.

    The Gaussian's features are on the standardised scale and its density on that of the raw values (so that no Jacobian
    is left); its sigma and the counts' dispersion are parameters, one per column. See Nazabal et al. 2020 (HI-VAE).

    Args:
        slot: the data's place; the data have columns.
    """

    preparation: Columns

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.preparation = Columns(slot.data)
        columns = slot.data.columns
        self.real, self.count, self.binary = (
            tuple(index for index, column in enumerate(columns) if column.kind == kind)
            for kind in ("real", "count", "binary")
        )
        self.categories = {index: c.categories for index, c in enumerate(columns) if c.kind == "category"}
        plain = len(self.real) + len(self.count) + len(self.binary)
        self.features_shape = (plain + sum(self.categories.values()),)
        self.raw_logvar = nn.Parameter(torch.zeros(len(self.real))) if self.real else None
        self.raw_log_dispersion = nn.Parameter(torch.zeros(len(self.count))) if self.count else None

    def forward(self, features: Features, context: Context | None) -> Distribution:
        sizes = [len(self.real), len(self.count), len(self.binary), *self.categories.values()]
        real, count, binary, *categories = in_float(features).split(sizes, dim=-1)
        found: list[tuple[Distribution, tuple[int, ...]]] = []
        if self.real:
            found.append((self._gaussian(real), self.real))
        if self.count:
            found.append((self._counts(count), self.count))
        if self.binary:
            found.append((Bernoulli(logits=binary, validate_args=False), self.binary))
        for index, logits in zip(self.categories, categories, strict=True):
            found.append((Categorical(logits=logits.unsqueeze(-2), validate_args=False), (index,)))
        blocks, places = zip(*found, strict=True)
        return ColumnProduct(blocks, places, validate_args=False)

    def _gaussian(self, mu: Tensor) -> Distribution:
        """N(mean + scale mu, (scale sigma)^2), on the scale of the raw values."""
        assert self.raw_logvar is not None
        mean, scale = (buffer[list(self.real)] for buffer in (self.preparation.mean, self.preparation.scale))
        sigma = torch.exp(0.5 * softly_bounded(self.raw_logvar, *LOGVAR_RANGE))
        return Normal(mean + scale * mu, scale * sigma, validate_args=False)

    def _counts(self, raw: Tensor) -> Distribution:
        """Counts around the mean of their column."""
        assert self.raw_log_dispersion is not None
        usual = self.preparation.count_mean[list(self.count)].log()
        return negative_binomial(raw + usual, self.raw_log_dispersion)

"""A model of data that are described by texts: an encoder of words before any other family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents, of_inner
from lowerbound.model.networks.text import AttentiveText, TextEncoder
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import Noise


class Described(Family):
    """Another family whose context are the features of a text, tokens times width of them, trained with it.

    Args:
        data: facts about the data; the context are numbers of words.
        text: from words to features.
        inner: the family, made for a context of that size.
    """

    reads_words = True
    of_use: ClassVar = ("inner",)

    def __init__(self, data: DataSpec, text: TextEncoder, inner: Family) -> None:
        super().__init__()
        self.data, self.text, self.inner = data, text, inner
        self.latents, self.roles, self.infers_context = inner.latents, dict(inner.roles), inner.infers_context
        self.values: Mapping[str, int] = dict(inner.values)
        self.reader = next((role for role in ("decoder", "prior") if role in self.roles), next(iter(self.roles), ""))

    @classmethod
    def assemble(cls, data: DataSpec, *, inner: Part[Family], text: Part[TextEncoder] = Part(AttentiveText)) -> Self:
        """Give the encoder its words, and the family its context."""
        if not data.words:
            raise ShapeError(
                'the family "described" needs data whose context are texts, and these have none; use the family within '
                'it, or data with captions (`data.context = "text"`).'
            )
        encoder = text(len(data.words), data.context)
        return cls(
            data, encoder, inner(replace(data, context=encoder.tokens * encoder.width, words=(), contexts="numbers"))
        )

    @property
    def preparation(self) -> Preparation:
        return self.inner.preparation

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        return replace(of_inner(self.inner.evidence(x, self._read(context), noise, samples)), context=context)

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        return self.inner.encode(x, self._read(context), noise)

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        return self.inner.decode(latents, self._read(context))

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        return self.inner.sample(noise, self._read(context))

    def at_point(self, x: Tensor, context: Context | None = None) -> dict[str, Latent]:
        return self.inner.at_point(x, self._read(context))

    def vitals(self) -> dict[str, Tensor]:
        return self.inner.vitals()

    def plays(self, name: str, role: str) -> bool:
        part, _, rest = name.partition(".")
        return role == "model" or (role == self.reader if part == "text" else self.inner.plays(rest, role))

    def _read(self, context: Context | None) -> Context | None:
        """Features of the texts; rows without one stay so."""
        if context is None:
            return None
        return Context(self.text(context.vector.long()).flatten(1), context.present)

"""A trained model, fine-tuned by updates of low rank."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents, of_inner, take_over
from lowerbound.model.networks.low_rank import ADDED, FROZEN, adapt
from lowerbound.model.spec import Context, Count, DataSpec
from lowerbound.noise import Noise


class LowRank(Family):
    """Another family whose weights are frozen, each with an update of low rank, which alone is trained.

    Training starts from a finished run of that family (the recipe's `start`), and at first nothing is changed. What it
    was trained on is forgotten the less, the lower the rank.

    Args:
        inner: the family; its weights are given by `begin`.
        rank: of each update.
    """

    needs_start: ClassVar = True
    of_use: ClassVar = ("inner",)

    def __init__(self, inner: Family, rank: int) -> None:
        super().__init__()
        adapt(inner, rank)
        self.inner, self.data, self.latents, self.values = inner, inner.data, inner.latents, dict(inner.values)
        self.roles, self.infers_context, self.reads_words = dict(inner.roles), inner.infers_context, inner.reads_words

    @classmethod
    def assemble(cls, data: DataSpec, *, inner: Part[Family], rank: Count = 4) -> Self:
        """Give the family its shape.

        Raises:
            ShapeError: no weight of it has a higher rank.
        """
        return cls(inner(data), rank)

    @property
    def preparation(self) -> Preparation:
        return self.inner.preparation

    def begin(self, other: Family) -> None:
        if isinstance(other, LowRank):
            super().begin(other)
            return
        frozen = {name.replace(FROZEN, "weight"): value for name, value in self.inner.state_dict().items()}
        take_over({name: value for name, value in frozen.items() if "parametrizations" not in name}, other)

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        return of_inner(self.inner.evidence(x, context, noise, samples))

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        return self.inner.encode(x, context, noise)

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        return self.inner.decode(latents, context)

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        return self.inner.sample(noise, context)

    def at_point(self, x: Tensor, context: Context | None = None) -> dict[str, Latent]:
        return self.inner.at_point(x, context)

    def vitals(self) -> dict[str, Tensor]:
        return self.inner.vitals()

    def plays(self, name: str, role: str) -> bool:
        return role == "model" or (ADDED in name and self.inner.plays(name.partition(".")[2], role))

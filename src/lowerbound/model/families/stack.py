"""Two stages: a frozen model of the data, and a model of its latents."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.delta import Flat
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import Noise


class Stack(Family):
    """A first stage whose prior is replaced by a second model of its latents (Rombach et al. 2022; Dai & Wipf 2019).

    log p(x) >= E_q[log p(x|z) - log q(z|x) + bound of the second stage on log p(z)], so the evidence is that of both
    stages together: the first's latents have the flat measure as their prior (their rate is the negative entropy), and
    what the second stage says of them joins the distortion. The second stage is trained on its own, on the first's
    latents as data; the first is frozen. A context is the second stage's; the first sees it where it has one itself.

    Args:
        first: a model with one group of latents.
        second: a model whose data have that group's shape and, for codes, as many levels as there are codes.
    """

    roles = {"prior": ("second",)}  # noqa: RUF012
    beyond_codes = ("second",)
    of_use: ClassVar = ("second",)

    def __init__(self, first: Family, second: Family) -> None:
        super().__init__()
        if len(first.latents) != 1 or next(iter(first.latents.values())) != second.data.event:
            raise ShapeError(
                f"the second stage models rows of shape {list(second.data.event)}, but the first stage's latents have "
                f"shapes {[list(shape) for shape in first.latents.values()]}; train it on the first stage's latents."
            )
        self.group = next(iter(first.latents))
        if second.data.levels != first.values.get(self.group):
            raise ShapeError(
                f"the second stage models {_values(second.data.levels)}, but the first stage's latents are "
                f"{_values(first.values.get(self.group))}; train it on the first stage's latents."
            )
        self.first, self.second = first.requires_grad_(False), second
        above = second.data
        self.data = first.data if first.data.context else above.conditioning(first.data)
        self.reads_words = second.reads_words
        self.latents = {**first.latents, **{f"second_{k}": v for k, v in second.latents.items()}}
        self.values = {**first.values, **{f"second_{k}": v for k, v in second.values.items()}}

    @classmethod
    def assemble(cls, data: DataSpec, *, first: Part[Family], second: Part[Family]) -> Self:
        """Give the second stage the first one's latents as its data; the first has no context."""
        below = first(replace(data, context=0, words=()))
        group, shape = next(iter(below.latents.items()), ("", ()))
        return cls(below, second(replace(data, event=shape, levels=below.values.get(group), columns=(), vocabulary=())))

    @property
    def preparation(self) -> Preparation:
        return self.first.preparation

    def vitals(self) -> dict[str, Tensor]:
        return self.second.vitals()

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        if samples != 1:
            raise ShapeError("a stack's evidence has one sample; repeat the rows for more.")
        below = self.first.evidence(x, self._below(context), noise.child("first"))
        code = below.latents[self.group]
        preparation = self.second.preparation
        above = self.second.evidence(preparation.prepare(code.z[0], None), context, noise.child("second"))
        flat = Flat(code.q.event_shape)
        tree.check_same_space(code.q, flat)
        latents = {self.group: Latent(code.q, flat, code.z, code.log_q, flat.log_prob(code.z))}
        latents |= {f"second_{name}": latent for name, latent in above.latents.items()}
        return Evidence(
            x=x,
            context=context,
            distortion=below.reconstruction() + above.reconstruction() - preparation.log_jacobian,
            latents=latents,
            px=below.px,
            anchor=below.anchor,
            exact=below.exact and above.exact,
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        return self.first.encode(x, self._below(context), noise)

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        return self.first.decode(latents, self._below(context))

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        z, _ = tree.draw(self.second.sample(noise.child("second"), context), noise.child("z"))
        return self.decode({self.group: self.second.preparation.restore(z[0])}, context)

    def _below(self, context: Context | None) -> Context | None:
        return context if self.first.data.context else None


def _values(levels: int | None) -> str:
    return "real numbers" if levels is None else f"whole numbers from 0 to {levels - 1}"

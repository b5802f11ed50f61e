"""The interface of all models: four verbs, and the roles that players train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.errors import ShapeError, UsageError
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.evidence import Evidence, Latent, Statistics
from lowerbound.model.networks.network import Network
from lowerbound.model.spec import Context, DataSpec, Shape
from lowerbound.noise import Noise

Latents = dict[str, Tensor]


class Family(nn.Module, ABC):
    """A model of data: everything above this storey uses only what is declared here.

    Attributes:
        data: the facts about the data it was made for.
        latents: shape of each group of latents, top group first.
        preparation: from raw rows to x.
        values: how many values a unit of a discrete group has, by group.
        roles: parts by the role that a player trains; "model" is everything and is not listed.
        beyond_codes: parts that `encode` does not use, but for the preparation in them; none where nothing is said.
        infers_context: whether it can do without a context of a row, because it infers one.
        needs_start: whether it can only be trained from a trained model (`start`).
        of_use: settings that say how a trained model is used, so that another value may be given then.
        reads_words: whether a context may be the numbers of a text's words.
    """

    data: DataSpec
    latents: dict[str, Shape]
    values: Mapping[str, int] = MappingProxyType({})
    roles: dict[str, tuple[str, ...]]
    beyond_codes: tuple[str, ...] = ()
    infers_context: bool = False
    needs_start: ClassVar[bool] = False
    of_use: ClassVar[tuple[str, ...]] = ()
    reads_words: bool = False

    @property
    @abstractmethod
    def preparation(self) -> Preparation:
        """From raw rows to x."""

    @abstractmethod
    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        """The parts of the bound for prepared rows x (B, *event), with S draws of the latents. Pure."""

    @abstractmethod
    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        """Codes of prepared rows by group, (B, *units): the posterior's point, or a draw where noise is given."""

    @abstractmethod
    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        """p(x|z) for codes by group, (B, *units); batch shape (B,)."""

    @abstractmethod
    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        """p(x|z) for z drawn from the prior, one row per row of noise; batch shape (B,)."""

    def at_point(self, x: Tensor, context: Context | None = None) -> dict[str, Latent]:
        """The groups of latents of prepared rows at the points that `encode` gives; none where a family has no such."""
        return {}

    def absorb(self, statistics: Statistics) -> None:
        """Take in the statistics of a step that was really taken (codebook counts, optimal sigma)."""
        for part, values in statistics.items():
            module = self.get_submodule(part)
            module.absorb(values)  # type: ignore[operator]  # a part that reports statistics absorbs them

    def begin(self, other: Family) -> None:
        """Take over the weights of a trained model, and what its preparation learned.

        Raises:
            ShapeError: it is another one.
        """
        take_over(self.state_dict(), other)

    def vitals(self) -> dict[str, Tensor]:
        """Numbers about the state of its parts for the journal, by name; none for most."""
        return {}

    def plays(self, name: str, role: str) -> bool:
        """Whether what has this name (a part, or something in it) belongs to a role ("model" for all)."""
        return role == "model" or name.split(".")[0] in self.roles.get(role, ())

    def role_parameters(self, role: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of a role ("model" for all)."""
        for name, parameter in self.named_parameters():
            if self.plays(name, role):
                yield name, parameter

    def check(self, raw: Tensor) -> None:
        """Refuse raw rows of another shape than the model was made for, or with values that it has no place for."""
        if tuple(raw.shape[1:]) != self.data.event:
            raise ShapeError(
                f"the rows have shape {list(raw.shape[1:])}, but this model was made for {list(self.data.event)}; "
                "give it data of that shape or train a model for these."
            )
        self.preparation.check(raw)

    def check_latents(self, latents: Latents) -> None:
        """Refuse codes of other groups, shapes, counts or values than this model's."""
        for name, shape in self.latents.items():
            given = latents.get(name)
            if given is None or tuple(given.shape[1:]) != shape:
                what = "absent" if given is None else f"of shape {list(given.shape[1:])} per row"
                raise UsageError(
                    f"the model's latents `{name}` have shape {list(shape)} per row; those given are {what}."
                )
            last = self.values.get(name, 0) - 1
            if name in self.values and not bool(((given >= 0) & (given <= last) & (given == given.round())).all()):
                raise UsageError(f"the model's latents `{name}` are whole numbers from 0 to {last}; these are not.")
        counts = {name: len(latents[name]) for name in self.latents}
        if len(set(counts.values())) > 1:
            raise UsageError(f"the groups of latents must have one row each for every row of data; they have {counts}.")


def take_over(own: Mapping[str, Tensor], other: Family) -> None:
    """Fill the tensors of a model, by name, with those of a trained one.

    Raises:
        ShapeError: names or shapes differ.
    """
    weights = other.state_dict()
    given, shapes = ({name: tensor.shape for name, tensor in each.items()} for each in (weights, own))
    if given != shapes:
        different = sorted(name for name in given.keys() | shapes.keys() if given.get(name) != shapes.get(name))
        raise ShapeError(
            f"training shall start from a run whose model is another one (`{different[0]}` differs); start from a "
            "run of the same model, on data of the same shape."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def of_inner(evidence: Evidence) -> Evidence:
    """The evidence of a family's part `inner` as its own: statistics are for parts within it."""
    return replace(evidence, statistics={f"inner.{part}": values for part, values in evidence.statistics.items()})


def apply(network: Network, inputs: Tensor, context: Context | None) -> Tensor:
    """Apply a network to (*batch, B, *inputs): leading axes are folded into the rows and unfolded again.

    Context rows are repeated over the leading axes.
    """
    known = None if context is None else context.features()
    rows = inputs.ndim - len(network.inputs)
    batch = inputs.shape[:rows]
    if rows == 1:
        result: Tensor = network(inputs, known)
        return result
    flat = inputs.flatten(0, rows - 1)
    if known is not None:
        known = known.expand(*batch, known.shape[-1]).flatten(0, rows - 1)
    result = network(flat, known)
    return result.unflatten(0, batch)

"""The interface of all models: four verbs, and the roles that players train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.errors import ShapeError
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.evidence import Evidence, Statistics
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
        roles: parts by the role that a player trains; "model" is everything and is not listed.
    """

    data: DataSpec
    latents: dict[str, Shape]
    roles: dict[str, tuple[str, ...]]

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

    def absorb(self, statistics: Statistics) -> None:
        """Take in the statistics of a step that was really taken (codebook counts, optimal sigma)."""
        for part, values in statistics.items():
            module = self.get_submodule(part)
            module.absorb(values)  # type: ignore[operator]  # a part that reports statistics absorbs them

    def role_parameters(self, role: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of a role ("model" for all)."""
        parts = self.roles.get(role, ())
        for name, parameter in self.named_parameters():
            if role == "model" or name.split(".")[0] in parts:
                yield name, parameter

    def check(self, x: Tensor) -> None:
        """Refuse rows of another shape than the model was made for."""
        if tuple(x.shape[1:]) != self.data.event:
            raise ShapeError(
                f"the rows have shape {list(x.shape[1:])}, but this model was made for {list(self.data.event)}; "
                "give it data of that shape or train a model for these."
            )


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

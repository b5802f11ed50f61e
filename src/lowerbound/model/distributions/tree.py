"""The distribution tree: one table of the densities in use, and the functions that work on all of them.

Each distribution is registered once as a pytree node: its tensors are leaves, everything else is static. Detaching,
selecting rows, gathering across processes and moving to a device then need no code per density.

Three functions stand beside the table, with one row per density:
`draw(distribution, noise, samples)` (torch's `rsample` takes no noise), `point(distribution)` (what "the" code or
reconstruction is in use) and `attach(distribution, noise)` (for densities whose value is a random estimate).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)
from torch.utils import _pytree as pytree

from lowerbound.errors import NotSupportedError, ShapeError
from lowerbound.noise import Noise

D = TypeVar("D", bound=Distribution)
RowFunction = Callable[[Tensor, int], Tensor]


def register(kind: type[Distribution], tensors: Mapping[str, str], static: Sequence[str] = ()) -> None:
    """Enter a distribution into the table.

    Args:
        kind: the class; its constructor takes the arguments below and `validate_args`.
        tensors: constructor arguments that are tensors (or distributions in the table), and the attribute of each.
        static: all other constructor arguments; attributes of the same names.
    """

    def flatten(distribution: Any) -> tuple[list[Any], tuple[Any, ...]]:
        leaves = [getattr(distribution, attribute) for attribute in tensors.values()]
        return leaves, tuple(getattr(distribution, name) for name in static)

    def unflatten(leaves: Any, context: Any) -> Any:
        values = dict(zip(tensors, leaves, strict=True)) | dict(zip(static, context, strict=True))
        return kind(**values, validate_args=False)

    pytree.register_pytree_node(kind, flatten, unflatten)


register(Normal, {"loc": "loc", "scale": "scale"})
register(Bernoulli, {"logits": "logits"})
register(Categorical, {"logits": "logits"})
register(Independent, {"base_distribution": "base_dist"}, ["reinterpreted_batch_ndims"])
register(
    MixtureSameFamily,
    {"mixture_distribution": "mixture_distribution", "component_distribution": "component_distribution"},
)


@singledispatch
def detach(distribution: Distribution) -> Any:
    """The same distribution with its parameters cut from the graph; a row for densities that hold a network."""
    return pytree.tree_map_only(Tensor, Tensor.detach, distribution)


def map_rows(distribution: D, function: RowFunction) -> D:
    """Apply `function(tensor, row_axis)` to every parameter; a distribution without a batch stays as it is.

    The row axis is the last batch axis: 0 for parameters of shape (B, ...), 1 for (S, B, ...).
    """
    if not distribution.batch_shape:
        return distribution
    axis = len(distribution.batch_shape) - 1
    result: D = pytree.tree_map_only(Tensor, lambda tensor: function(tensor, axis), distribution)
    return result


def independent(base: Distribution, event_ndim: int) -> Distribution:
    """`base` with its last `event_ndim` axes as one event."""
    return Independent(base, event_ndim, validate_args=False) if event_ndim else base


def diagonal_normal(loc: Tensor, logvar: Tensor, event_ndim: int) -> Distribution:
    """A Gaussian with independent units, from its mean and log variance."""
    return independent(Normal(loc, torch.exp(0.5 * logvar), validate_args=False), event_ndim)


def is_exact(distribution: Distribution) -> bool:
    """Whether `log_prob` is a log-density itself, and not an unbiased estimate of one (or of a bound of one)."""
    return bool(getattr(distribution, "is_exact", True))


def check_same_space(q: Distribution, p: Distribution) -> None:
    """Refuse a posterior and a prior of which only one lives on the unit sphere: there is no rate between them.

    Raises:
        ShapeError: they do.
    """
    if on_sphere(q) != on_sphere(p):
        raise ShapeError(
            f"the posterior's codes lie {_place(q)} and the prior's {_place(p)}, so there is no rate between them; "
            'use the posterior "von-mises-fisher" with the prior "uniform-sphere" or "vamp", and others with others.'
        )


def on_sphere(distribution: Distribution) -> bool:
    """Whether draws lie on the unit sphere, so that densities are per area of it."""
    if isinstance(distribution, MixtureSameFamily):
        return on_sphere(distribution.component_distribution)
    return bool(getattr(distribution, "on_sphere", False))


def _place(distribution: Distribution) -> str:
    return "on the unit sphere" if on_sphere(distribution) else "anywhere in space"


def has_density(distribution: Distribution) -> bool:
    """Whether there is a density at all: not for a deterministic code or an implicit sample."""
    return bool(getattr(distribution, "has_density", True))


# --------------------------------------------------------------------------------------------------------- draw


def draw(distribution: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
    """Draw from a distribution with given noise.

    Args:
        distribution: batch shape (), (B,) or (samples, B).
        noise: noise of B rows.
        samples: S.

    Returns:
        z (S, B, *event), reparameterised where the density allows it, and log q(z) (S, B) in nats. log q is computed
        from the noise, not from z, so that it stays exact where sigma is below the resolution of z.
    """
    return _draw(distribution, noise, samples, tuple(distribution.event_shape))


@singledispatch
def _draw(distribution: Distribution, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One row of the table: `event` are all axes after (S, B), also those that are batch axes of `distribution`.

    The returned log-density keeps one axis per batch axis of `distribution`.
    """
    raise NotSupportedError(f"{type(distribution).__name__} has no row in the table of `draw`; register one.")


def draw_inner(distribution: Distribution, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """`draw` for the density within another one: `event` are all axes after (S, B), also its own batch axes."""
    return _draw(distribution, noise, samples, event)


draw_row = _draw.register


@draw_row(Normal)
def _draw_normal(distribution: Normal, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    eps = noise.normal(samples, event).to(distribution.loc.dtype)
    z = distribution.loc + distribution.scale * eps
    return z, -0.5 * (eps.square() + math.log(2 * math.pi)) - distribution.scale.log()


@draw_row(Bernoulli)
def _draw_bernoulli(
    distribution: Bernoulli, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    z = (noise.uniform(samples, event) < distribution.probs).to(distribution.logits.dtype)
    return z, distribution.log_prob(z)


@draw_row(Categorical)
def _draw_categorical(
    distribution: Categorical, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    classes = distribution.logits.shape[-1]
    z = (distribution.logits + noise.gumbel(samples, (*event, classes))).argmax(dim=-1)
    return z, distribution.log_prob(z)


@draw_row(Independent)
def _draw_independent(
    distribution: Independent, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    z, log_q = _draw(distribution.base_dist, noise, samples, event)
    axes = distribution.reinterpreted_batch_ndims
    return z, log_q.flatten(log_q.ndim - axes).sum(-1) if axes else log_q


@draw_row(MixtureSameFamily)
def _draw_mixture(
    distribution: MixtureSameFamily, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    # All components are drawn and one is chosen: simple, and cheap at the sizes at which mixtures are sampled.
    # There is no gradient to the mixture weights.
    own = len(distribution.event_shape)
    lead = event[: len(event) - own]
    logits = distribution.mixture_distribution.logits
    components = logits.shape[-1]
    chosen = (logits + noise.child("component").gumbel(samples, (*lead, components))).argmax(dim=-1)
    every, _ = _draw(
        distribution.component_distribution,
        noise.child("value"),
        samples,
        (*lead, components, *event[len(lead) :]),
    )
    index = chosen.reshape(*chosen.shape, 1, *(1,) * own).expand(*chosen.shape, 1, *every.shape[every.ndim - own :])
    z = every.gather(chosen.ndim, index).squeeze(chosen.ndim)
    return z, distribution.log_prob(z)


# -------------------------------------------------------------------------------------------------------- point


@singledispatch
def point(distribution: Distribution) -> Tensor:
    """The value that stands for a distribution in use, (*batch, *event).

    The mean of a Gaussian, a Bernoulli (a probability) or a mixture; the most probable class of a categorical.
    """
    raise NotSupportedError(f"{type(distribution).__name__} has no row in the table of `point`; register one.")


@point.register(Normal)
@point.register(Bernoulli)
def _point_mean(distribution: Distribution) -> Tensor:
    return distribution.mean


@point.register(MixtureSameFamily)
def _point_mixture(distribution: MixtureSameFamily) -> Tensor:
    """The mean of the components' points."""
    weights = distribution.mixture_distribution.probs
    points = point(distribution.component_distribution)
    own = len(distribution.event_shape)
    return (weights.reshape(*weights.shape, *(1,) * own) * points).sum(dim=points.ndim - own - 1)


@point.register(Categorical)
def _point_mode(distribution: Categorical) -> Tensor:
    return distribution.logits.argmax(dim=-1)


@point.register(Independent)
def _point_independent(distribution: Independent) -> Tensor:
    return point(distribution.base_dist)


# ------------------------------------------------------------------------------------------------------- attach


@singledispatch
def attach(distribution: Distribution, noise: Noise) -> Distribution:
    """Give a density that is estimated by chance (diffusion) its noise; all others are returned as they are."""
    return distribution


# ----------------------------------------------------------------------------------------------------- KL per unit


def factors(distribution: Distribution) -> Distribution:
    """The per-unit density of a distribution whose units are independent: same parameters, units as batch axes."""
    if not isinstance(distribution, Independent):
        raise NotSupportedError(
            f"{type(distribution).__name__} does not factorise over its units, and a number for each was asked for; "
            "ask for the total, or use a posterior and a prior with independent units (`gaussian`, `standard`)."
        )
    return distribution.base_dist


def closed_kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q, p) in nats in closed form, (*batch,).

    Raises:
        NotSupportedError: no closed form is known for this pair.
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        raise NotSupportedError(f"KL({_name(q)}, {_name(p)}) has no known closed form; use the sampled rate.") from None


def _name(distribution: Distribution) -> str:
    inner = distribution.base_dist if isinstance(distribution, Independent) else distribution
    return type(inner).__name__

"""Dead units of a trained VAE: found, taken out, or started anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowerbound.errors import NotSupportedError, UsageError
from lowerbound.lab.evaluation.latents import DEAD
from lowerbound.model.build import build_model
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.model.families.vae import VAE
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.spec import Context
from lowerbound.noise import BatchNoise


@torch.no_grad()
def dead_units(model: Family, x: Tensor, context: Context | None = None) -> dict[int, float]:
    """Units with a mean rate below 0.01 nats over prepared rows, each with the mean of its codes.

    Args:
        model: a VAE with independent Gaussian units, in evaluation mode.
        x: prepared rows, (B, *event).
        context: of the rows.

    Raises:
        NotSupportedError: another model.
    """
    vae, _, _ = _parts(model)
    latent = vae.evidence(x, context, BatchNoise(0, 0, len(x), device=x.device)).latents["z"]
    rates, means = latent.closed_per_unit()[0].mean(dim=0), tree.point(latent.q).reshape(len(x), -1).mean(dim=0)
    return {unit: float(means[unit]) for unit in range(len(rates)) if rates[unit] < DEAD}


@torch.no_grad()
def prune(model: Family, table: Mapping[str, Any], dead: Mapping[int, float]) -> tuple[Family, dict[str, Any]]:
    """A smaller model without some units: that of `model` with those units held at the given values.

    What the decoder made of the values goes into a bias, so that codes of the other units and what is decoded from
    them are the same; only what dead units added by their noise and their last bit of information is gone.

    Args:
        model: a VAE with independent Gaussian units and fully connected networks.
        table: `model` of its recipe.
        dead: values to hold, by unit, as `dead_units` finds them.

    Returns:
        The model, and the table of its recipe.

    Raises:
        NotSupportedError: another model.
        UsageError: no unit would be left, or there is no such unit.
    """
    vae, out, into = _parts(model)
    units = vae.latents["z"][0]
    kept = [unit for unit in range(units) if unit not in dead]
    _check(units, dead)
    if not kept:
        raise UsageError(f"all {units} units are to be taken out; keep at least one, or train again.")
    smaller = {**table, "latent": len(kept)}
    made = build_model(smaller, vae.data, 0).to(out.weight.device)
    _, made_out, made_into = _parts(made)
    own = vae.state_dict()
    changed = {id(made_out.weight), id(made_out.bias), id(made_into.weight), id(made_into.bias)}
    for name, tensor in made.state_dict(keep_vars=True).items():
        if id(tensor) not in changed:
            tensor.data.copy_(own[name])
    rows = [*kept, *(units + unit for unit in kept)]
    made_out.weight.copy_(out.weight[rows])
    made_out.bias.copy_(out.bias[rows])
    columns = [*kept, *range(units, into.in_features)]
    made_into.weight.copy_(into.weight[:, columns])
    held = into.weight.new_tensor(list(dead.values()))
    made_into.bias.copy_(into.bias + into.weight[:, list(dead)] @ held)
    return made.train(vae.training), smaller


@torch.no_grad()
def reinitialise(model: Family, table: Mapping[str, Any], dead: Sequence[int], seed: int) -> None:
    """Give some units fresh weights, in place, so that they can be learned anew; the others stay as they are.

    Args:
        model: a VAE with independent Gaussian units and fully connected networks.
        table: `model` of its recipe.
        dead: which units.
        seed: of the fresh weights.

    Raises:
        NotSupportedError: another model.
        UsageError: there is no such unit.
    """
    vae, out, into = _parts(model)
    units = vae.latents["z"][0]
    _check(units, dead)
    _, fresh_out, fresh_into = _parts(build_model(table, vae.data, seed).to(out.weight.device))
    rows = [*dead, *(units + unit for unit in dead)]
    out.weight[rows] = fresh_out.weight[rows]
    out.bias[rows] = fresh_out.bias[rows]
    into.weight[:, list(dead)] = fresh_into.weight[:, list(dead)]


def _parts(model: Family) -> tuple[VAE, nn.Linear, nn.Linear]:
    """A model, the layer its codes come from and the one they go into."""
    if isinstance(model, VAE) and len(model.latents["z"]) == 1:
        encoder, decoder = model.encoder, model.decoder
        gaussian = model.posterior.features_shape == (2 * model.latents["z"][0],) and not list(model.prior.parameters())
        if gaussian and isinstance(encoder, MLP) and isinstance(decoder, MLP):
            out, into = encoder.layers[-1], decoder.layers[0]
            if isinstance(out, nn.Linear) and isinstance(into, nn.Linear):
                return model, out, into
    raise NotSupportedError(
        "units can be taken out of a `vae` with Gaussian units under a standard prior and `mlp` networks on both "
        "sides; this is another model."
    )


def _check(units: int, chosen: Mapping[int, float] | Sequence[int]) -> None:
    wrong = [unit for unit in chosen if not 0 <= unit < units]
    if wrong:
        raise UsageError(f"there is no unit {wrong[0]}; there are {units}, from 0 on.")

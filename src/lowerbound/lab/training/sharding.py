"""Weights shared out among processes (FSDP2), for models that do not fit into one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from lowerbound.errors import RecipeError
from lowerbound.lab.training.processes import Processes
from lowerbound.model.families.family import Family
from lowerbound.model.objectives.objective import Objective

VERBS = ("evidence", "encode", "decode", "sample")


def shard(model: Family, objective: Objective, processes: Processes, device: torch.device) -> None:
    """Share out a model's weights, gradients and optimiser state, in place.

    Each part (encoder, decoder, ...) is gathered when one of the family's verbs needs it. Gradients are summed over
    processes by the sharding itself.

    Raises:
        RecipeError: there is one process only, or the objective has several players.
    """
    if processes.world == 1:
        raise RecipeError("training.shard shares weights among processes, and there is one; start several by torchrun.")
    if len(objective.players) > 1:
        raise RecipeError("training.shard needs an objective with one player; leave it out for adversarial ones.")
    mesh = init_device_mesh(device.type, (processes.world,))
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    assert isinstance(model, FSDPModule)
    model.set_force_sum_reduction_for_comms(True)  # gloo cannot scale in passing
    model.set_gradient_divide_factor(1.0)
    for verb in VERBS:
        register_fsdp_forward_method(model, verb)
    # Outputs of `evidence` are read, never written to, which is what torch warns of.
    warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with their shares brought together; to be called by all processes."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in tensors.items()}


def share_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor shared out as `like` is; itself where that is not."""
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def is_shared(tensor: Tensor) -> bool:
    """Whether a tensor is a share."""
    return isinstance(tensor, DTensor)

"""One process or several: what they must agree on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """The processes of a run; started by `torchrun`, or just this one.

    Attributes:
        rank: of this process.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @staticmethod
    def join(device: torch.device) -> Processes:
        """Join the processes that `torchrun` announced in the environment; alone if there are none."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return Processes()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Processes(dist.get_rank(), world)

    @staticmethod
    def leave() -> None:
        """Leave the group, if one was joined."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def span(self, total: int) -> tuple[int, int]:
        """This process's rows of a batch of `total`."""
        share = total // self.world
        return self.rank * share, (self.rank + 1) * share

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over processes: one flattened all-reduce per type."""
        if self.world == 1:
            return
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            some = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in some])
            dist.all_reduce(flat)
            for tensor, total in zip(some, flat.split([t.numel() for t in some]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def collect(self, tensor: Tensor, axis: int) -> Tensor:
        """The rows of all processes along `axis`, in the order of ranks, with gradient."""
        if self.world == 1:
            return tensor
        gathered: Tensor = _Collect.apply(tensor, axis, self.rank, self.world)  # type: ignore[no-untyped-call]
        return gathered

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()


class _Collect(torch.autograd.Function):
    """All-gather whose gradient is the sum over processes of what each asks of this one's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, axis: int, rank: int, world: int) -> Tensor:
        ctx.axis, ctx.rank, ctx.rows = axis, rank, tensor.shape[axis]
        carried = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        parts = [torch.empty_like(carried, memory_format=torch.contiguous_format) for _ in range(world)]
        dist.all_gather(parts, carried.contiguous())
        return torch.cat(parts, dim=axis).to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.narrow(ctx.axis, ctx.rank * ctx.rows, ctx.rows), None, None, None

"""The table of a model's modules: shapes and numbers of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context
from lowerbound.noise import BatchNoise


@dataclass(frozen=True)
class ModuleRow:
    """One module of a model.

    Attributes:
        name: its place.
        kind: its class.
        shape: of its output for one row; empty if it returns no tensor.
        parameters: its own and those of all below it.
    """

    name: str
    kind: str
    shape: list[int]
    parameters: int


@torch.no_grad()
def summarise(model: Family) -> list[ModuleRow]:
    """A row for each part and layer of a model, from one pass of a blank batch of two rows."""
    shapes: dict[str, list[int]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = list(output.shape[1:])

        return hook

    modules = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(note(name)) for name, module in modules]
    try:
        raw = torch.zeros(2, *model.data.event)
        context = Context.of(torch.zeros(2, model.data.context)) if model.data.context else None
        model.evidence(model.preparation.prepare(raw, None), context, BatchNoise(0, 0, 2))
    finally:
        for handle in handles:
            handle.remove()
    return [
        ModuleRow(name, type(module).__name__, shapes.get(name, []), sum(p.numel() for p in module.parameters()))
        for name, module in modules
        if name in shapes or any(True for _ in module.parameters())
    ]

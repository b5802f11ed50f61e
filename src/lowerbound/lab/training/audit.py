"""What training needs: memory by what holds it, and the range of activations against the limits of 16-bit numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowerbound.lab.training.blackbox import Layer, Probe
from lowerbound.lab.training.loop import Loop

FP16_LIMIT = 65504.0
FP16_SMALLEST = 6e-8  # below it a gradient becomes 0
HEADROOM = 8.0  # a layer nearer to the limit than this is a risk: batches differ


@dataclass(frozen=True)
class Range:
    """The range of one module over the batches that were looked at.

    Attributes:
        name: its place.
        largest: largest absolute value of its output.
        gradient: largest absolute value of the gradient of its own parameters; None if it has none.
        fp16: "fits", "near the limit" or "overflows"; bf16 has fp32's range and always fits.
    """

    name: str
    largest: float
    gradient: float | None
    fp16: str


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds in one process, without what the libraries themselves take.

    Attributes:
        parameters, gradients, optimizer, average: of the weights, and of what is kept beside them.
        activations: kept from the forward pass for the backward pass, of one micro-batch.
        data: rows in memory.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    data: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


def audit(loop: Loop, batches: int = 3) -> tuple[list[Range], Memory]:
    """Take some turns without stepping, and look.

    Args:
        loop: before or within training; its weights do not change.
        batches: how many.

    Returns:
        A row per module with an output, and the memory.
    """
    modules = {name: module for name, module in loop.model.named_modules() if name}
    seen: dict[str, tuple[float, float | None]] = {}
    activations = 0
    for number in range(batches):
        for _, player in loop.schedule(0):
            probe = Probe(modules)
            saved = _Saved()
            with saved:
                gradients = loop.look(number, player)
            activations = max(activations, saved.total)
            for layer in probe.close():
                _widen(seen, layer, _largest_gradient(modules[layer.name], gradients))
    ranges = [Range(name, top, slope, _fp16(top)) for name, (top, slope) in seen.items()]
    return ranges, _memory(loop, activations)


class _Saved(torch.autograd.graph.saved_tensors_hooks):
    """Adds up what autograd keeps, each piece of memory once."""

    def __init__(self) -> None:
        self._pieces: dict[int, int] = {}
        super().__init__(self._note, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self._pieces.values())

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter):
            self._pieces[storage.data_ptr()] = storage.nbytes()
        return tensor


def _widen(seen: dict[str, tuple[float, float | None]], layer: Layer, gradient: float | None) -> None:
    if layer.output is None:
        return
    top, slope = seen.get(layer.name, (0.0, None))
    slopes = [value for value in (slope, gradient) if value is not None]
    seen[layer.name] = (max(top, layer.output), max(slopes) if slopes else None)


def _largest_gradient(module: nn.Module, gradients: dict[int, Tensor]) -> float | None:
    own = [gradients[id(p)] for p in module.parameters(recurse=False) if id(p) in gradients]
    return max((float(gradient.abs().max()) for gradient in own if gradient.numel()), default=None)


def _fp16(largest: float) -> str:
    if largest > FP16_LIMIT:
        return "overflows"
    return "near the limit" if largest * HEADROOM > FP16_LIMIT else "fits"


def _memory(loop: Loop, activations: int) -> Memory:
    parameters = [*loop.model.parameters(), *loop.objective.parameters()]
    trained = sum(_bytes([p for group in o.param_groups for p in group["params"]]) for o in loop.optimizers.values())
    held: Any = getattr(loop.rows, "raw", None)
    return Memory(
        parameters=_bytes(parameters),
        gradients=trained,
        optimizer=2 * trained,  # all three methods keep two moments
        average=_bytes(list(loop.average.weights.values())),
        activations=activations,
        data=_bytes([held]) if isinstance(held, Tensor) else 0,
    )


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

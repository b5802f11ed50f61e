"""The black box of a training that went wrong: what was seen at the first number that was not finite."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowerbound.files import write_json
from lowerbound.lab.checkpoint import write_tensors
from lowerbound.lab.data.rows import Batch


@dataclass(frozen=True)
class Layer:
    """One module at the moment of failure; None where there was nothing to measure.

    Attributes:
        name: its place.
        output: largest absolute value of its output.
        finite: whether its output was finite.
        weights, gradients: norms of its own parameters and of their gradients.
    """

    name: str
    output: float | None
    finite: bool | None
    weights: float | None
    gradients: float | None


class NonFiniteError(Exception):
    """A loss or gradient that is not finite; carried from the loop to whoever decides what to do.

    Attributes:
        step: optimiser steps taken before it.
        number: of the batch.
        player: who was to step.
        parts: the numbers of that turn.
        batch: this process's raw rows.
        layers: every module, in the order of the forward pass.
    """

    def __init__(
        self, step: int, number: int, player: str, parts: dict[str, float], batch: Batch, layers: list[Layer]
    ) -> None:
        super().__init__(f"not finite at step {step + 1}")
        self.step, self.number, self.player, self.parts = step, number, player, parts
        self.batch, self.layers = batch, layers


class Probe:
    """Watches the outputs of all modules while it is open.

    Args:
        modules: by name.
    """

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.outputs: dict[str, tuple[float, bool]] = {}
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in modules.items()]

    def close(self) -> list[Layer]:
        """Stop watching; what was seen, in the order in which modules returned, then the modules that were not run."""
        for handle in self._handles:
            handle.remove()
        order = [*self.outputs, *(name for name in self.modules if name not in self.outputs)]
        return [self._layer(name, self.modules[name]) for name in order]

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                largest = output.detach().abs().max().float()
                before = self.outputs.get(name, (0.0, True))
                self.outputs[name] = (max(before[0], float(largest)), before[1] and bool(torch.isfinite(largest)))

        return hook

    def _layer(self, name: str, module: nn.Module) -> Layer:
        output, finite = self.outputs.get(name, (None, None))
        own = list(module.parameters(recurse=False))
        slopes = [p.grad for p in own if p.grad is not None]
        return Layer(name, output, finite, _norm(list(own)), _norm(slopes))


def write_blackbox(folder: Path, error: NonFiniteError) -> Path:
    """Write the batch and a report into a folder of its own; returns the folder."""
    place = folder / f"step-{error.step + 1:09d}-{error.player}"
    place.mkdir(parents=True, exist_ok=True)
    raw = error.batch.raw
    write_tensors(place / "batch.safetensors", {"raw": raw})
    wrong = ~torch.isfinite(raw.float().flatten(1)).all(dim=1)
    first = next((layer.name for layer in error.layers if layer.finite is False), None)
    report = {
        "step": error.step + 1,
        "batch": error.number,
        "player": error.player,
        "parts": {name: _plain(value) for name, value in error.parts.items()},
        "rows_not_finite": wrong.nonzero().flatten().tolist(),
        "first_layer_not_finite": first,
        "layers": [{key: _plain(value) for key, value in asdict(layer).items()} for layer in error.layers],
    }
    write_json(place / "report.json", report)
    return place


def explain(error: NonFiniteError) -> str:
    """The most likely place of the trouble, in words."""
    rows = ~torch.isfinite(error.batch.raw.float().flatten(1)).all(dim=1)
    if rows.any():
        return f"{int(rows.sum())} rows of the batch hold values that are not finite: clean the data"
    first = next((layer.name for layer in error.layers if layer.finite is False), None)
    if first is not None:
        return f"the first module whose output is not finite is `{first}`"
    return "all outputs are finite, only the gradient is not: a smaller learning rate or training.clip may help"


def _norm(tensors: list[Tensor]) -> float | None:
    if not tensors:
        return None
    return float(torch.nn.utils.get_total_norm([tensor.detach().double() for tensor in tensors]))


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, float) and not torch.isfinite(torch.tensor(value)):
        return str(value)
    return value

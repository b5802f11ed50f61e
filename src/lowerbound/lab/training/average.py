"""The moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's parameters; buffers are copied.

    The decay starts low, min(decay, (1 + t) / (10 + t)), so that the random initial weights are forgotten early.

    Args:
        model: whose weights are followed.
        decay: in the long run; 0 means that there is no average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()} if decay else {}

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Move towards the model's weights after optimiser step number `step` (from 0)."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged = dict(model.named_parameters())
        torch._foreach_lerp_([self.weights[name] for name in averaged], list(averaged.values()), 1 - decay)
        for name, value in model.named_buffers():
            if name in self.weights:  # not all are kept
                self.weights[name].copy_(value)

    def final(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights to keep: the average where there is one, else the model's."""
        return self.weights or {name: value.detach() for name, value in model.state_dict().items()}

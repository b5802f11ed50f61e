"""Precision of the networks; densities are fp32 islands of their own accord."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

LOWEST = 2.0**-60
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Run the matrix products inside in `precision`: "fp32" (nothing to do), "bf16" or "fp16"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


class LossScale:
    """The factor that keeps fp16 gradients above underflow and below overflow (Micikevicius et al. 2018).

    Halved after a step with a non-finite gradient, which is not taken; doubled after `patience` good ones.
    For fp32 and bf16 it is 1 and never moves.

    Args:
        precision: of the networks.
        patience: good steps before it grows.
    """

    def __init__(self, precision: str, patience: int = 1000) -> None:
        self.moves = precision == "fp16"
        self.value, self.good, self.patience = (2.0**15 if self.moves else 1.0), 0, patience

    @property
    def can_fall(self) -> bool:
        """Whether a smaller scale may yet make an overflowing gradient finite."""
        return self.moves and self.value > LOWEST

    def update(self, finite: bool) -> None:
        """Take note of a step's gradient."""
        if not self.moves:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, LOWEST)
        elif self.good == self.patience:
            self.value, self.good = self.value * 2, 0

    def state(self) -> dict[str, float]:
        """What to save."""
        return {"value": self.value, "good": float(self.good)}

    def load(self, state: dict[str, float]) -> None:
        """Go on from what was saved."""
        self.value, self.good = state["value"], int(state["good"])

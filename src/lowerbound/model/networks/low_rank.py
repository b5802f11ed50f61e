"""Updates of low rank beside frozen weights (Hu et al. 2022, "LoRA: low-rank adaptation of large language models")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lowerbound.errors import ShapeError

# What a weight, and what is added to it, are called.
FROZEN, ADDED = "parametrizations.weight.original", "parametrizations.weight.0."
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


class LowRankUpdate(nn.Module):
    """W + B A (section 4.1): what a weight is, with A (r, inputs) random and B (outputs, r) zero at first.

    Args:
        weight: W, (outputs, ...); all its other axes are inputs.
        rank: r.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        self.inner = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.outer = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.outer @ self.inner).reshape(weight.shape)


def adapt(model: nn.Module, rank: int) -> None:
    """Freeze a model, and add an update to each weight of a linear layer or a convolution whose rank may be larger.

    Raises:
        ShapeError: there is none.
    """
    model.requires_grad_(False)
    found = 0
    for layer in list(model.modules()):
        if isinstance(layer, LAYERS) and min(layer.weight.shape[0], layer.weight[0].numel()) > rank:
            parametrize.register_parametrization(layer, "weight", LowRankUpdate(layer.weight, rank))
            found += 1
    if not found:
        raise ShapeError(
            f"no weight of a layer of this model has a rank above {rank}, so low-rank updates would save nothing; "
            "give a smaller rank, or train the model itself."
        )

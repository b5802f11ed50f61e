"""How a gradient passes a quantiser, whose own gradient is zero almost everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Passing(ABC):
    """Vectors whose values are the codebook's and whose gradient reaches the encoder."""

    @abstractmethod
    def __call__(self, h: Tensor, vectors: Tensor) -> Tensor:
        """The values of `vectors` (*, D), with a gradient for `h` (*, D) and none for the codebook."""


class StraightThrough(Passing):
    """The gradient is copied as it is (van den Oord et al. 2017, section 3.2)."""

    def __call__(self, h: Tensor, vectors: Tensor) -> Tensor:
        return h + (vectors - h).detach()


class Rotation(Passing):
    """The gradient is rotated and scaled as the encoder's vector is to become the code (Fifty et al. 2024, eq. 4).

    With unit vectors e of h and c of the code, and r = (e + c) / |e + c|, the rotation is I - 2 r r' + 2 c e', a
    constant to the gradient. Where the two are opposite or zero there is no such plane, and the gradient is copied.
    """

    def __call__(self, h: Tensor, vectors: Tensor) -> Tensor:
        vectors = vectors.detach()
        with torch.no_grad():
            tiny = torch.finfo(h.dtype).eps
            length, target = (v.norm(dim=-1, keepdim=True) for v in (h, vectors))
            e, c = h / length.clamp_min(tiny), vectors / target.clamp_min(tiny)
            middle = (e + c).norm(dim=-1, keepdim=True)
            defined = (length > tiny) & (target > tiny) & (middle > 1e-3)
            r, scale = (e + c) / middle.clamp_min(tiny), target / length.clamp_min(tiny)
        inner = (h * r).sum(dim=-1, keepdim=True), (h * e).sum(dim=-1, keepdim=True)
        turned = scale * (h - 2 * inner[0] * r + 2 * inner[1] * c)
        passed = torch.where(defined, turned, h)
        return passed + (vectors - passed).detach()

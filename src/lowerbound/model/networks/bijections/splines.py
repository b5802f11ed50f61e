"""Monotone rational-quadratic splines (Durkan et al. 2019; Gregory & Delbourgo 1982)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

LEAST = 1e-3  # width and height of a piece, of 1 for all, and slope at a knot
FLAT = math.log(math.expm1(1 - LEAST))  # what makes a slope of 1


def rational_quadratic(
    values: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, bound: float, back: bool
) -> tuple[Tensor, Tensor]:
    """Values through a spline of K pieces on [-bound, bound], and the identity outside.

    Args:
        values: (*batch).
        widths, heights: (*batch, K), logits of the share that each piece has of the axes.
        slopes: (*batch, K - 1) at the inner knots, before a softplus; 0 is the identity's. At both ends it is 1.
        bound: above 0.
        back: whether to go from y to x.

    Returns:
        Where they go (eq. 4), or come from (eq. 6-8), (*batch); and log dy/dx there (eq. 5), (*batch).
    """
    inside = values.abs() < bound
    safe = torch.where(inside, values, 0.0)
    across, up = _knots(widths, bound), _knots(heights, bound)
    steep = pad(LEAST + softplus(slopes + FLAT), (1, 1), value=1.0)
    piece = (torch.searchsorted((up if back else across)[..., 1:-1].contiguous(), safe[..., None])).clamp_min(0)
    x0, x1 = across.gather(-1, piece)[..., 0], across.gather(-1, piece + 1)[..., 0]
    y0, y1 = up.gather(-1, piece)[..., 0], up.gather(-1, piece + 1)[..., 0]
    d0, d1 = steep.gather(-1, piece)[..., 0], steep.gather(-1, piece + 1)[..., 0]
    s = (y1 - y0) / (x1 - x0)
    share = _share(safe - y0, y1 - y0, s, d0, d1) if back else (safe - x0) / (x1 - x0)
    both = share * (1 - share)
    below = s + (d1 + d0 - 2 * s) * both
    found = x0 + share * (x1 - x0) if back else y0 + (y1 - y0) * (s * share.square() + d0 * both) / below
    rise = s.square() * (d1 * share.square() + 2 * s * both + d0 * (1 - share).square())
    log_slope = rise.log() - 2 * below.log()
    return torch.where(inside, found, values), torch.where(inside, log_slope, 0.0)


def _knots(logits: Tensor, bound: float) -> Tensor:
    """(*batch, K + 1), from -bound to bound."""
    pieces = logits.shape[-1]
    shares = LEAST + (1 - LEAST * pieces) * logits.softmax(dim=-1)
    inner = pad(shares[..., :-1].cumsum(dim=-1), (1, 0))
    return pad(2 * bound * inner - bound, (0, 1), value=bound)


def _share(above: Tensor, height: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    """The root in [0, 1] of eq. 6, in the form that does not cancel (eq. 29 of the appendix)."""
    bend = above * (d1 + d0 - 2 * s)
    a, b, c = height * (s - d0) + bend, height * d0 - bend, -s * above
    return 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())

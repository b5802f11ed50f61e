"""How a codebook starts, and how its dead codes come back to life."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowerbound.model.networks.quantizers.quantizer import count, nearest
from lowerbound.noise import Noise

ITERATIONS = 10
SHARE = 16  # candidates per code at the start


class Renewal(nn.Module):
    """K-means on vectors of the first batch; later, dead codes move to vectors of the current batch.

    A code is dead when its moving count falls below a share of the mean count: after hundreds of steps without use.
    Which vectors of the batch are candidates is drawn from noise that all processes share, and each process puts in
    those that it has and zeros for the others. So candidates are sums over rows like all statistics, and what is made
    of them is identical on every process.

    Args:
        start: whether to start by k-means.
        restart: the share of the mean count below which a code is dead; 0 leaves dead codes dead.
    """

    started: Tensor

    def __init__(self, start: bool, restart: float) -> None:
        super().__init__()
        self.restart = restart
        self.register_buffer("started", torch.tensor(not start))

    def candidates(self, h: Tensor, counts: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Some vectors of the batch of all processes, as a sum, where a codebook with these counts needs any.

        Args:
            h: vectors of this process's rows, (B, *positions, D).
            counts: moving counts of the codes, (K,).
            noise: of these rows.
        """
        wanted = self._wanted(counts)
        if not wanted:
            return {}
        vectors = h.detach().reshape(-1, h.shape[-1])
        per_row = len(vectors) // len(h)
        order = noise.all_rows().uniform(1, (per_row,)).flatten().argsort()[:wanted]
        place = order - noise.first * per_row
        own = (place >= 0) & (place < len(vectors))
        found = vectors[place.clamp(0, len(vectors) - 1)]
        return {"candidates": torch.where(own[:, None], found, 0)}

    def renew(self, counts: Tensor, statistics: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Which codes to move, (M,), where to, (M, D), and with which moving counts, (M,).

        Args:
            counts: moving counts of the codes, (K,), with this step's taken in.
            statistics: this step's "counts" and, where there are any, its "candidates".
        """
        candidates = statistics.get("candidates")
        if candidates is None:
            nobody = torch.zeros(0, dtype=torch.long, device=counts.device)
            return nobody, counts.new_zeros(0, 1), counts.new_zeros(0)
        if not self.started:
            self.started.fill_(True)
            centres, share = kmeans(candidates, len(counts))
            return torch.arange(len(counts), device=counts.device), centres, share * statistics["counts"].sum()
        dead = self._dead(counts).nonzero().flatten()
        chosen = candidates[torch.arange(len(dead), device=dead.device) % len(candidates)]
        return dead, chosen, counts.mean().expand(len(dead))

    def _wanted(self, counts: Tensor) -> int:
        if not self.started:
            return SHARE * len(counts)
        return len(counts) if self.restart and bool(self._dead(counts).any()) else 0

    def _dead(self, counts: Tensor) -> Tensor:
        return counts < self.restart * counts.mean()


def kmeans(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Ten rounds of Lloyd's algorithm from the first points, (size, D); and the share of points of each centre.

    Where there are fewer points than centres they are repeated, and the copies have no share.
    """
    centres = points[torch.arange(size, device=points.device) % len(points)].clone()
    for _ in range(ITERATIONS):
        codes = nearest(centres, points)
        counts = count(codes, size, points)[:, None]
        sums = torch.zeros_like(centres).index_add(0, codes, points)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres, count(nearest(centres, points), size, points) / len(points)

"""Solids in the unit cube, with their exact signed distances and exact samples of their surfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("sphere", "box", "torus", "cylinder")
BLOCK = 1 << 22  # distances at a time
FAR, CLOSE = 1.8, 2e-3  # beyond the cube, from one corner to another; on the surface
KEPLER = 30  # Newton steps, more than enough for a ring that is thinner than its radius


@dataclass(frozen=True)
class Solids:
    """N solids, each within the cube from -1/2 to 1/2.

    Attributes:
        kind: place in `KINDS`, (N,).
        size: (N, 3); a sphere's radius; a box's half sides; a torus' two radii, of its ring and of its tube; a
            cylinder's radius and half its height. What a kind does not need is 0.
        turn: rotations, (N, 3, 3); row i says where the own axis i points.
        place: centres, (N, 3).
    """

    kind: Tensor
    size: Tensor
    turn: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.kind)

    def select(self, rows: Tensor | slice) -> Solids:
        """Some of them."""
        return Solids(self.kind[rows], self.size[rows], self.turn[rows], self.place[rows])


def random_solids(count: int, source: torch.Generator) -> Solids:
    """Solids of all kinds in equal shares, with random sizes, directions and places."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=source)

    kind = torch.randint(len(KINDS), (count,), generator=source)
    none = torch.zeros(count)
    sizes = torch.stack(
        [
            torch.stack([between(0.18, 0.38), none, none], 1),
            torch.stack([between(0.1, 0.26) for _ in range(3)], 1),
            torch.stack([between(0.22, 0.3), between(0.07, 0.14), none], 1),
            torch.stack([between(0.1, 0.26), between(0.12, 0.34), none], 1),
        ]
    )
    size = sizes[kind, torch.arange(count)]
    reach = torch.stack([size[:, 0], size.norm(dim=1), size[:, 0] + size[:, 1], size[:, :2].norm(dim=1)])
    room = 0.5 - reach[kind, torch.arange(count)]
    place = room[:, None] * (torch.rand(count, 3, generator=source) - 0.5)
    return Solids(kind, size, rotations(torch.randn(count, 4, generator=source)), place)


def rotations(quaternions: Tensor) -> Tensor:
    """The rotations (N, 3, 3) of quaternions (N, 4) of any length; those of standard normal ones are uniform."""
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def signed_distance(solids: Solids, points: Tensor) -> Tensor:
    """The distance of points (N, P, 3) from the surface of their solid, (N, P); below 0 inside. Exact."""
    many = max(1, BLOCK // max(1, points.shape[1]))
    starts = range(0, len(solids), many)
    return torch.cat([_distance(solids.select(slice(i, i + many)), points[i : i + many]) for i in starts])


def _distance(solids: Solids, points: Tensor) -> Tensor:
    own = _into(solids, points - solids.place[:, None])
    found = points.new_empty(points.shape[:2])
    for number, distance in enumerate(DISTANCES):
        rows = solids.kind == number
        found[rows] = distance(own[rows], solids.size[rows][:, None])
    return found


def _into(solids: Solids, vectors: Tensor) -> Tensor:
    """Vectors (N, P, 3) along the own axes of their solid."""
    return torch.einsum("npj,nij->npi", vectors, solids.turn)


def _sphere(points: Tensor, size: Tensor) -> Tensor:
    return points.norm(dim=-1) - size[..., 0]


def _box(points: Tensor, size: Tensor) -> Tensor:
    return _beyond(points.abs() - size)


def _torus(points: Tensor, size: Tensor) -> Tensor:
    ring = points[..., :2].norm(dim=-1) - size[..., 0]
    return torch.hypot(ring, points[..., 2]) - size[..., 1]


def _cylinder(points: Tensor, size: Tensor) -> Tensor:
    return _beyond(torch.stack([points[..., :2].norm(dim=-1), points[..., 2].abs()], -1) - size[..., :2])


def _beyond(excess: Tensor) -> Tensor:
    """The distance from what is bounded along several right-angled axes, by how much each bound is exceeded."""
    return excess.clamp_min(0).norm(dim=-1) + excess.amax(dim=-1).clamp_max(0)


DISTANCES = (_sphere, _box, _torus, _cylinder)  # from the origin, along the own axes, by kind


def surface(solids: Solids, count: int, source: torch.Generator) -> Tensor:
    """Points on the surface of each solid, independent and uniform by area, (N, count, 3)."""
    chance = torch.rand(len(solids), count, 3, generator=source)
    own = torch.empty(len(solids), count, 3)
    for number, sample in enumerate((_on_sphere, _on_box, _on_torus, _on_cylinder)):
        rows = solids.kind == number
        own[rows] = sample(chance[rows], solids.size[rows][:, None])
    return torch.einsum("npi,nij->npj", own, solids.turn) + solids.place[:, None]


def _on_sphere(chance: Tensor, size: Tensor) -> Tensor:
    """By Archimedes: the height of a uniform point of a sphere is uniform."""
    height = 2 * chance[..., 0] - 1
    return size[..., :1] * _upright((1 - height.square()).clamp_min(0).sqrt(), chance[..., 1], height)


def _on_box(chance: Tensor, size: Tensor) -> Tensor:
    a, b, c = size.expand(*chance.shape[:2], 3).unbind(2)
    axis, rest = _choose(torch.stack([b * c, a * c, a * b], 2), chance[..., 0])
    first, second = 2 * chance[..., 1] - 1, 2 * chance[..., 2] - 1
    side = torch.where(rest < 0.5, -1.0, 1.0)
    faces = torch.stack([torch.stack(face, 2) for face in _faces(side, first, second)], 2)
    chosen = axis[..., None, None].expand(*axis.shape, 1, 3)
    return faces.gather(2, chosen).squeeze(2) * size


def _faces(side: Tensor, first: Tensor, second: Tensor) -> list[list[Tensor]]:
    return [[side, first, second], [first, side, second], [first, second, side]]


def _on_torus(chance: Tensor, size: Tensor) -> Tensor:
    """Area grows with the distance from the axis, so the angle around the tube solves Kepler's equation."""
    ring, tube = size[..., 0], size[..., 1]
    mean = 2 * torch.pi * chance[..., 0]
    angle, ratio = mean, tube / ring
    for _ in range(KEPLER):
        angle = angle - (angle + ratio * angle.sin() - mean) / (1 + ratio * angle.cos())
    return _upright(ring + tube * angle.cos(), chance[..., 1], tube * angle.sin())


def _on_cylinder(chance: Tensor, size: Tensor) -> Tensor:
    radius, half = (part.expand(chance.shape[:2]) for part in (size[..., 0], size[..., 1]))
    part, rest = _choose(torch.stack([2 * half, radius / 2, radius / 2], 2), chance[..., 0])
    flat = part > 0
    height = torch.where(flat, torch.where(part == 1, -half, half), half * (2 * rest - 1))
    out = torch.where(flat, radius * chance[..., 2].sqrt(), radius)
    return _upright(out, chance[..., 1], height)


def _upright(distance: Tensor, turn: Tensor, height: Tensor) -> Tensor:
    """Points by their distance from the third axis, a share of a turn around it, and their height."""
    angle = 2 * torch.pi * turn
    return torch.stack([distance * angle.cos(), distance * angle.sin(), height], 2)


def _choose(weights: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Which of several parts a uniform number falls into, and where in it, from 0 to 1."""
    ends = (weights / weights.sum(2, keepdim=True)).cumsum(2)
    chosen = (chance[..., None] >= ends).sum(2).clamp_max(weights.shape[2] - 1)
    end = ends.gather(2, chosen[..., None]).squeeze(2)
    start = torch.where(chosen > 0, ends.gather(2, (chosen - 1).clamp_min(0)[..., None]).squeeze(2), 0.0)
    return chosen, ((chance - start) / (end - start)).clamp(0, 1)


def first_hit(solids: Solids, origins: Tensor, direction: Tensor, steps: int = 64) -> tuple[Tensor, Tensor]:
    """Where rays first meet their solid: sphere tracing by exact distances (Hart 1996).

    Args:
        solids: N of them.
        origins: of rays, (N, R, 3).
        direction: of length 1, of all rays of a solid, (N, 3).
        steps: at most.

    Returns:
        The points that were reached (N, R, 3), and whether each lies on the surface (N, R).
    """
    start = _into(solids, origins - solids.place[:, None])
    way = _into(solids, direction[:, None]).expand_as(start)
    gone, hit = start.new_zeros(start.shape[:2]), torch.zeros(start.shape[:2], dtype=torch.bool)
    for number, distance in enumerate(DISTANCES):
        rows = solids.kind == number
        size = solids.size[rows][:, None].expand(-1, start.shape[1], -1).flatten(0, 1)
        found = _trace(distance, size, start[rows].flatten(0, 1), way[rows].flatten(0, 1), steps)
        gone[rows], hit[rows] = (values.unflatten(0, (-1, start.shape[1])) for values in found)
    return origins + gone[..., None] * direction[:, None], hit


def _trace(
    distance: Callable[[Tensor, Tensor], Tensor], size: Tensor, start: Tensor, way: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """How far rays (M, 3) go, (M,), and whether they arrive; those that have done either are not asked again."""
    gone, hit = start.new_zeros(len(start)), torch.zeros(len(start), dtype=torch.bool)
    going = torch.arange(len(start))
    for _ in range(steps):
        left = distance(start[going] + gone[going, None] * way[going], size[going])
        there = left < CLOSE
        hit[going[there]] = True
        gone[going] += torch.where(there, 0.0, left)
        going = going[~there & (gone[going] < FAR)]
        if not len(going):
            break
    return gone, hit

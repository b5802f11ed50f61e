"""Generated solids: as grids of voxels, as clouds of points, and as questions of what lies inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lowerbound.lab.data.labelled import ContextKind, labelled_rows
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.data.solids import KINDS, Solids, random_solids, signed_distance, surface
from lowerbound.lab.data.splits import NAMES
from lowerbound.model.spec import Count, Geometry
from lowerbound.noise import derive_seed, generator

HELD_OUT = 8  # one held-out row of each kind for so many of training


def shapes3d_voxels(
    data_dir: Path | None, *, size: Count = 16, count: Count = 4000, context: ContextKind = "none", seed: int = 0
) -> Dataset:
    """Spheres, boxes, tori and cylinders of random size, direction and place, (1, size, size, size) with 2 levels.

    A voxel is 1 if its centre lies in the solid. The label is the kind of solid.

    Args:
        data_dir: not used; the data are generated.
        size: voxels along a side of the unit cube.
        count: training rows; an eighth of it each for validation and testing.
        context: "label" makes models conditional on the kind of solid.
        seed: of all solids.
    """

    def fill(solids: Solids, source: torch.Generator) -> Tensor:
        centres = grid(size).expand(len(solids), -1, -1)
        return (signed_distance(solids, centres) <= 0).to(torch.uint8).reshape(-1, 1, size, size, size)

    return _made("shapes3d-voxels", fill, 2, count, context, seed, "grid")


def shapes3d_points(
    data_dir: Path | None, *, points: Count = 128, count: Count = 4000, context: ContextKind = "none", seed: int = 0
) -> Dataset:
    """The same solids as clouds (points, 3) of independent points, uniform on the surface by area.

    Args:
        data_dir: not used; the data are generated.
        points: of a cloud.
        count: training rows; an eighth of it each for validation and testing.
        context: "label" makes models conditional on the kind of solid.
        seed: of all solids, the same for all three views of them, and of the points.
    """
    return _made(
        "shapes3d-points", lambda solids, source: surface(solids, points, source), None, count, context, seed, "cloud"
    )


def shapes3d_occupancy(
    data_dir: Path | None, *, points: Count = 256, count: Count = 4000, context: ContextKind = "none", seed: int = 0
) -> Dataset:
    """The same solids as queries (points, 4): coordinates that are uniform in the cube, and whether they lie inside.

    Args:
        data_dir: not used; the data are generated.
        points: queries of a row.
        count: training rows; an eighth of it each for validation and testing.
        context: "label" makes models conditional on the kind of solid.
        seed: of all solids, the same for all three views of them, and of the points.
    """

    def ask(solids: Solids, source: torch.Generator) -> Tensor:
        where = torch.rand(len(solids), points, 3, generator=source) - 0.5
        return torch.cat([where, (signed_distance(solids, where) <= 0)[..., None].float()], dim=2)

    return _made("shapes3d-occupancy", ask, None, count, context, seed, "queries")


def grid(size: int) -> Tensor:
    """Centres of the voxels of the unit cube, (size^3, 3), the last axis fastest."""
    line = (torch.arange(size) + 0.5) / size - 0.5
    return torch.cartesian_prod(line, line, line)


def solids_of(name: str, count: int, seed: int) -> tuple[Solids, torch.Generator]:
    """The solids of a split, and a generator for what is made of them."""
    number = count if name == "train" else max(1, count // HELD_OUT)
    solids = random_solids(number, generator(derive_seed(seed, "shapes3d", name)))
    return solids, generator(derive_seed(seed, "shapes3d", name, "rows"))


def _made(
    name: str,
    make: Callable[[Solids, torch.Generator], Tensor],
    levels: int | None,
    count: int,
    context: ContextKind,
    seed: int,
    geometry: Geometry,
) -> Dataset:
    splits = {}
    for split in NAMES:
        solids, source = solids_of(split, count, seed)
        splits[split] = (make(solids, source), solids.kind)
    found = labelled_rows(name, splits, levels, len(KINDS), context, None)
    return replace(found, spec=replace(found.spec, geometry=geometry))

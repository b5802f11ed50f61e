"""Views of solids: pictures from a direction, alone, or with another view of the same solid as the context."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.data.shapes3d import HELD_OUT
from lowerbound.lab.data.solids import Solids, first_hit, random_solids
from lowerbound.lab.data.splits import NAMES
from lowerbound.model.networks.radiance import camera
from lowerbound.model.spec import Context, Count, DataSpec
from lowerbound.noise import derive_seed, generator

BLOCK = 200  # views that are rendered together


def shapes3d_views(
    data_dir: Path | None,
    *,
    size: Count = 16,
    count: Count = 4000,
    solids: Count | None = None,
    context: Literal["none", "direction", "view"] = "none",
    seed: int = 0,
) -> Dataset:
    """Orthographic views (3, size, size) with 256 levels of spheres, boxes, tori and cylinders, from all directions.

    A point of a surface has the colour of its place in the cube, the same from everywhere; the background is black.
    The label is the kind of solid.

    Args:
        data_dir: not used; the data are generated.
        size: pixels along a side.
        count: training rows; an eighth of it each for validation and testing.
        solids: so many different ones in each split, the same in all of them; None: each row has its own, and no
            solid of one split is in another.
        context: "direction" gives the direction of the camera (3 numbers of length 1); "view" gives that, the direction
            of a view that is known (3), and its pixels from 0 to 1.
        seed: of solids and directions.
    """
    parts = {}
    for split in NAMES:
        number = count if split == "train" else max(1, count // HELD_OUT)
        shown = _solids(split, number, solids, seed)
        source = generator(derive_seed(seed, "views", split))
        asked, known = (torch.nn.functional.normalize(torch.randn(number, 3, generator=source), dim=1) for _ in "ab")
        rows = render(shown, asked, size)
        vectors = None if context == "none" else asked
        if context == "view":
            vectors = torch.cat([asked, known, render(shown, known, size).flatten(1) / 255], dim=1)
        parts[split] = InMemory(rows, None if vectors is None else Context.of(vectors), shown.kind)
    given = parts["train"].context
    width = 0 if given is None else given.vector.shape[1]
    spec = DataSpec((3, size, size), 256, width, examples=count, contexts="numbers")
    return Dataset("shapes3d-views", spec, parts["train"], parts["validation"], parts["test"])


def _solids(split: str, number: int, solids: int | None, seed: int) -> Solids:
    if solids is None:
        return random_solids(number, generator(derive_seed(seed, "shapes3d", split)))
    few = random_solids(solids, generator(derive_seed(seed, "shapes3d", "few")))
    return few.select(torch.arange(number) % solids)


def render(solids: Solids, directions: Tensor, size: int) -> Tensor:
    """Views of solids, each from its direction (N, 3), (N, 3, size, size) in bytes: what a ray meets first."""
    found = []
    for place in torch.arange(len(solids)).split(BLOCK):
        start, way = camera(directions[place], size)
        points, hit = first_hit(solids.select(place), start, way)
        colour = (points + 0.5).clamp(0, 1) * hit[..., None]
        found.append(colour.transpose(1, 2).unflatten(2, (size, size)))
    return (255 * torch.cat(found)).round().to(torch.uint8)

"""What clips are compared by: where what is bright in them is, and how it moves."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.model.spec import DataSpec


def centres(raw: Tensor) -> Tensor:
    """The centre of brightness of each frame of clips (N, C, T, H, W), (N, T, 2), pixels from the top and the left.

    A dark frame's is the middle.
    """
    light = raw.double().clamp_min(0).sum(dim=1)
    total = light.sum(dim=(2, 3))
    found = []
    for axis, other in ((2, 3), (3, 2)):
        places = torch.arange(light.shape[axis], dtype=torch.float64)
        mean = (light.sum(dim=other) * places).sum(dim=2) / total.clamp_min(1e-12)
        found.append(torch.where(total > 0, mean, places.mean()))
    return torch.stack(found, dim=2)


def motion(raw: Tensor, spec: DataSpec) -> Tensor:
    """How the centre of brightness moves, (N, 5 (T - 1) - 2): its steps (2 each), their lengths, and how they change.

    Steps are rounded to whole pixels: what is less is a difference of pictures, and not of motion.

    Raises:
        NotSupportedError: rows that are no clips of two frames at least.
    """
    if spec.geometry != "grid" or len(spec.event) != 4 or spec.event[1] < 2:
        raise NotSupportedError(
            f"motion is of clips (channels, frames, height, width), and these rows have shape {list(spec.event)}; "
            "choose the features `raw`."
        )
    steps = centres(raw).diff(dim=1).round()
    return torch.cat([steps.flatten(1), steps.norm(dim=2), steps.diff(dim=1).flatten(1)], dim=1).float()

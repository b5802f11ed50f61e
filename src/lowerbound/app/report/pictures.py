"""Pictures of rows: grids of images, scatters of points."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lowerbound.errors import UsageError
from lowerbound.model.spec import DataSpec

PAGE = 800  # pixels that a picture is enlarged towards
INK, PAPER = "#1b4965", "white"
# From coordinates in space to those of a picture and of what is near: turned by 30 degrees, and tilted by 25.
TILTED = torch.tensor([[0.866, -0.211, 0.453], [0.5, 0.366, -0.785], [0.0, 0.906, 0.423]], dtype=torch.float64)


def gallery(rows: Tensor, spec: DataSpec) -> Image.Image:
    """All rows in one picture: a grid of images or clouds, a line of frames for each clip, or points in the plane."""
    if len(spec.event) == 3:
        return _grid(_pixels(rows, spec), math.ceil(math.sqrt(len(rows))))
    if is_clip(spec):
        return _sheet(rows[None], spec)
    if is_cloud(spec):
        return _clouds({"rows": rows}, spec)
    return scatter({"rows": rows}, spec)


def pairs(originals: Tensor, rows: Tensor, spec: DataSpec, columns: int = 16) -> Image.Image:
    """Originals above what became of them."""
    return stack({"original": originals, "reconstruction": rows}, spec, columns)


def stack(sets: dict[str, Tensor], spec: DataSpec, columns: int = 16) -> Image.Image:
    """Sets of equally many rows, each below the one before; points side by side."""
    if is_clip(spec):
        return _sheet(torch.stack(list(sets.values())), spec)
    if is_cloud(spec):
        return _clouds(sets, spec)
    if len(spec.event) != 3:
        return scatter(sets, spec)
    every = [_pixels(rows, spec) for rows in sets.values()]
    columns = min(columns, len(every[0]))
    lines = []
    for start in range(0, len(every[0]), columns):
        lines += [_filled(images[start : start + columns], columns) for images in every]
    return _grid(np.concatenate(lines), columns)


def table(rows: Tensor, spec: DataSpec) -> Image.Image:
    """Rows (lines, columns, *event) as they lie; of points, each line as a path in the plane."""
    if len(spec.event) == 3:
        return _grid(_pixels(rows.flatten(0, 1), spec), rows.shape[1])
    figure, axis = _plane(rows, spec)
    for line in rows:
        axis.plot(line[:, 0], line[:, 1], "o-", markersize=3, linewidth=1, alpha=0.7)
    return to_image(figure, "tight")


def frames(rows: Tensor, spec: DataSpec) -> list[Image.Image]:
    """Rows (lines, steps, *event) as a picture of all lines for each step."""
    if len(spec.event) == 3:
        return [gallery(step, spec) for step in rows.movedim(1, 0)]
    found = []
    for step in rows.movedim(1, 0):
        figure, axis = _plane(rows, spec)
        axis.scatter(step[:, 0], step[:, 1], s=16, color=INK, linewidths=0)
        found.append(to_image(figure))
    return found


def is_clip(spec: DataSpec) -> bool:
    """Whether rows are clips of frames, or solids of slices: (channels, frames, height, width)."""
    return len(spec.event) == 4


def is_cloud(spec: DataSpec) -> bool:
    """Whether rows are points in space, or queries of a solid there."""
    return spec.geometry != "grid" and spec.event[1] == (3 if spec.geometry == "cloud" else 4)


def film(rows: Tensor, spec: DataSpec) -> list[Image.Image]:
    """Clips (N, C, T, H, W) as a picture of all of them for each time; solids, for each slice.

    Raises:
        UsageError: other rows.
    """
    if not is_clip(spec):
        raise UsageError(f"rows of shape {list(spec.event)} have no frames to make a film of; write .png or .npy.")
    columns = math.ceil(math.sqrt(len(rows)))
    return [_grid(_pixels(frame, spec), columns) for frame in rows.unbind(2)]


def _sheet(sets: Tensor, spec: DataSpec) -> Image.Image:
    """Clips of several sets (sets, N, C, T, H, W): the frames of each as a line, and its partners below it."""
    frames = sets.transpose(0, 1).flatten(0, 1).transpose(1, 2)
    return _grid(_pixels(frames.flatten(0, 1), spec), frames.shape[1])


def _clouds(sets: dict[str, Tensor], spec: DataSpec, columns: int = 8) -> Image.Image:
    """Points in space, seen from above and one side, the nearer the darker; of queries, those inside."""
    count = len(next(iter(sets.values())))
    columns = min(columns, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(1.2 * columns, 1.2 * lines * len(sets)), dpi=120, layout="constrained")
    axes = figure.subplots(lines * len(sets), columns, squeeze=False)
    reach = max(float(rows[..., :3].abs().max()) for rows in sets.values())
    for axis in axes.flat:
        axis.set_axis_off()
    for number, rows in enumerate(sets.values()):
        for place, row in enumerate(rows.double()):
            points = row[row[:, 3] >= 0.5] if spec.geometry == "queries" else row
            across, up, near = (points[:, :3] @ TILTED).unbind(1)
            axis = axes[place // columns * len(sets) + number, place % columns]
            axis.scatter(across, up, c=near, s=3, cmap="Blues", vmin=-1.5 * reach, vmax=reach, linewidths=0)
            axis.set_xlim(-1.3 * reach, 1.3 * reach)
            axis.set_ylim(-1.3 * reach, 1.3 * reach)
            axis.set_aspect("equal")
    return to_image(figure)


def small(rows: Tensor, spec: DataSpec, columns: int, size: int) -> Image.Image:
    """A grid of images, not larger than it must be."""
    return _grid(_pixels(rows, spec), columns, size)


def dots(rows: Tensor, frame: Tensor, size: float = 1.1) -> Image.Image:
    """Points in the plane without axes, within the bounds of others."""
    low, high = frame.float().amin(dim=0), frame.float().amax(dim=0)
    middle, reach = (low + high) / 2, 0.6 * float((high - low).max()) + 1e-3
    figure = Figure(figsize=(size, size), dpi=150)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.scatter(rows[:, 0], rows[:, 1], s=1.5, alpha=0.6, color=INK, linewidths=0)
    axis.set_xlim(float(middle[0]) - reach, float(middle[0]) + reach)
    axis.set_ylim(float(middle[1]) - reach, float(middle[1]) + reach)
    axis.set_xticks([])
    axis.set_yticks([])
    return to_image(figure)


def _plane(rows: Tensor, spec: DataSpec) -> tuple[Figure, Axes]:
    """Empty axes that hold all points."""
    _refuse_other_than_points(spec)
    low, high = rows.flatten(0, -2).amin(dim=0), rows.flatten(0, -2).amax(dim=0)
    margin = 0.05 * float((high - low).max()) + 1e-3
    figure = Figure(figsize=(4, 4), dpi=120, layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(float(low[0]) - margin, float(high[0]) + margin)
    axis.set_ylim(float(low[1]) - margin, float(high[1]) + margin)
    axis.set_aspect("equal")
    axis.grid(alpha=0.2)
    return figure, axis


def _refuse_other_than_points(spec: DataSpec) -> None:
    if spec.event != (2,):
        raise UsageError(f"rows of shape {list(spec.event)} have no picture; write them as .npy.")


def scatter(sets: dict[str, Tensor], spec: DataSpec) -> Image.Image:
    """Points in the plane, sets side by side on the same axes."""
    _refuse_other_than_points(spec)
    figure = Figure(figsize=(4 * len(sets), 4), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(sets), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, points) in zip(axes, sets.items(), strict=True):
        axis.scatter(points[:, 0], points[:, 1], s=4, alpha=0.5, color=INK, linewidths=0)
        axis.set_title(f"{name} ({len(points):,})")
        axis.set_aspect("equal")
        axis.grid(alpha=0.2)
    return to_image(figure, "tight")


def to_image(figure: Figure, margins: Literal["tight"] | None = None) -> Image.Image:
    """A drawn figure as an image, with its own margins or with tight ones."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, bbox_inches=margins)
    return Image.open(buffer)


def _pixels(rows: Tensor, spec: DataSpec) -> NDArray[np.uint8]:
    """Raw rows (N, C, H, W) as 8-bit (N, H, W, 1 or 3); real values are taken to lie in [0, 1]."""
    channels = spec.event[0]
    if channels not in (1, 3):
        raise UsageError(f"images of {channels} channels have no picture; write them as .npy.")
    maximum = 1 if spec.levels is None else spec.levels - 1
    scaled = (rows.double() / maximum * 255).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).numpy()


def _filled(line: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """A line of images, filled up with empty ones."""
    missing = columns - len(line)
    return np.pad(line, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)


def _grid(images: NDArray[np.uint8], columns: int, size: int = PAGE) -> Image.Image:
    """Images in lines with a gap of one pixel, enlarged by a whole factor towards a size."""
    count, height, width, channels = images.shape
    lines = math.ceil(count / columns)
    canvas = np.full((lines * (height + 1) + 1, columns * (width + 1) + 1, channels), 255, np.uint8)
    for index, image in enumerate(images):
        line, column = divmod(index, columns)
        top, left = line * (height + 1) + 1, column * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)
    factor = max(1, size // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)

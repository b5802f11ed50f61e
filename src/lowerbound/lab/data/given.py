"""Clips of which some frames are given, as the context of models that make the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lowerbound.errors import RecipeError, ShapeError
from lowerbound.lab.data.rows import Batch, Dataset, Rows
from lowerbound.model.spec import Context, Shape

GivenFrames = Sequence[Sequence[int]]


def given(clips: Tensor, frames: Sequence[int]) -> Context:
    """The context of clips (N, C, T, H, W) that says some of their frames: the values of those, 0 for the others, then
    a 1 or 0 for each frame. Nothing of the others is in it.

    Raises:
        ShapeError: rows that are no clips, or a frame that they do not have.
    """
    mask = frame_mask(tuple(clips.shape[1:]), frames)
    known = clips.float() * mask[:, None, None]
    return Context.of(torch.cat([known.flatten(1), mask.expand(len(clips), -1)], dim=1))


def frame_mask(event: Shape, frames: Sequence[int]) -> Tensor:
    """1 for frames that are given and 0 for the others, (T,).

    Raises:
        ShapeError: rows that are no clips, or a frame that they do not have.
    """
    if len(event) != 4:
        raise ShapeError(
            f"frames can be given of clips (channels, frames, height, width), and these rows have shape {list(event)}; "
            "choose data of clips, or codes that keep the frames."
        )
    wrong = [frame for frame in frames if not -event[1] <= frame < event[1]]
    if wrong:
        raise ShapeError(f"frame {wrong[0]} was to be given, but these clips have the frames 0 to {event[1] - 1}.")
    mask = torch.zeros(event[1])
    mask[list(frames)] = 1.0
    return mask


class GivenRows(Rows):
    """Each clip once for each choice of given frames.

    Args:
        clips: rows (C, T, H, W).
        frames: the choices.
    """

    def __init__(self, clips: Rows, frames: GivenFrames) -> None:
        self.clips, self.frames = clips, frames
        self.labels = None if clips.labels is None else clips.labels.repeat_interleave(len(frames), dim=0)

    def __len__(self) -> int:
        return len(self.clips) * len(self.frames)

    def take(self, index: Tensor) -> Batch:
        raw = self.clips.take(index // len(self.frames)).raw
        event = tuple(raw.shape[1:])
        masks = torch.stack([frame_mask(event, chosen) for chosen in self.frames])[index % len(self.frames)]
        known = raw.float() * masks[:, None, :, None, None]
        return Batch(raw, Context.of(torch.cat([known.flatten(1), masks], dim=1)))

    def name(self, row: int) -> str:
        clip, choice = divmod(row, len(self.frames))
        return f"{self.clips.name(clip)}, given {list(self.frames[choice])}"


def with_given_frames(source: Dataset, frames: GivenFrames) -> Dataset:
    """Clips whose context says some of their frames; each comes once for each choice of frames.

    Raises:
        RecipeError: data that have a context of their own, or no choice of frames.
        ShapeError: rows that are no clips, or a frame that they do not have.
    """
    if source.spec.context or not frames:
        raise RecipeError(
            "`data.frames` makes the given frames the context of a row; name one choice of frames at least, and data "
            "without a context of their own."
        )
    for chosen in frames:
        frame_mask(source.spec.event, chosen)
    parts = {name: GivenRows(source.split(name), frames) for name in ("train", "validation", "test")}
    width = source.spec.size + source.spec.event[1]
    spec = replace(source.spec, context=width, contexts="numbers", examples=len(parts["train"]))
    return replace(source, spec=spec, **parts, findings=())  # type: ignore[arg-type]

"""Clips of video files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.kinds import Part
from lowerbound.lab.data import splits
from lowerbound.lab.data.assemble import assemble, by_name, located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.images import Size
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Count

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".mpg", ".mpeg")


def video(
    data_dir: Path | None,
    *,
    path: str,
    frames: Count = 16,
    size: Size = [64, 64],  # noqa: B006
    stride: Count = 1,
    step: Count | None = None,
    channels: Literal[1, 3] = 3,
    split: Part[splits.Split] = Part(splits.by_time),
) -> Dataset:
    """Clips (channels, frames, height, width) with 256 levels, axes (channel, time, ...); needs the extra "video".

    Clips follow one another by file name and time, and the last ones are for testing. Pictures are scaled to `size`.

    Args:
        data_dir: where a relative path starts.
        path: one video, or a folder of them.
        frames: of a clip.
        size: height and width.
        stride: one frame is taken of so many.
        step: frames of the video between the beginnings of clips; by default clips do not overlap.
        channels: 1 (grey) or 3 (colour).
        split: how clips are divided; by "file", too.
    """
    place = located(path, data_dir)
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
    step = step or frames * stride
    clips: list[NDArray[np.uint8]] = []
    names: list[str] = []
    numbers: list[int] = []
    findings: list[Finding] = []
    for number, file in enumerate(files):
        pictures, broken = _pictures(file, size, channels)
        if broken:
            findings.append(Finding("truncated" if len(pictures) else "unreadable", broken, (str(file),)))
            continue
        for start in range(0, len(pictures) - (frames - 1) * stride, step):
            clips.append(pictures[start : start + (frames - 1) * stride + 1 : stride])
            names.append(f"{file} from frame {start + 1}")
            numbers.append(number)
    if not clips:
        broken = f" ({'; '.join(finding.sentence() for finding in findings[:3])})" if findings else ""
        raise DataError(
            f"{place} gives no clip of {frames} frames{broken}; give longer videos, or a smaller `data.frames`."
        )
    raw = torch.from_numpy(np.stack(clips).transpose(0, 4, 1, 2, 3).copy())
    parts = split(len(raw), by_name({"file": np.array(numbers)}))
    return assemble(
        "video", raw, parts, levels=256, names=lambda row: names[row], source=place, findings=findings
    )  # fmt: skip


def av() -> ModuleType:
    """The module PyAV.

    Raises:
        DataError: it is not installed.
    """
    try:
        import av as module
    except ImportError:
        raise DataError(
            'videos are read with PyAV, which is not installed; run `pip install "lowerbound[video]"`.'
        ) from None
    return module


def _pictures(file: Path, size: list[int], channels: int) -> tuple[NDArray[np.uint8], str]:
    """Frames (T, H, W, C) of a video, and what is wrong with it, or ""."""
    found: list[NDArray[np.uint8]] = []
    wrong = ""
    try:
        found.extend(_decoded(file, size, channels))
    except (av().FFmpegError, OSError, ValueError, IndexError):
        wrong = "videos that end too early"
    if not found:
        wrong = "files that are no videos"
    pictures = np.stack(found) if found else np.zeros((0, *size, channels), np.uint8)
    return pictures, wrong


def _decoded(file: Path, size: list[int], channels: int) -> Iterator[NDArray[np.uint8]]:
    with av().open(str(file)) as container:
        for frame in container.decode(container.streams.video[0]):
            picture = frame.reformat(width=size[1], height=size[0], format="gray" if channels == 1 else "rgb24")
            yield picture.to_ndarray().reshape(size[0], size[1], channels)

"""Small videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def film(path: Path, frames: int = 40, shade: int = 0) -> Path:
    """A video whose frames grow brighter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(frames):
            picture = np.full((32, 48, 3), shade + 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path

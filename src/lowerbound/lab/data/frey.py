"""The Frey faces: 1,965 consecutive frames of one video of Brendan Frey's face, 28 x 20 pixels (Roweis et al. 2001)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.kinds import Part
from lowerbound.lab.data import splits
from lowerbound.lab.data.arrays import read_arrays
from lowerbound.lab.data.assemble import assemble, by_name
from lowerbound.lab.data.download import Remote, cache, fetch
from lowerbound.lab.data.rows import Dataset

FOLDERS, FILES = ("frey-faces", "frey_faces"), ("*.npz", "*.mat")
HEIGHT, WIDTH = 28, 20
URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
FRAMES_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # of the pixels, frame by frame


def frey_faces(
    data_dir: Path | None, *, download: bool = False, split: Part[splits.Split] = Part(splits.by_time)
) -> Dataset:
    """Frames of a face, (1, 28, 20) with 256 levels; the first 80 % are for training, the last 10 % for testing.

    Neighbouring frames are nearly equal, so a random split has nearly every test frame in its training set.

    Args:
        data_dir: the folder that holds `frey-faces/` with one .npz file of frames (N, 28, 20), or the original .mat.
        download: fetch the original file where it is missing.
        split: how frames are divided.
    """
    file = _file(data_dir, download)
    frames = torch.from_numpy(_frames(file))[:, None]
    return assemble(
        "frey-faces",
        frames,
        split(len(frames), by_name({})),
        levels=256,
        names=lambda row: f"{file} frame {row + 1}",
        source=file,
    )


def _file(data_dir: Path | None, download: bool) -> Path:
    folders = [data_dir / name for name in FOLDERS] if data_dir else [cache(FOLDERS[0], None)]
    for folder in folders:
        for pattern in FILES:
            for path in sorted(folder.glob(pattern)):
                return path
    if not download:
        raise DataError(
            f"the Frey faces were not found in {folders[0]}: put a .npz file of the frames, or frey_rawface.mat, "
            "there, say where they are with --data-dir or LOWERBOUND_DATA, or have them downloaded with "
            "--set data.download=true."
        )
    # The archive's own hash is not known to us: the frames in it are checked when they are read.
    return fetch(Remote((URL,), ""), cache(FOLDERS[0], data_dir) / "frey_rawface.mat")


def _frames(file: Path) -> NDArray[np.uint8]:
    """(N, 28, 20)."""
    found = _matlab(file) if file.suffix == ".mat" else next(iter(read_arrays(file).values()))
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[1:] != (HEIGHT, WIDTH):
        raise DataError(
            f"{file} holds an array of {found.dtype} and shape {list(found.shape)}; the Frey faces are uint8 of "
            f"shape [N, {HEIGHT}, {WIDTH}]."
        )
    return found


def _matlab(file: Path) -> NDArray[np.uint8]:
    """The frames of the original file, whose matrix `ff` has one of them in each column."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        frames = np.ascontiguousarray(loadmat(file)["ff"].T.reshape(-1, HEIGHT, WIDTH))
    except (KeyError, ValueError, TypeError, OSError, MatReadError) as error:
        raise DataError(f"{file} is not the file of the Frey faces ({error}); fetch it again.") from None
    if hashlib.sha256(frames.tobytes()).hexdigest() != FRAMES_SHA256:
        raise DataError(f"{file} holds other frames than the Frey faces; delete it and fetch it again.")
    return frames

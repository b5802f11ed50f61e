"""Pictures of what is neither an image nor a point of the plane: clips, solids and clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Cli
from PIL import Image

import lowerbound
from lowerbound.errors import UsageError
from lowerbound.lab.data.load import load_data


def test_clips_are_written_as_lines_of_frames_and_as_a_film(tmp_path: Path) -> None:
    spec = lowerbound.DataSpec((1, 3, 4, 4), 256)
    clips = torch.zeros(4, 1, 3, 4, 4)
    for time in range(3):
        clips[:, 0, time, time] = 255
    lowerbound.write_rows(tmp_path / "clips.png", clips, spec)
    with Image.open(tmp_path / "clips.png") as picture:
        factor = picture.width // 16  # 3 frames of 4 pixels and a gap
        assert picture.size == (16 * factor, 21 * factor)
        pixels = np.asarray(picture)[factor // 2 :: factor, factor // 2 :: factor]
    for time in range(3):
        frame = pixels[1:5, 1 + 5 * time : 5 + 5 * time]
        assert (frame == np.where(np.arange(4) == time, 255, 0)[:, None]).all()
    lowerbound.write_rows(tmp_path / "clips.gif", clips, spec)
    with Image.open(tmp_path / "clips.gif") as film:
        assert film.n_frames == 3
    lowerbound.write_pairs(tmp_path / "pairs.png", clips, clips, spec)
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.height / picture.width == pytest.approx(41 / 16)
    with pytest.raises(UsageError, match="no frames"):
        lowerbound.write_rows(tmp_path / "rows.gif", torch.zeros(2, 1, 4, 4), lowerbound.DataSpec((1, 4, 4), 256))


@pytest.mark.parametrize("kind", ["shapes3d-points", "shapes3d-occupancy", "shapes3d-voxels"])
def test_solids_are_written_as_pictures(kind: str, tmp_path: Path) -> None:
    data = load_data({"kind": kind, "count": 10})
    rows = data.train.take(torch.arange(10)).raw
    lowerbound.write_rows(tmp_path / "solids.png", rows, data.spec)
    with Image.open(tmp_path / "solids.png") as picture:
        found = np.asarray(picture.convert("L"))
    assert len(np.unique(found)) > 1


def test_a_run_of_clips_is_sampled_as_a_film(cli: Cli, tmp_path: Path) -> None:
    small = ["data.count=16", "training.steps=2", "training.batch_size=4", "model.encoder.widths=[4, 4]"]
    lowerbound.train(lowerbound.read_recipe("moving-digits", small), tmp_path / "run")
    result = cli("sample", tmp_path / "run", "--out", tmp_path / "clips.gif", "--count", "4")
    assert result.code == 0, result
    with Image.open(tmp_path / "clips.gif") as film:
        assert film.n_frames == 8

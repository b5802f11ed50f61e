"""Text, time series and videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import film

from lowerbound.errors import DataError
from lowerbound.lab.data.load import load_data, read_data
from lowerbound.lab.data.text import UNKNOWN_MARK, as_text
from lowerbound.lab.data.validate import validate

REAL = os.environ.get("LOWERBOUND_DATA")

# ---------------------------------------------------------------------------------------------------------- text

LINES = [f"the {('red', 'green', 'blue')[n % 3]} ball {n}" for n in range(40)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n\n".join(LINES) + "\n", encoding="utf-8")
    return path


def take(data: Any, split: str) -> torch.Tensor:
    rows = data.split(split)
    return rows.take(torch.arange(len(rows))).raw


def test_characters_are_tokens_and_come_back(lines: Path) -> None:
    data = load_data({"kind": "text", "path": str(lines), "length": 20})
    assert data.spec.event == (20,)
    assert data.spec.levels == len(data.spec.vocabulary)
    assert data.spec.vocabulary[:2] == ("", UNKNOWN_MARK)
    back = as_text(take(data, "train"), data.spec.vocabulary)
    assert set(back) <= set(LINES)
    assert len(set(back)) == 32
    assert data.train.name(0) == f"{lines} line {2 * LINES.index(back[0]) + 1}"


def test_words_are_tokens_and_unknown_ones_are_marked(lines: Path) -> None:
    table = {"kind": "text", "path": str(lines), "tokens": "words", "length": 3, "split": {"kind": "time"}}
    data = load_data(table)
    expected = [" ".join(line.split()[:3]) for line in LINES[-4:]]
    assert as_text(take(data, "test"), data.spec.vocabulary) == expected
    long = load_data({**table, "length": 8})
    assert as_text(take(long, "test"), long.spec.vocabulary)[0] == f"{expected[0]} {UNKNOWN_MARK}"
    few = load_data({**table, "vocabulary": 4})
    assert few.spec.vocabulary == ("", UNKNOWN_MARK, "ball", "the")


def test_lines_that_are_no_utf8_are_found(lines: Path) -> None:
    lines.write_bytes(lines.read_bytes() + b"caf\xe9\n")
    (finding,) = read_data({"kind": "text", "path": str(lines)}).findings
    assert finding.names == (f"{lines} line 80",)


def test_equal_lines_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("yes\nno\n" * 20)
    assert not validate(load_data({"kind": "text", "path": str(tmp_path)})).errors
    (tmp_path / "empty.md").touch()
    with pytest.raises(DataError, match="holds no lines"):
        load_data({"kind": "text", "path": str(tmp_path / "empty.md")})


# -------------------------------------------------------------------------------------------------------- series


def test_windows_of_a_series_do_not_reach_over_parts(tmp_path: Path) -> None:
    values = np.arange(1000)[:, None] + np.array([0.0, 0.5])
    np.save(tmp_path / "s.npy", values)
    data = load_data({"kind": "series", "path": "s.npy", "length": 16, "stride": 4}, tmp_path)
    assert data.spec.event == (2, 16)
    train, validation, test = (take(data, name) for name in ("train", "validation", "test"))
    assert train.max() < validation.min()
    assert validation.max() < test.min()
    assert train[3, 0].tolist() == list(range(12, 28))
    assert float(test.max()) == 999.5 - (100 - 16) % 4
    assert data.train.name(3) == f"{tmp_path / 's.npy'} times 13 to 28"


def test_columns_of_a_table_are_a_series(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    rows = [f"2024-01-01 {n // 60:02}:{n % 60:02}:00,{n},{n * n},w" for n in range(300)]
    rows[280] = rows[280].replace(",280,", ",,")
    path.write_text("\n".join(["when,a,b,word", *rows]))
    data = read_data({"kind": "series", "path": str(path), "length": 10, "columns": ["b", "a"]})
    assert data.spec.event == (2, 10)
    assert take(data, "train")[1, 0].tolist() == [n * n for n in range(1, 11)]
    (finding,) = data.findings
    assert finding.split == "test"
    assert len(finding.rows) == 10
    assert read_data({"kind": "series", "path": str(path), "length": 10}).spec.event == (2, 10)
    for settings, words in (({"columns": ["c"]}, "no column `c`"), ({"columns": ["word"]}, "holds no numbers")):
        with pytest.raises(DataError, match=words):
            read_data({"kind": "series", "path": str(path), **settings})
    with pytest.raises(DataError, match="too few for a window of 64"):
        read_data({"kind": "series", "path": str(path)})


# --------------------------------------------------------------------------------------------------------- video


def test_clips_of_videos(tmp_path: Path) -> None:
    for number in range(5):
        film(tmp_path / f"{number}.mp4", shade=number)
    data = load_data({"kind": "video", "path": str(tmp_path), "frames": 4, "stride": 2, "size": [16, 24]})
    assert data.spec.event == (3, 4, 16, 24)
    assert data.spec.levels == 256
    assert (len(data.train), len(data.validation), len(data.test)) == (19, 3, 3)
    clip = take(data, "train")[1].double().mean((0, 2, 3))
    assert torch.allclose(clip, torch.tensor([40.0, 50, 60, 70]).double(), atol=4)
    assert data.test.name(2) == f"{tmp_path / '4.mp4'} from frame 33"
    files = {"kind": "group", "by": "file", "test": 0.2, "validation": 0.2}
    grouped = load_data({"kind": "video", "path": str(tmp_path), "frames": 4, "channels": 1, "split": files})
    assert grouped.spec.event == (1, 4, 64, 64)
    held_out = {grouped.test.name(row).split()[0] for row in range(len(grouped.test))}
    assert not held_out & {grouped.train.name(row).split()[0] for row in range(len(grouped.train))}


def test_damaged_videos_are_found(tmp_path: Path) -> None:
    for number in range(10):
        film(tmp_path / f"{number}.mp4", 8)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    data = read_data({"kind": "video", "path": str(tmp_path), "frames": 8})
    (finding,) = data.findings
    assert (finding.check, finding.names) == ("unreadable", (str(tmp_path / "bad.mp4"),))
    with pytest.raises(DataError, match="gives no clip of 50 frames"):
        read_data({"kind": "video", "path": str(tmp_path), "frames": 50})


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="LOWERBOUND_DATA names no folder")
def test_real_videos() -> None:
    data = load_data({"kind": "video", "path": "video"})
    assert data.spec.event == (3, 16, 64, 64)
    assert len(data.train) + len(data.validation) + len(data.test) == 17 + 15 + 2 + 2


def test_a_folder_without_a_whole_video_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"no clip of 16 frames.*a\.mp4.*b\.mp4"):
        read_data({"kind": "video", "path": str(tmp_path)})

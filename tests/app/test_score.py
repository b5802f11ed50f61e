"""`lowerbound score`"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from harness import Cli

import lowerbound


def read(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_planted_rows_are_the_strangest(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    ordinary = lowerbound.load_rows(lowerbound.Run(gmm2d), count=300).raw.numpy()
    planted = np.array([[40.0, 40.0], [-30.0, 25.0]], dtype=np.float32)
    np.save(tmp_path / "rows.npy", np.concatenate([planted, ordinary]))
    result = cli("score", gmm2d, "--input", tmp_path / "rows.npy", "--out", tmp_path / "scores.csv", "--json")
    assert result.code == 0, result
    assert {found["row"] for found in json.loads(result.out)["strangest"][:2]} == {0, 1}
    scores = read(tmp_path / "scores.csv")
    assert {"elbo", "nll", "reconstruction", "mahalanobis", "typicality", "p_value"} <= scores.keys()
    for name in ("elbo", "nll", "reconstruction"):
        assert scores[name][:2].min() > scores[name][2:].max()
    assert abs(np.mean(scores["p_value"][2:] <= 0.1) - 0.1) < 0.06
    one = tmp_path / "one.npy"
    np.save(one, ordinary[7:8])
    assert cli("score", gmm2d, "--input", one, "--out", tmp_path / "one.csv").code == 0
    alone = read(tmp_path / "one.csv")
    for name, values in scores.items():
        if name != "row":
            assert alone[name][0] == pytest.approx(values[9], rel=1e-5, abs=1e-6), name


def test_what_cannot_be_scored_is_refused(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    cli("score", gmm2d, "--out", tmp_path / "scores.npy").refused(2, ".csv")
    np.save(tmp_path / "rows.npy", np.array([[0.0, 1.0], [np.nan, 0.0]], dtype=np.float32))
    cli("score", gmm2d, "--input", tmp_path / "rows.npy", "--out", tmp_path / "s.csv").refused(2, "rows.npy")
    assert not (tmp_path / "s.csv").exists()


def test_maps_say_where_a_row_is_strange(cli: Cli, tmp_path: Path) -> None:
    digits = tmp_path / "run"
    assert cli("train", "digits", "--set", "training.epochs=40", "--out", digits).code == 0
    raw = lowerbound.load_rows(lowerbound.Run(digits), count=20).raw.numpy().copy()
    raw[3, 0, :2, :2] = 16 - raw[3, 0, :2, :2]  # the empty corner of one image is bright
    np.save(tmp_path / "rows.npy", raw)
    given = ("score", digits, "--input", tmp_path / "rows.npy", "--out", tmp_path / "scores.csv", "--maps")
    assert cli(*given, tmp_path / "maps.npy").code == 0
    maps = np.load(tmp_path / "maps.npy")
    assert maps.shape == raw.shape
    assert maps.sum(axis=(1, 2, 3)) == pytest.approx(read(tmp_path / "scores.csv")["reconstruction"], rel=1e-4)
    corners = maps[:, 0, :2, :2].mean(axis=(1, 2))
    assert corners.argmax() == 3
    assert cli(*given, tmp_path / "maps.png").code == 0
    assert (tmp_path / "maps.png").stat().st_size > 0
    (tmp_path / "scores.csv").unlink()
    cli(*given, tmp_path / "maps.txt").refused(2, ".npy")
    assert not (tmp_path / "scores.csv").exists()

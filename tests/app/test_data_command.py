"""`lowerbound data`, and `lowerbound train --check`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from harness import SMALL, Cli


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """Rows of numbers, two of them equal."""
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    rows[7] = rows[3]
    np.save(tmp_path / "rows.npy", rows)
    return tmp_path / "rows.npy"


def test_sound_data(cli: Cli) -> None:
    result = cli("data", "digits")
    assert result.code == 0, result
    assert "1,297 of train" in result.out
    assert result.out.strip().endswith("sound")


def test_a_report_names_rows_and_is_a_verdict(cli: Cli, array: Path) -> None:
    arguments = ("data", "arrays", "--set", f"data.path={array}")
    result = cli(*arguments)
    assert result.code == 1
    assert f"{array} row 4" in result.out
    assert f"{array} row 8" in result.out
    found = json.loads(cli(*arguments, "--json").out)
    assert not found["sound"]
    assert [finding["check"] for finding in found["findings"]] in (["duplicate"], ["leak"])


@pytest.mark.filterwarnings("always")
def test_training_refuses_leaves_out_or_does_not_look(cli: Cli, array: Path, tmp_path: Path) -> None:
    arguments = ("train", "arrays", *SMALL, "--set", f"data.path={array}", "--out", tmp_path / "run")
    cli(*arguments, "--check", "strict").refused(2, f"{array} row 4", f"{array} row 8", "--check permissive")
    assert not (tmp_path / "run").exists()
    result = cli(*arguments, "--check", "permissive")
    assert result.code == 0, result
    assert "1 rows and 0 files are left out" in result.err
    assert (tmp_path / "run" / "quarantine.json").exists()
    assert cli("evaluate", tmp_path / "run", "--samples", "2").code == 0
    result = cli(*arguments[:-1], tmp_path / "other")
    assert result.code == 0
    assert not (tmp_path / "other" / "quarantine.json").exists()

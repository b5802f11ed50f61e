"""Validation: everything that can be wrong with data is found, named, refused or left out."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lowerbound
from lowerbound.errors import DataError
from lowerbound.lab.data.load import load_data, read_data
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.data.validate import enforce, validate
from lowerbound.model.spec import Column, DataSpec

SMALL = ["training.steps=4", "training.batch_size=4", "training.checkpoint_every=2", "evaluation.samples=2"]
SMALL += ["model.encoder.widths=[8]", "model.decoder.widths=[8]"]


def picture(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty good pictures, and one of each kind of bad ones."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(30):
        picture(path / f"{number:02}.png", number)
    content = (path / "07.png").read_bytes()
    (path / "truncated.png").write_bytes(content[: len(content) // 2])
    (path / "copy.png").write_bytes(content)
    Image.fromarray(np.full((6, 5), 9, np.uint8)).save(path / "blank.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(path / "large.png")
    (path / "notes.txt").write_text("no picture")
    return path


BAD = {"truncated.png", "copy.png", "07.png", "blank.png", "large.png", "notes.txt"}  # a copy, or what it is of


def recipe(path: Path, *more: str) -> lowerbound.Recipe:
    overrides = [f"data.path='{path}'", "data.kind='images'", "model.likelihood.kind='gaussian'", *SMALL, *more]
    return lowerbound.read_recipe("table", [*overrides, "data.split={kind='random', test=0.2, validation=0.2}"])


def named(text: str) -> set[str]:
    return {name for name in BAD if name in text}


def test_strict_refuses_and_names_the_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        lowerbound.train(recipe(folder), tmp_path / "run", check="strict")
    assert named(str(refused.value)) == BAD
    assert refused.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_permissive_leaves_them_out_says_so_and_remembers(folder: Path, tmp_path: Path) -> None:
    chosen = recipe(folder)
    with pytest.warns(UserWarning, match=r"2 rows and 3 files are left out and listed in quarantine\.json"):
        run = lowerbound.train(chosen, tmp_path / "run", check="permissive")
    content = json.loads(run.quarantine_path.read_text())
    left_out = [entry["name"] for rows in content["rows"].values() for entry in rows]
    assert named(" ".join(left_out + content["files"])) >= BAD - {"copy.png", "07.png"}
    assert len(left_out) == 2
    data = load_data(chosen.data, None, run.quarantine_path)
    assert len(data.train) + len(data.validation) + len(data.test) == 30
    assert run.data_spec().examples == len(data.train)
    assert not validate(data, "gaussian").errors
    lowerbound.evaluate(run)
    with pytest.raises(DataError, match="more findings"):
        load_data(chosen.data)


def test_a_run_that_was_stopped_goes_on_without_the_same_rows(folder: Path, tmp_path: Path) -> None:
    chosen = recipe(folder)
    with pytest.warns(UserWarning, match="left out"):
        whole = lowerbound.train(chosen, tmp_path / "whole", check="permissive")
    steps = iter([False, True])
    with pytest.warns(UserWarning, match="left out"):
        lowerbound.train(chosen, tmp_path / "parts", check="permissive", stop=lambda: next(steps))
    parts = lowerbound.train(chosen, tmp_path / "parts", resume=True)
    assert parts.finished
    assert parts.weights_path.read_bytes() == whole.weights_path.read_bytes()


def test_data_that_changed_since_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="left out"):
        run = lowerbound.train(recipe(folder), tmp_path / "run", check="permissive")
    for number in range(10):
        picture(folder / f"0{number}a.png", 100 + number)
    with pytest.raises(DataError, match="the data have changed"):
        lowerbound.evaluate(run)


def test_a_table_with_a_leak_and_impossible_labels(tmp_path: Path) -> None:
    rows = [f"{number / 7:.4f},{number % 3},{number % 2},train" for number in range(80)]
    rows += [f"{number / 7 + 100:.4f},{number % 3},{number % 2},validation" for number in range(20)]
    rows += [f"{number / 7 + 200:.4f},{number % 3},{number % 2},test" for number in range(20)]
    rows[103] = rows[5].replace("train", "test")
    rows[11] = "12.5,1,7,train"
    rows[12] = "12.6,1,-1,train"
    rows[13] = "12.7,1,0.5,train"
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,b,ill,split", *rows]) + "\n")
    table = {"kind": "table", "path": str(path), "label": "ill", "classes": 2, "split": {"kind": "given"}}
    data = read_data({**table, "columns": {"b": "count", "split": "ignore"}})
    found = {(finding.check, name) for finding in validate(data).errors for name in finding.names}
    assert found == {
        ("leak", f"{path} row 104 (= {path} row 6)"),
        *(("label", f"{path} row {row}") for row in (12, 13, 14)),
    }


def in_memory(train: Any, test: Any = None, **spec: Any) -> Dataset:
    train = torch.as_tensor(np.asarray(train))
    test = torch.as_tensor(np.asarray(test)) if test is not None else train[:0]
    facts = DataSpec(tuple(train.shape[1:]), examples=len(train), **spec)
    return Dataset("own", facts, InMemory(train), InMemory(train[:0]), InMemory(test))


def test_one_bad_row_among_a_million_is_found_soon() -> None:
    rows = np.random.default_rng(0).normal(size=(1_000_000, 10)).astype(np.float32)
    rows[123_456, 3] = np.nan
    rows[654_321] = rows[17]
    began = time.perf_counter()
    found = validate(in_memory(rows), "gaussian").findings
    seconds = time.perf_counter() - began
    assert {(f.check, f.rows) for f in found} == {("not-finite", (123_456,)), ("duplicate", (654_321,))}
    assert seconds < 10


NORMAL = np.random.default_rng(1).normal(size=(100, 4)).astype(np.float32)
BYTES = np.random.default_rng(2).integers(0, 256, (100, 1, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("data", "likelihood", "words"),
    [
        (in_memory(NORMAL), "bernoulli", r"values such as -[\d.]+ and [\d.]+ where a likelihood 'bernoulli' needs"),
        (
            in_memory(BYTES.astype(np.float32)),
            "bernoulli",
            "255 where a likelihood 'bernoulli' needs numbers from 0 to 1",
        ),
        (in_memory(BYTES, levels=2), "bernoulli", "255 where 2 levels allow 0 to 1"),
    ],
)
def test_a_wrong_scale_is_refused_even_where_rows_may_be_left_out(data: Dataset, likelihood: str, words: str) -> None:
    report = validate(data, likelihood)
    for check in ("strict", "permissive"):
        with pytest.raises(DataError, match=words):
            enforce(data, report, check)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "likelihood"),
    [
        (in_memory(NORMAL), "gaussian"),
        (in_memory(BYTES, levels=256), "bernoulli"),
        (in_memory(BYTES / np.float32(255)), "bernoulli"),
        (in_memory(np.zeros((5, 2), np.uint8), levels=2), "bernoulli"),
    ],
)
def test_sound_data_are_sound(data: Dataset, likelihood: str) -> None:
    report = validate(data, likelihood)
    assert not report.errors
    assert enforce(data, report, "strict") is data


def test_a_few_rows_out_of_range_are_left_out() -> None:
    rows = BYTES / np.float32(255)
    rows[3, 0, 0, 0] = 1.5
    data = in_memory(rows)
    kept = enforce(data, validate(data, "bernoulli"), "permissive")
    assert len(kept.train) == 99
    assert kept.spec.examples == 99
    assert kept.train.name(3) == "row 4"


def test_equal_rows_with_different_labels() -> None:
    rows = NORMAL.copy()
    rows[9] = rows[4]
    data = in_memory(rows)
    data.train.labels = torch.arange(100) % 2
    (duplicate, label) = validate(data).findings
    assert duplicate.names == ("row 9 (= row 4)",)
    assert label.names == ("row 9 (1) and row 4 (0)",)


def test_labels_that_training_does_not_know() -> None:
    data = in_memory(NORMAL[:90], NORMAL[90:])
    data.train.labels, data.test.labels = torch.arange(90) % 3, torch.tensor([0, 1, 2, 7, -1, 0, 0, 0, 0, 0])
    data.validation.labels = torch.zeros(0, dtype=torch.long)
    assert {(f.check, f.names) for f in validate(data).findings} == {
        ("label", ("row 4 (-1)",)),
        ("label", ("row 3 (7)",)),
    }


def test_constant_columns_are_errors_in_tables_and_notes_elsewhere() -> None:
    rows = NORMAL.copy()
    rows[:, 2] = 5
    (note,) = validate(in_memory(rows)).findings
    assert (note.check, note.names, note.severity) == ("constant", ("column 3",), "note")
    columns = tuple(Column(name, "real") for name in "abcd")
    (error,) = validate(in_memory(rows, columns=columns)).findings
    assert (error.check, error.names, error.severity) == ("constant", ("c",), "error")


def test_missing_values_need_a_likelihood_with_a_place_for_them() -> None:
    rows = NORMAL.copy()
    rows[7, 1] = np.nan
    data = in_memory(rows, columns=tuple(Column(name, "real") for name in "abcd"))
    assert not validate(data, "table").findings
    (finding,) = validate(data, "gaussian").errors
    assert finding.rows == (7,)


def test_equal_rows_are_usual_where_few_are_possible() -> None:
    categories = tuple(Column(name, "category", 3) for name in "abcd")
    rows = np.random.default_rng(0).integers(0, 3, (500, 4)).astype(np.float32)
    assert {f.severity for f in validate(in_memory(rows, columns=categories)).findings} == {"note"}
    assert validate(in_memory(rows)).errors


def test_more_than_half_is_too_much_to_leave_out() -> None:
    data = in_memory(np.concatenate([NORMAL[:1]] * 60 + [NORMAL[1:41]]))
    with pytest.raises(DataError, match=r"59 of 100 rows of train .* too many"):
        enforce(data, validate(data), "permissive")


def test_rows_equal_only_by_hash_are_not_called_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowerbound.lab.data.validate._hash", lambda values: np.zeros(len(values), np.uint64))
    assert not validate(in_memory(NORMAL), "gaussian").findings


def test_findings_of_reading_are_kept_once() -> None:
    data = read_data({"kind": "gmm2d", "points": 50})
    assert not validate(replace(data, name="x"), "gaussian").findings

"""Tables: kinds of columns, missing values, labels, and cells that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lowerbound.errors import DataError, RecipeError
from lowerbound.lab.data.load import load_data, read_data
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.model.spec import Column

HEAD = "height,visits,colour,smoker,flag,day,patient,outcome\n"


def line(number: int, **cells: Any) -> str:
    row = {
        "height": f"{1.5 + number / 1000:.3f}",
        "visits": number % 7,
        "colour": ("red", "green", "blue")[number % 3],
        "smoker": ("no", "yes")[number % 2],
        "flag": number % 2,
        "day": f"2024-01-{1 + number % 28:02d}",
        "patient": f"p{number // 5}",
        "outcome": number % 4,
    }
    return ",".join(str(value) for value in (row | cells).values()) + "\n"


def write(folder: Path, changes: dict[int, dict[str, Any]] | None = None, rows: int = 100) -> Path:
    path = folder / "people.csv"
    path.write_text(HEAD + "".join(line(number, **(changes or {}).get(number, {})) for number in range(rows)))
    return path


def read(path: Path, **settings: Any) -> Dataset:
    columns = {"visits": "count", "patient": "ignore"} | settings.pop("columns", {})
    return read_data({"kind": "table", "path": str(path), "columns": columns, **settings})


def all_rows(data: Dataset) -> torch.Tensor:
    """Training, validation and test rows, one after the other."""
    return torch.cat(
        [data.split(name).take(torch.arange(len(data.split(name)))).raw for name in ("train", "validation", "test")]
    )


def test_kinds_are_found_or_declared(tmp_path: Path) -> None:
    data = read(write(tmp_path), label="outcome")
    assert data.spec.columns == (
        Column("height", "real"),
        Column("visits", "count"),
        Column("colour", "category", 3, ("blue", "green", "red")),
        Column("smoker", "binary", 0, ("no", "yes")),
        Column("flag", "binary", 0, ("0", "1")),
    )
    assert data.spec.event == (5,)
    assert (len(data.train), len(data.validation), len(data.test)) == (80, 10, 10)
    assert not data.findings
    rows = all_rows(data)
    first = rows[rows[:, 0].argmin()]
    assert first.tolist() == [1.5, 0, 2, 0, 0]
    assert isinstance(data.train, InMemory)
    assert data.train.labels is not None
    assert set(data.train.labels.tolist()) == {0, 1, 2, 3}


def test_missing_values_are_nan(tmp_path: Path) -> None:
    changes = {3: {"height": "", "colour": "NA", "smoker": "?", "visits": "nan"}}
    data = read(write(tmp_path, changes), label="outcome")
    rows = all_rows(data)
    assert int(rows.isnan().sum()) == 4
    assert int(rows.isnan().any(1).sum()) == 1
    assert not data.findings


def test_cells_that_cannot_be_are_found_and_named(tmp_path: Path) -> None:
    changes = {3: {"height": "tall"}, 4: {"visits": -1}, 5: {"visits": 2.5}, 6: {"height": "inf"}, 7: {"outcome": 9}}
    path = write(tmp_path, changes)
    data = read(path, label="outcome", classes=4)
    found = {(finding.check, name) for finding in data.findings for name in finding.names}
    assert found == {
        ("value", f"{path} row 4"),
        ("value", f"{path} row 5"),
        ("value", f"{path} row 6"),
        ("not-finite", f"{path} row 7"),
        ("label", f"{path} row 8"),
    }
    for finding in data.findings:
        assert [data.split(finding.split).name(row) for row in finding.rows] == list(finding.names)
    with pytest.raises(DataError, match=r"people\.csv row \d+ .*--check permissive"):
        load_data({"kind": "table", "path": str(path), "columns": {"visits": "count", "patient": "ignore"}})


def test_lines_of_another_length_are_found(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + "1.7,3\n")
    (finding,) = read(path).findings
    assert finding.check == "truncated"
    assert finding.names == (f"{path} line 102 (2 values, 8 expected)",)


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    content = {"a": [1.0, None, 3.0] * 10, "b": [True, False, None] * 10, "c": ["x", "y", "z"] * 10}
    pq.write_table(pa.table({**content, "d": pa.array(content["c"]).dictionary_encode()}), path)
    data = read_data({"kind": "table", "path": str(path)})
    assert [column.kind for column in data.spec.columns] == ["real", "binary", "category", "category"]
    assert int(all_rows(data).isnan().sum()) == 20


@pytest.mark.parametrize(
    ("split", "check"),
    [
        ({"kind": "time", "by": "day"}, lambda a, b: max(a) < min(b)),
        ({"kind": "group", "by": "patient"}, lambda a, b: not set(a) & set(b)),
    ],
)
def test_rows_are_divided_by_a_column(tmp_path: Path, split: dict[str, str], check: Any) -> None:
    path = write(tmp_path)
    lines = path.read_text().splitlines()[1:]
    place = {"day": 5, "patient": 6}[split["by"]]
    data = read(path, split=split)
    train, test = (
        [lines[int(rows.name(row).split()[-1]) - 1].split(",")[place] for row in range(len(rows))]
        for rows in (data.train, data.test)
    )
    assert check(train, test)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "nowhere.csv"}, "nowhere.csv does not exist"),
        ({"columns": {"weight": "real"}}, "no column `weight`"),
        ({"split": {"kind": "time", "by": "hour"}}, "nothing called `hour`"),
        ({"context": "label"}, "no labels"),
        ({"columns": {"day": "real"}}, "holds times"),
        ({"split": {"kind": "random", "test": 1.5}}, "data.split.test"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    path = write(tmp_path)
    with pytest.raises((DataError, RecipeError), match=words):
        read_data({"kind": "table", "path": str(path), **settings})


def test_a_column_of_names_is_no_category(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("a,name\n" + "".join(f"{n},n{n}\n" for n in range(1200)))
    with pytest.raises(DataError, match=r'columns\.name = "ignore"'):
        read_data({"kind": "table", "path": str(path)})


@pytest.mark.parametrize("content", ["", "a,b\n", "a,a\n1,2\n", "\x00\x01\xff" * 100])
def test_what_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"wrong\.csv"):
        read_data({"kind": "table", "path": str(path)})


def test_a_file_that_is_no_text_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_bytes(b"a,b\n\x9f\x8c,1,2\n")
    with pytest.raises(DataError, match=r"rows\.csv cannot be read as a table"):
        read_data({"kind": "table", "path": str(tmp_path / "rows.csv")})
    assert not any(capfd.readouterr())

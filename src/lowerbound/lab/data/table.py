"""Tables: CSV and Parquet files with real, categorical, count and binary columns, and missing values."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.kinds import Part
from lowerbound.lab.data import splits
from lowerbound.lab.data.assemble import assemble, by_name, located
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.labelled import ContextKind
from lowerbound.lab.data.rows import Dataset
from lowerbound.model.spec import Column, Count

ColumnType = Literal["real", "category", "count", "binary", "ignore"]

MOSTLY = 0.95  # a column of words of which so many are numbers is one of numbers with wrong cells
MANY = 1000  # a column of more different words than this, and than a tenth of the rows, is no category


def table(
    data_dir: Path | None,
    *,
    path: str,
    columns: dict[str, ColumnType] = {},  # noqa: B006
    label: str | None = None,
    classes: Count | None = None,
    context: ContextKind = "none",
    missing: list[str] = ["", "NA", "N/A", "NaN", "nan", "null", "?"],  # noqa: B006
    delimiter: str = ",",
    split: Part[splits.Split] = Part(splits.at_random),
) -> Dataset:
    """Rows (D,) of a CSV or Parquet file as real numbers, NaN where a value is missing; needs the extra "tables".

    Words are categories, numbered in alphabetical order; two words, or numbers that are all 0 or 1, are binary; other
    numbers are real. Counts, and numbers that are categories, must be declared. Dates and times are not part of a row,
    but rows can be divided by them.

    Args:
        data_dir: where a relative path starts.
        path: the file: .csv, .csv.gz or .tsv with a line of names, or .parquet.
        columns: kinds of columns by name, where they shall be other than what was said above: "real", "category",
            "count", "binary", or "ignore" for a column that is not part of a row.
        label: name of a column that is the label of a row and not part of it.
        classes: number of labels, if they are the integers from 0.
        context: "label" makes models conditional on the label.
        missing: words that stand for a missing value.
        delimiter: of a CSV file.
        split: how rows are divided; any column can be named, also one that is ignored.
    """
    file = located(path, data_dir)
    found = _read(file, missing, delimiter)
    for name in [*columns, *([label] if label else [])]:
        if name not in found.values:
            raise DataError(f"{file} has no column `{name}`; its columns are {', '.join(found.values)}.")
    read = [
        _column(name, values, columns.get(name), found)
        for name, values in found.values.items()
        if name != label and columns.get(name) != "ignore"
    ]
    kept = [column for column in read if column is not None]
    if not kept:
        raise DataError(f"{file} has no column that could be part of a row; declare kinds with `data.columns`.")
    raw = torch.from_numpy(np.stack([column.values for column in kept], axis=1))
    wrong = [finding for column in kept for finding in column.findings]
    labels = None
    if label:
        numbers, odd = _labels(label, found, classes)
        labels, wrong = torch.from_numpy(numbers), wrong + odd
    parts = split(found.rows, by_name({"label": found.values[label], **found.values} if label else found.values))
    return assemble(
        "table",
        raw,
        parts,
        labels=labels,
        context=context,
        names=found.name,
        columns=tuple(column.fact for column in kept),
        source=file,
        findings=[*found.findings, *wrong],
    )


@dataclass(frozen=True)
class _Found:
    """What a file holds: values by column, what is missing, and what could not be read."""

    file: Path
    rows: int
    values: dict[str, NDArray[Any]]
    absent: dict[str, NDArray[np.bool_]]
    findings: list[Finding]

    def name(self, row: int) -> str:
        """What a person calls a row."""
        return f"{self.file} row {row + 1}"

    def finding(self, check: str, what: str, rows: NDArray[np.bool_]) -> list[Finding]:
        """A finding about the rows of a mask, if there are any."""
        places = np.flatnonzero(rows).tolist()
        return [Finding(check, what, tuple(map(self.name, places)), tuple(places))] if places else []


@dataclass(frozen=True)
class _Column:
    fact: Column
    values: NDArray[np.float32]
    findings: list[Finding]


def arrow() -> ModuleType:
    """The module pyarrow.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            'tables are read with pyarrow, which is not installed; run `pip install "lowerbound[tables]"`.'
        ) from None
    return pyarrow


# ------------------------------------------------------------------------------------------------------- reading


def read_columns(file: Path) -> dict[str, NDArray[Any]]:
    """The columns of a CSV or Parquet file: numbers as float64 with NaN where one is missing, words as objects.

    Raises:
        DataError: the file cannot be read, or has lines of another length.
    """
    found = _read(file, ["", "NA", "NaN", "nan"], ",")
    if found.findings:
        raise DataError(f"{found.findings[0].sentence()}; mend the file.")
    return found.values


def _read(file: Path, missing: list[str], delimiter: str) -> _Found:
    pyarrow = arrow()
    findings: list[Finding] = []
    try:
        if file.suffix == ".parquet":
            content = pyarrow.parquet.read_table(file)
        else:
            content, findings = _read_csv(pyarrow, file, missing, "\t" if ".tsv" in file.suffixes else delimiter)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read as a table ({reason}); write it again.") from None
    if len(set(content.column_names)) < len(content.column_names) or not content.num_rows:
        what = "no rows" if not content.num_rows else "two columns of one name"
        raise DataError(f"{file} has {what}; a table needs rows, and a line of different names above them.")
    values, absent = {}, {}
    for name in content.column_names:
        values[name], absent[name] = _numpy(pyarrow, content.column(name), set(missing))
    return _Found(file, content.num_rows, values, absent, findings)


def _read_csv(pyarrow: ModuleType, file: Path, missing: list[str], delimiter: str) -> tuple[Any, list[Finding]]:
    wrong: list[str] = []

    def skip(row: Any) -> str:
        number = "" if row.number is None else f" line {row.number}"
        wrong.append(f"{file}{number} ({row.actual_columns} values, {row.expected_columns} expected)")
        return "skip"

    if file.suffix in (".csv", ".tsv", ".txt"):  # not a compressed one
        with file.open("rb") as stream:
            codecs.getincrementaldecoder("utf-8")().decode(stream.read(2**16))
    csv = pyarrow.csv
    content = csv.read_csv(
        file,
        read_options=csv.ReadOptions(use_threads=False),  # so that wrong lines have numbers
        parse_options=csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            null_values=missing, strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    what = "lines with another number of values than there are columns"
    return content, [Finding("truncated", what, tuple(wrong))] if wrong else []


def _numpy(pyarrow: ModuleType, column: Any, missing: set[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values and which of them are missing: numbers as float64, booleans too, words as objects, times as datetime64."""
    types = pyarrow.types
    kind = column.type
    absent = np.asarray(column.is_null())
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        values = np.asarray(column.cast(pyarrow.float64()).fill_null(float("nan")))
        return values, absent | np.isnan(values)
    if types.is_null(kind):
        return np.full(len(column), np.nan), absent
    if types.is_temporal(kind) and not types.is_duration(kind) and not types.is_time(kind):
        return np.asarray(column.cast(pyarrow.timestamp("us"))), absent
    words = np.asarray(column.cast(pyarrow.string()).fill_null(""), dtype=object)
    return words, absent


# ------------------------------------------------------------------------------------------------------- columns


def _column(name: str, values: NDArray[Any], kind: str | None, found: _Found) -> _Column | None:
    """One column as numbers; None for one that is not part of a row."""
    if values.dtype.kind == "M":
        if kind is not None:
            raise DataError(f"{found.file}: `{name}` holds times, and they cannot be {kind!r}; leave them out.")
        return None
    absent = found.absent[name]
    findings: list[Finding] = []
    if values.dtype == object:
        numbers, unreadable = _as_numbers(values, absent)
        present = max(int((~absent).sum()), 1)
        if kind in ("real", "count") or (kind is None and 1 - unreadable.sum() / present >= MOSTLY):
            findings = found.finding("value", f"column `{name}` has cells that are no numbers", unreadable)
            values, absent = numbers, absent | unreadable
    kind = kind or _kind(name, values, absent, found)
    return _KINDS[kind](name, values, absent, found, findings)


def _as_numbers(words: NDArray[Any], absent: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Words as numbers where they are, and where they are not."""
    different, place = np.unique(words.astype(str), return_inverse=True)
    numbers = np.array([_number(word) for word in different])
    unreadable = np.isnan(numbers)[place] & ~absent
    return np.where(absent, np.nan, numbers[place]), unreadable


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _kind(name: str, values: NDArray[Any], absent: NDArray[np.bool_], found: _Found) -> str:
    present = values[~absent]
    different = np.unique(present.astype(str) if values.dtype == object else present)
    if values.dtype != object:
        return "binary" if len(different) == 2 and set(different.tolist()) == {0.0, 1.0} else "real"
    if len(different) > MANY and len(different) > len(present) / 10:
        raise DataError(
            f"{found.file}: column `{name}` has {len(different):,} different words in {len(present):,} rows and is "
            f'no category; declare it with `data.columns.{name} = "ignore"`, or as what it is.'
        )
    return "binary" if len(different) == 2 else "category"


def _real(
    name: str, values: NDArray[Any], absent: NDArray[np.bool_], found: _Found, findings: list[Finding]
) -> _Column:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    endless = np.isinf(single)
    findings = findings + found.finding("not-finite", f"column `{name}` has values that are not finite", endless)
    return _Column(Column(name, "real"), np.where(endless, np.float32("nan"), single), findings)


def _count(
    name: str, values: NDArray[Any], absent: NDArray[np.bool_], found: _Found, findings: list[Finding]
) -> _Column:
    with np.errstate(invalid="ignore"):
        wrong = ~absent & ((values < 0) | (values != np.rint(values)) | np.isinf(values))
    findings = findings + found.finding("value", f"column `{name}` has values that are no counts (0, 1, 2, ...)", wrong)
    return _Column(Column(name, "count"), np.where(wrong | absent, np.nan, values).astype(np.float32), findings)


def _category(
    name: str, values: NDArray[Any], absent: NDArray[np.bool_], found: _Found, findings: list[Finding]
) -> _Column:
    words, codes = _coded(values, absent)
    column = Column(name, "category", max(len(words), 1), words)
    return _Column(column, codes, findings)


def _binary(
    name: str, values: NDArray[Any], absent: NDArray[np.bool_], found: _Found, findings: list[Finding]
) -> _Column:
    words, codes = _coded(values, absent)
    if values.dtype != object:
        words = ("0", "1")
        with np.errstate(invalid="ignore"):
            wrong = ~absent & (values != 0) & (values != 1)
        codes = np.where(wrong, np.nan, values).astype(np.float32)
    else:
        often = sorted(np.argsort(-np.bincount(codes[~absent].astype(int), minlength=2), kind="stable")[:2].tolist())
        wrong = ~absent & ~np.isin(codes, often)
        codes = np.select([codes == often[0], codes == often[1]], [np.float32(0), np.float32(1)], np.float32("nan"))
        words = tuple(words[place] for place in often if place < len(words))
    findings = findings + found.finding("value", f"column `{name}` is binary and has other values", wrong)
    return _Column(Column(name, "binary", 0, words), codes.astype(np.float32), findings)


def _coded(values: NDArray[Any], absent: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Different values in order, as words, and the number of each value among them; NaN where it is missing."""
    comparable = values.astype(str) if values.dtype == object else values
    different, place = np.unique(comparable[~absent], return_inverse=True)
    codes = np.full(len(values), np.nan, np.float32)
    codes[~absent] = place
    return tuple(f"{value:g}" if values.dtype != object else str(value) for value in different), codes


_KINDS: dict[str, Callable[..., _Column]] = {
    "real": _real,
    "count": _count,
    "category": _category,
    "binary": _binary,
}


def _labels(name: str, found: _Found, classes: int | None) -> tuple[NDArray[np.int64], list[Finding]]:
    """Labels as integers from 0, -1 for a row without a possible one, and what is wrong with them."""
    values, absent = found.values[name], found.absent[name]
    if values.dtype.kind == "M":
        raise DataError(f"{found.file}: `{name}` holds times; a label is a word or an integer from 0.")
    if values.dtype == object:
        numbers, unreadable = _as_numbers(values, absent)
        if classes is None and unreadable.sum() > (1 - MOSTLY) * len(values):
            codes = _coded(values, absent)[1]
            return np.where(absent, -1, codes).astype(np.int64), found.finding("label", "rows without a label", absent)
        values = numbers
    with np.errstate(invalid="ignore"):
        wrong = ~absent & ((values < 0) | (values != np.rint(values)) | (classes is not None and values >= classes))
    wrong |= ~absent & ~np.isfinite(values)
    expected = "the integers from 0" + (f" to {classes - 1}" if classes else "")
    return np.where(wrong | absent, -1, np.nan_to_num(values, posinf=-1, neginf=-1)).astype(np.int64), [
        *found.finding("label", "rows without a label", absent),
        *found.finding("label", f"labels that are impossible (possible: {expected})", wrong),
    ]

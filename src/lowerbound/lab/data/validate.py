"""Data validation before training: what is wrong with the rows, found a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.lab.data.findings import Finding
from lowerbound.lab.data.rows import Dataset, Rows
from lowerbound.lab.data.splits import NAMES

Check = Literal["strict", "permissive", "off"]

BLOCK_VALUES = 2**22  # values looked at together
UNIT_INTERVAL = ("bernoulli", "continuous-bernoulli", "beta")  # likelihoods of numbers from 0 to 1
MISSING_ALLOWED = ("table",)  # likelihoods with a place for missing values
FEW = 2**30  # where fewer different rows than this are possible, equal rows are no surprise
WIDE = (1e-2, 1e2)  # standard deviations that need no remark


@dataclass(frozen=True)
class Report:
    """What validation found.

    Attributes:
        data: its kind.
        rows: how many there are, by split.
        findings: what is wrong.
    """

    data: str
    rows: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that strict mode refuses."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def left_out(self) -> dict[str, list[int]]:
        """The rows that permissive mode leaves out, by split."""
        rows: dict[str, set[int]] = {}
        for finding in self.errors:
            rows.setdefault(finding.split, set()).update(finding.rows)
        return {split: sorted(places) for split, places in rows.items() if places}

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {"data": self.data, "rows": self.rows, "findings": [asdict(finding) for finding in self.findings]}


def validate(data: Dataset, likelihood: str | None = None) -> Report:
    """Look at every row of a data set.

    Found are, besides what reading found: values that are not finite, or outside what the levels or the likelihood
    allow; constant images and columns; rows that are equal to an earlier one in the same split (duplicates) or in
    another (leaks); labels that are impossible or unknown in training. The first of equal rows is kept, and of a leak
    the one in training.

    Args:
        data: what to look at.
        likelihood: kind of the likelihood that shall describe it; None: nothing is said about the scale.
    """
    found = list(data.findings)
    hashes, moments = [], None
    for split in NAMES:
        rows, masks = data.split(split), _Masks(data, likelihood)
        for start, values in _blocks(rows):
            hashes.append(_hash(values))
            masks.look(start, values)
            if split == "train":
                moments = _Moments.of(values) if moments is None else moments.plus(values)
        found += masks.findings(rows, split)
        found += _label_findings(data, rows, split)
    if moments is not None:
        found += _column_findings(data, moments, likelihood)
    found += _equal_rows(data, np.concatenate(hashes))
    return Report(data.name, {name: len(data.split(name)) for name in NAMES}, tuple(found))


def enforce(data: Dataset, report: Report, check: Check) -> Dataset:
    """The data to train on.

    Args:
        data: what was validated.
        report: what was found.
        check: "strict" refuses errors, "permissive" leaves out their rows.

    Raises:
        DataError: there are errors and the check is strict; or too little would be left; or the data as a whole are
            on a wrong scale.
    """
    if not report.errors or check == "off":
        return data
    if check == "strict":
        said = "; ".join(finding.sentence() for finding in report.errors)
        raise DataError(f"the data are not as they should be: {said}; mend them, or use --check permissive.")
    for finding in report.errors:
        if finding.check == "scale" and not finding.names:
            raise DataError(f"{finding.sentence()}; scale the data, or choose another likelihood.")
    for split, places in report.left_out().items():
        if 2 * len(places) > report.rows[split]:
            raise DataError(
                f"{len(places):,} of {report.rows[split]:,} rows of {split} have something wrong with them "
                f"({report.errors[0].sentence()}), too many to leave out; mend the data."
            )
    return data.without(report.left_out())


def likelihood_of(model: Mapping[str, Any]) -> str | None:
    """The kind of the likelihood in a recipe's `model` table, where there is one."""
    table = model.get("likelihood")
    return table.get("kind") if isinstance(table, Mapping) else None


# ------------------------------------------------------------------------------------------------------- rows


def _blocks(rows: Rows) -> Iterator[tuple[int, NDArray[Any]]]:
    """All rows in order, (B, *event) at a time, each block with the number of its first row."""
    if not len(rows):
        return
    size = max(1, rows.take(torch.zeros(1, dtype=torch.long)).raw[0].numel())
    step = max(1, BLOCK_VALUES // size)
    for start in range(0, len(rows), step):
        yield start, rows.take(torch.arange(start, min(start + step, len(rows)))).raw.numpy()


class _Masks:
    """Rows of one split that are wrong by themselves."""

    def __init__(self, data: Dataset, likelihood: str | None) -> None:
        self.spec, self.likelihood = data.spec, likelihood
        self.low, self.high = _limits(data, likelihood)
        self.wrong: dict[tuple[str, str], list[int]] = {}
        self.range, self.known = (
            [np.inf, -np.inf],
            {(finding.split, row) for finding in data.findings for row in finding.rows},
        )

    def look(self, start: int, values: NDArray[Any]) -> None:
        """Take note of a block that starts at row `start`."""
        flat = values.reshape(len(values), -1)
        if flat.dtype.kind == "f":
            finite = np.isfinite(flat)
            if self.spec.columns:
                if self.likelihood is not None and self.likelihood not in MISSING_ALLOWED:
                    what = f"rows with missing values, for which a likelihood {self.likelihood!r} has no place"
                    self._note(("not-finite", what), start, np.isnan(flat).any(axis=1))
            else:
                self._note(("not-finite", "rows with values that are not finite"), start, ~finite.all(axis=1))
            with np.errstate(invalid="ignore"):
                outside = finite & ((flat < self.low) | (flat > self.high))
        else:
            outside = (flat < self.low) | (flat > self.high)
        if len(self.spec.event) >= 3:
            self._note(("constant", "images of one colour"), start, (flat == flat[:, :1]).all(axis=1))
        if outside.any():
            odd = flat[outside]
            self.range = [min(self.range[0], odd.min()), max(self.range[1], odd.max())]
            self._note(("scale", ""), start, outside.any(axis=1))

    def _note(self, about: tuple[str, str], start: int, mask: NDArray[np.bool_]) -> None:
        if mask.any():
            self.wrong.setdefault(about, []).extend((start + np.flatnonzero(mask)).tolist())

    def findings(self, rows: Rows, split: str) -> Iterator[Finding]:
        """What was noted, without what reading had found already."""
        for (check, what), noted in self.wrong.items():
            places = [place for place in noted if (split, place) not in self.known]
            if check == "scale":
                what = self._scale()
                if 2 * len(places) > len(rows):
                    yield Finding(check, f"{what}: {len(places):,} of {len(rows):,} rows of {split}", split=split)
                    continue
            if places:
                yield Finding(check, what, tuple(map(rows.name, places)), tuple(places), split)

    def _scale(self) -> str:
        if self.spec.levels is not None:
            needed = f"{self.spec.levels} levels allow 0 to {self.spec.levels - 1}"
        else:
            needed = f"a likelihood {self.likelihood!r} needs numbers from 0 to 1"
        return f"values such as {self.range[0]:.4g} and {self.range[1]:.4g} where {needed}"


def _limits(data: Dataset, likelihood: str | None) -> tuple[float, float]:
    if data.spec.levels is not None:
        return 0.0, data.spec.levels - 1.0
    return (0.0, 1.0) if likelihood in UNIT_INTERVAL else (-np.inf, np.inf)


def _label_findings(data: Dataset, rows: Rows, split: str) -> Iterator[Finding]:
    labels, known = rows.labels, data.train.labels
    if labels is None or known is None or labels.ndim != 1 or labels.dtype.is_floating_point:
        return
    reported = {row for found in data.findings if found.check == "label" and found.split == split for row in found.rows}
    impossible = labels < 0
    unseen = ~torch.isin(labels, known) & ~impossible
    for what, mask in (("labels below 0", impossible), ("labels that no training row has", unseen)):
        places = [place for place in mask.nonzero()[:, 0].tolist() if place not in reported]
        if places:
            names = tuple(f"{rows.name(place)} ({int(labels[place])})" for place in places)
            yield Finding("label", what, names, tuple(places), split)
    classes = len(known.unique())
    if split == "train" and classes > max(20, len(known) // 2):
        what = f"{classes:,} different labels in {len(known):,} training rows: numbers of rows, rather than classes?"
        yield Finding("label", what, split=split, severity="note")


# ---------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class _Moments:
    """Count, sum, sum of squares, least and largest value of each column (D,), missing ones left out."""

    count: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    least: NDArray[np.float64]
    largest: NDArray[np.float64]

    @staticmethod
    def of(values: NDArray[Any]) -> _Moments:
        flat = values.reshape(len(values), -1).astype(np.float64)
        there = np.isfinite(flat)
        zero = np.where(there, flat, 0.0)
        least = np.where(there, flat, np.inf).min(axis=0)
        largest = np.where(there, flat, -np.inf).max(axis=0)
        return _Moments(there.sum(axis=0), zero.sum(axis=0), (zero**2).sum(axis=0), least, largest)

    def plus(self, values: NDArray[Any]) -> _Moments:
        other = _Moments.of(values)
        return _Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            np.minimum(self.least, other.least),
            np.maximum(self.largest, other.largest),
        )

    def deviation(self) -> float:
        """The standard deviation within columns, all of them together."""
        count = np.maximum(self.count, 1)
        return float(np.sqrt(np.maximum(self.squares / count - (self.total / count) ** 2, 0).mean()))


def _column_findings(data: Dataset, moments: _Moments, likelihood: str | None) -> Iterator[Finding]:
    spec = data.spec
    vector = len(spec.event) == 1 and spec.levels is None
    if vector and len(data.train) > 1:
        constant = np.flatnonzero((moments.least >= moments.largest) | (moments.count == 0)).tolist()
        names = tuple(spec.columns[place].name if spec.columns else f"column {place + 1}" for place in constant)
        if names:
            severity: Literal["error", "note"] = "error" if spec.columns else "note"
            yield Finding("constant", "columns with one value in all training rows", names, severity=severity)
    deviation = moments.deviation()
    normal = likelihood is not None and likelihood.startswith(("gaussian", "laplace", "student"))
    if spec.levels is None and normal and not WIDE[0] <= deviation <= WIDE[1]:
        what = f"a standard deviation of {deviation:.3g}; a likelihood {likelihood!r} learns best near 1: standardise?"
        yield Finding("scale", what, severity="note")


# -------------------------------------------------------------------------------------------------- equal rows


def _hash(values: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits of each row: each word is mixed by itself and with its place, and the words are added up."""
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)  # -0 becomes 0
    flat = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    padded = np.zeros((len(flat), -(-flat.shape[1] // 8) * 8), np.uint8)
    padded[:, : flat.shape[1]] = flat
    words = padded.view(np.uint64)
    keys = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    words = (words ^ keys) * np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(32)
    words *= np.uint64(0xD6E8FEB86659FD93)
    words ^= words >> np.uint64(29)
    return (words * keys).sum(axis=1, dtype=np.uint64)


def _equal_rows(data: Dataset, hashes: NDArray[np.uint64]) -> list[Finding]:
    """Duplicates within a split and leaks between splits, each with the name of the row that it is equal to."""
    order = np.argsort(hashes, kind="stable")
    new = np.r_[True, hashes[order][1:] != hashes[order][:-1]]
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    later, earlier = order[~new], first[~new]
    by_row = np.argsort(later, kind="stable")
    later, earlier = later[by_row], earlier[by_row]
    same = _are_equal(data, later, earlier)
    return [*_pairs(data, later[same], earlier[same])]


def _are_equal(data: Dataset, some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether rows whose hashes are equal are equal."""
    step = max(1, BLOCK_VALUES // max(data.spec.size, 1))
    equal = [np.zeros(0, bool)]
    for start in range(0, len(some), step):
        left, right = (_gather(data, rows[start : start + step]) for rows in (some, others))
        left, right = left.reshape(len(left), -1), right.reshape(len(right), -1)
        both_missing = (left != left) & (right != right)
        equal.append(((left == right) | both_missing).all(axis=1))
    return np.concatenate(equal)


def _place(data: Dataset, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The split of each row, as a number, and its place in it; rows are counted through all splits."""
    starts = np.cumsum([0, *(len(data.split(name)) for name in NAMES)])
    split = np.searchsorted(starts, rows, side="right") - 1
    return split, rows - starts[split]


def _gather(data: Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    split, place = _place(data, rows)
    result: NDArray[Any] | None = None
    for number, name in enumerate(NAMES):
        here = split == number
        if here.any():
            found = data.split(name).take(torch.from_numpy(place[here])).raw.numpy()
            if result is None:
                result = np.empty((len(rows), *found.shape[1:]), found.dtype)
            result[here] = found
    assert result is not None
    return result


def _pairs(data: Dataset, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> Iterator[Finding]:
    """The findings about equal rows; for data of which few different rows are possible, they are notes."""
    severity: Literal["error", "note"] = "note" if _equal_is_usual(data) else "error"
    own, place = _place(data, later)
    other, other_place = _place(data, earlier)
    for number, name in enumerate(NAMES):
        for before, what in ((number, "duplicate"), *((b, "leak") for b in range(number))):
            here = (own == number) & (other == before)
            if not here.any():
                continue
            first = data.split(NAMES[before])
            rows = place[here].tolist()
            words = "equal to an earlier row of" if what == "duplicate" else "equal to a row of"
            names = tuple(
                f"{data.split(name).name(row)} (= {first.name(twin)})"
                for row, twin in zip(rows, other_place[here].tolist(), strict=True)
            )
            yield Finding(what, f"rows of {name} {words} {NAMES[before]}", names, tuple(rows), name, severity)
            yield from _contradictions(data, name, rows, first, other_place[here].tolist())


def _contradictions(data: Dataset, split: str, rows: list[int], others: Rows, twins: list[int]) -> Iterator[Finding]:
    """Equal rows with different labels."""
    own, labels = data.split(split), data.split(split).labels
    if labels is None or others.labels is None or labels.ndim != 1:
        return
    wrong = [(row, twin) for row, twin in zip(rows, twins, strict=True) if labels[row] != others.labels[twin]]
    if wrong:
        names = tuple(
            f"{own.name(row)} ({int(labels[row])}) and {others.name(twin)} ({int(others.labels[twin])})"
            for row, twin in wrong
        )
        yield Finding("label", "equal rows with different labels", names, tuple(row for row, _ in wrong), split)


def _equal_is_usual(data: Dataset) -> bool:
    spec = data.spec
    if spec.vocabulary:
        return True
    if spec.columns:
        return all(column.kind != "real" for column in spec.columns)
    return spec.levels is not None and spec.size * np.log2(spec.levels) < np.log2(FEW)

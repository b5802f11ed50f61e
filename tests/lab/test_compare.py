"""Judgements side by side: what is compared, what is refused, and how sure a difference is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lowerbound.errors import DataError, UsageError
from lowerbound.lab.compare import compare

PROTOCOL: dict[str, Any] = {
    "data": {"kind": "digits"},
    "split": "test",
    "examples": 300,
    "preparation": "binary",
    "samples": 500,
    "generated": {"rows": 300, "observe": "point"},
    "extractors": {"raw": "raw"},
}


def result(value: float | list[float], stderr: float | None = None) -> dict[str, Any]:
    return {"value": value, "kind": "estimate", "n": 300, "stderr": stderr}


def write(path: Path, results: dict[str, Any], **changed: Any) -> Path:
    path.write_text(json.dumps({"protocol": {**PROTOCOL, **changed}, "results": results, "curves": {}, "refused": {}}))
    return path


def test_a_difference_is_in_standard_errors_of_the_difference(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", {"nll_nats": result(90.0, 0.3), "units": result(16.0), "rates": result([1, 2])})
    other = write(tmp_path / "other.json", {"nll_nats": result(91.0, 0.4), "elbo_nats": result(-92.0, 0.4)})
    found = compare([one, other])
    assert found.names == ["one.json", "other.json"]
    lines = {line.name: line for line in found.lines}
    assert lines["nll_nats"].differences == [None, pytest.approx(2.0)]
    assert lines["nll_nats"].better == "smaller"
    assert lines["units"].differences == [None, None]
    assert lines["elbo_nats"].values == [None, -92.0]
    assert "rates" not in lines


def test_numbers_of_other_extractors_are_not_compared(tmp_path: Path) -> None:
    results = {"frechet_distance_own": result(2.0, 0.1), "nll_nats": result(90.0, 0.3)}
    one = write(tmp_path / "one.json", results, extractors={"own": "aa"})
    other = write(tmp_path / "other.json", results, extractors={"own": "bb"})
    lines = {line.name: line for line in compare([one, other]).lines}
    assert "hashes differ" in lines["frechet_distance_own"].refused
    assert lines["frechet_distance_own"].differences == [None, None]
    assert lines["nll_nats"].differences == [None, 0.0]


def test_the_extractor_is_the_one_with_the_longest_fitting_name(tmp_path: Path) -> None:
    results = {"recall_my_own": result(0.5, 0.1)}
    one = write(tmp_path / "one.json", results, extractors={"own": "aa", "my_own": "cc"})
    other = write(tmp_path / "other.json", results, extractors={"own": "bb", "my_own": "cc"})
    assert not compare([one, other]).lines[0].refused


@pytest.mark.parametrize(
    ("name", "changed"),
    [("nll_nats", {"samples": 100}), ("recall_raw", {"generated": {"rows": 100, "observe": "point"}})],
)
def test_numbers_of_another_protocol_are_not_compared(tmp_path: Path, name: str, changed: dict[str, Any]) -> None:
    one = write(tmp_path / "one.json", {name: result(1.0, 0.1)})
    other = write(tmp_path / "other.json", {name: result(1.0, 0.1)}, **changed)
    assert compare([one, other]).lines[0].refused


def test_judgements_of_other_rows_are_refused(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.json", {}), write(tmp_path / "other.json", {}, examples=200)
    with pytest.raises(UsageError, match="`examples`"):
        compare([one, other])
    with pytest.raises(UsageError, match="two runs"):
        compare([one])
    (tmp_path / "torn.json").write_text("{}")
    with pytest.raises(DataError, match=r"torn\.json"):
        compare([one, tmp_path / "torn.json"])
    with pytest.raises(DataError, match=r"words\.json"):
        compare([one, write(tmp_path / "words.json", {"nll_nats": {**result(0.0), "value": "ninety"}})])
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="has not been judged"):
        compare([one, tmp_path / "run"])

"""The pages of reproduced papers say what their records say, and kept weights are still worth what was recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import lowerbound
from lowerbound.app.report.reproduced import index_page, paper_page

FOLDER = Path(__file__).parents[2] / "docs" / "reproduction"
RECORDS = lowerbound.read_reproductions(FOLDER)
KEPT = sorted(path.parent for path in (FOLDER / "weights").glob("*/run.json"))
LARGEST = 4_100_000  # bytes: 4 MB of weights, and what is around them


def test_pages_are_those_of_the_records() -> None:
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == index_page(RECORDS)
    for record in RECORDS:
        assert (FOLDER / f"{record['name']}.md").read_text(encoding="utf-8") == paper_page(record)


def test_every_shipped_paper_has_a_page_about_its_figures() -> None:
    written = {record["name"]: record for record in RECORDS}
    assert written.keys() == lowerbound.shipped_papers().keys()
    for name, record in written.items():
        paper = lowerbound.read_paper(name)[1]
        assert [figure["what"] for figure in record["figures"]] == [figure.what for figure in paper.figures]
        assert [figure["aim"] for figure in record["figures"]] == [figure.aim for figure in paper.figures]
        assert {run["run"] for run in record["runs"]} == set(paper.runs)


def test_there_are_weights_and_they_are_small() -> None:
    assert KEPT
    for folder in KEPT:
        assert (folder / "weights.safetensors").stat().st_size < LARGEST, folder


@pytest.mark.real
@pytest.mark.skipif("LOWERBOUND_DATA" not in os.environ, reason="LOWERBOUND_DATA names no folder")
@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_kept_weights_are_worth_what_was_recorded(folder: Path) -> None:
    """Judged again with draws of another seed, so that the bound is measured and not remembered."""
    recorded = json.loads((folder / "evaluation.json").read_text())
    settings = lowerbound.Evaluation(**{**recorded["protocol"]["settings"], "seed": 1})
    assert settings.examples == settings.samples == 200
    again = lowerbound.evaluate(folder, settings, write=False)
    before, after = recorded["results"]["nll_nats"], again.results["nll_nats"]
    assert abs(after.value - before["value"]) < before["stderr"]  # type: ignore[operator]
    assert after.n == before["n"] == 200

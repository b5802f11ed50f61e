"""`lowerbound compare`"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness import SMALL, Cli


def test_two_runs_are_compared_in_a_table_and_on_a_page(cli: Cli, digits: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(digits, one)
    assert cli("train", "digits", *SMALL, "--set", "seed=1", "--out", other).code == 0
    for run in (one, other):
        assert cli("evaluate", run, "--samples", 2, "--examples", 60).code == 0
    page = tmp_path / "page.html"
    ended = cli("compare", one, other, "--out", page)
    assert ended.code == 0
    assert "elbo_nats" in ended.out
    assert "s.e." in ended.out
    text = page.read_text()
    assert text.count("data:image/png;base64") >= 2
    assert "http" not in text
    found = json.loads(cli("compare", one, other, "--json").out)
    assert found["names"] == ["one", "other"]


def test_what_cannot_be_compared_is_refused(cli: Cli, digits: Path, gmm2d: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    shutil.copytree(digits, one)
    assert cli("evaluate", one, "--samples", 2, "--examples", 60).code == 0
    cli("compare", one).refused(2, "two runs")
    cli("compare", one, tmp_path / "absent").refused(2, "absent")
    cli("compare", one, gmm2d).refused(2, "has not been judged")
    cli("compare", one, gmm2d, "--out", tmp_path / "page.txt").refused(2, ".html")

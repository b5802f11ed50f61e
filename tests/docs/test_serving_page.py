"""docs/serving.md names every problem, verb and setting that the server knows."""

from __future__ import annotations

from pathlib import Path

from lowerbound.service.serving.problems import PROBLEMS
from lowerbound.service.serving.reading import TYPES
from lowerbound.service.serving.settings import SETTINGS, VERBS

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_page_names_what_the_server_knows() -> None:
    unsaid = {"client-gone"}  # nobody is there to read it
    assert not [name for name in {*PROBLEMS, *VERBS, *SETTINGS, *TYPES} - unsaid if f"`{name}`" not in PAGE]


def test_problems_stand_beside_their_status() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| 4") or line.startswith("| 5")]
    for code, (status, _) in PROBLEMS.items():
        if status != 499:
            assert any(f"`{code}`" in row and str(status) in row.split("|")[1] for row in rows), code

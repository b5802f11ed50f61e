"""The commands and the example of docs/registry.md run as printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import Reader, blocks, commands, page

PAGE = page("docs/registry.md")


@pytest.mark.slow
def test_the_page_runs_as_printed(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for line in commands(PAGE):
            reader.type(line)
        for code in blocks(PAGE, "python"):
            reader.python(code)

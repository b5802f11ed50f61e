"""A registry and telemetry to show, and a browser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import made_board
import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DAYS, ROWS = 2.0, 24_000


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder with `registry` and `telemetry` of the model `digits`, and when that was; not to be changed."""
    folder, now = tmp_path_factory.mktemp("shown"), time.time()
    registry = made_board.registry(folder)
    stable, store = registry.resolve("digits"), folder / "telemetry"
    made_board.write_facts(store, made_board.facts(stable, now, DAYS, ROWS))
    made_board.write_verdict(store, registry, now)
    made_board.write_looks(store, now)
    made_board.write_incidents(store, now)
    return folder, now


@pytest.fixture
def place(shown: tuple[Path, float], tmp_path: Path) -> Path:
    """The same folder of one's own, to be changed at will."""
    return made_board.copied(shown[0], tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window; no longer than its tests, for its event loop runs in this thread."""
    if CHROMIUM is None:
        pytest.skip("Debian's package `chromium` is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()

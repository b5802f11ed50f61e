"""A small model of the digits that is registered as stable, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests_of_digits as digits


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry and no requests; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    digits.stable(folder)
    return folder

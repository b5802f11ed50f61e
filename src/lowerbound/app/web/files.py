"""The files of the pages: ours, and the library of charts from its own package."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2

CHARTS = "plotly.min.js"
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@lru_cache(maxsize=1)
def names() -> frozenset[str]:
    """Files that pages refer to."""
    folder = resources.files("lowerbound.app.web") / "static"
    own = {path.name for path in folder.iterdir() if _suffix(path.name) in KINDS}
    return frozenset(own if charts() is None else own | {CHARTS})


def static(name: str) -> tuple[bytes, str]:
    """The content and type of one of these files."""
    if name == CHARTS:
        return charts() or b"", KINDS[".js"]
    return (resources.files("lowerbound.app.web") / "static" / name).read_bytes(), KINDS[_suffix(name)]


@lru_cache(maxsize=1)
def charts() -> bytes | None:
    """The library of charts; None if it is not installed."""
    found = find_spec("plotly")  # to import it would take a second
    folders = [] if found is None else found.submodule_search_locations or []
    paths = [Path(folder) / "package_data" / CHARTS for folder in folders]
    return next((path.read_bytes() for path in paths if path.is_file()), None)


@lru_cache(maxsize=1)
def stamp() -> str:
    """A hash of all files, so that browsers can keep what they have for ever."""
    folder = resources.files("lowerbound.app.web") / "static"
    found = hashlib.sha256(charts() or b"")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def page(name: str, **values: Any) -> str:
    """A page of the package's templates, everything escaped."""
    folder = resources.files("lowerbound.app.web") / "static"
    loader = jinja2.FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name).render(**values, stamp=stamp(), has_charts=charts() is not None)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]

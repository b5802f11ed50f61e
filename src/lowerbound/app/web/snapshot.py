"""The dashboard as one file, with its data inside, that asks nobody for anything."""

from __future__ import annotations

import time
from pathlib import Path

from lowerbound.app.web import files
from lowerbound.app.web.board import Sources, board
from lowerbound.app.web.plain import text
from lowerbound.files import write_text
from lowerbound.service.registry.registry import Registry


def write_snapshot(
    folder: Path | str | None, registry: Registry, out: Path | str, *, name: str | None = None, hours: int = 24
) -> Path:
    """Write the dashboard of a model as it is now; it has no buttons that act.

    Args:
        folder: of the telemetry; None where none is kept.
        registry: of the versions.
        out: file to write, .html.
        name: of the model; by default the first of the registry.
        hours: until now: 1, 6, 24 or 168.

    Returns:
        Where it was written.

    Raises:
        RegistryError: there is no such model.
        UsageError: other hours.
        NotSavedError: it cannot be written.
    """
    path = Path(out)
    model = name or next(iter(registry.names()), "")
    found = board(Sources(registry, None if folder is None else Path(folder)), model, hours, time.time())
    library = files.charts()
    page = files.page(
        "dashboard.html",
        title=f"{model} – lowerbound",
        inline=True,
        data=_inside(text({**found, "models": [model], "operates": False})),
        style=_static("style.css"),
        charts=_static("charts.js"),
        script=_static("dashboard.js"),
        plotly="" if library is None else library.decode(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def _inside(json: str) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.replace("<", "\\u003c")


def _static(name: str) -> str:
    return files.static(name)[0].decode()

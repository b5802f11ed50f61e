"""`lowerbound report`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Json, print_json, say


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    json_: Json = False,
) -> None:
    """Draw a run's figures and write its report.html."""
    path = lowerbound.write_report(run, data_dir=data_dir)
    if json_:
        print_json({"report": str(path)})
    else:
        say(f"wrote {path}")

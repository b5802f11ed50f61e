"""`lowerbound stack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Json, print_json, say


def stack(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run on the codes of another run.")],
    out: Annotated[Path, typer.Option(help="Folder to make: a run of both stages.")],
    json_: Json = False,
) -> None:
    """Put a second stage on the run whose codes it models, as one run."""
    made = lowerbound.stack_runs(run, out)
    if json_:
        print_json({"out": str(made.path)})
    else:
        say(f"wrote {made.path}: both stages; next: lowerbound sample {made.path} --out samples.png")

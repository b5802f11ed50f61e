"""`lowerbound data`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Json, Set, print_json, say


def data(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe (see `recipes`), or a TOML file.")],
    set_: Set = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    json_: Json = False,
) -> None:
    """Validate the data of a recipe; ends with 1 if something is wrong that `train --check strict` would refuse."""
    from lowerbound.lab.data.load import read_data
    from lowerbound.lab.data.validate import likelihood_of

    chosen = lowerbound.read_recipe(recipe, set_ or [])
    found = read_data(chosen.data, data_dir)
    report = lowerbound.validate(found, likelihood_of(chosen.model))
    if json_:
        print_json({**report.json(), "sound": not report.errors})
    else:
        counts = ", ".join(f"{count:,} of {split}" for split, count in report.rows.items())
        say(f"{report.data}: {counts}, of shape {list(found.spec.event)}")
        for finding in report.findings:
            say(f"{finding.severity}: {finding.check}: {finding.sentence()}")
        say(f"{len(report.errors)} findings that count" if report.errors else "sound")
    if report.errors:
        raise typer.Exit(1)

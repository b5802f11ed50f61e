"""`lowerbound compare`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.errors import UsageError


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of judged runs, or files of `evaluate --out`; the first is the base.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write a page too, .html.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    json_: Json = False,
) -> None:
    """Put the numbers of several judged runs side by side, with differences in standard errors."""
    if out is not None and out.suffix.lower() != ".html":
        raise UsageError(f"--out {out} was given; the page is written as .html.")
    found = lowerbound.compare(runs)
    if out is not None:
        lowerbound.write_compared(out, runs, found, data_dir)
    if json_:
        print_json(asdict(found))
        return
    lines = [["number", *found.names, "better is"]]
    for line in found.lines:
        note = f"not comparable: {line.refused}" if line.refused else line.better
        lines.append([line.name, *(line.cell(place) for place in range(len(line.values))), note])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    if out is not None:
        say(f"wrote {out}")

"""`lowerbound traverse`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.reconstruct import DataDir, Input
from lowerbound.app.cli.sample import Label, Steps, tell
from lowerbound.errors import UsageError


def traverse(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Steps,
    units: Annotated[str | None, typer.Option(help="Which units, as 0,3,5; default: all.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Values of each unit.")] = 11,
    reach: Annotated[float, typer.Option(help="Outermost values, in standard deviations of the prior.")] = 3.0,
    input_: Input = None,
    label: Label = None,
    group: Annotated[str | None, typer.Option(help="Group of latents; default: the first continuous one.")] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Move one unit at a time through the prior, from the prior's mean or from the codes of --input."""
    model, chosen = lowerbound.load(run, device=device), _numbers(units)
    if input_ is None:
        raw, context = None, lowerbound.label_context(model, label, 1)
    else:
        batch = lowerbound.load_rows(lowerbound.Run(run), input_, data_dir=data_dir, label=label)
        raw, context = batch.raw, batch.context
    rows = lowerbound.traverse(model, raw, chosen, steps, reach, context, group).flatten(0, 1)
    lowerbound.write_steps(out, rows, model.data)
    tell(out, list(rows.shape), json_)


def _numbers(units: str | None) -> list[int] | None:
    try:
        return None if units is None else [int(unit) for unit in units.split(",")]
    except ValueError:
        raise UsageError(f"--units {units} was given; write numbers with commas between them: 0,3,5.") from None

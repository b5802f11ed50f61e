"""`lowerbound interpolate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.reconstruct import DataDir, Input, Split
from lowerbound.app.cli.sample import Label, Steps, tell
from lowerbound.errors import UsageError


def interpolate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Steps,
    input_: Input = None,
    split: Split = "test",
    pairs: Annotated[int, typer.Option(min=1, help="At most so many pairs of the run's own data.")] = 8,
    steps: Annotated[int, typer.Option(min=2, help="Rows on each way, both ends included.")] = 11,
    method: Annotated[Literal["linear", "spherical"], typer.Option(help="Straight, or on a great circle.")] = "linear",
    label: Label = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Go from one row to the next through their codes: rows 0 to 1, rows 2 to 3, and so on."""
    model = lowerbound.load(run, device=device)
    batch = lowerbound.load_rows(lowerbound.Run(run), input_, split, 2 * pairs, data_dir, label)
    if len(batch.raw) % 2:
        raise UsageError(f"{len(batch.raw)} rows were given; an interpolation needs pairs: give an even number.")
    starts, ends = slice(0, None, 2), slice(1, None, 2)
    contexts = [None, None] if batch.context is None else [batch.context.select(part) for part in (starts, ends)]
    rows = lowerbound.interpolate(model, batch.raw[starts], batch.raw[ends], steps, method, *contexts)
    lowerbound.write_steps(out, rows, model.data)
    tell(out, list(rows.shape), json_)

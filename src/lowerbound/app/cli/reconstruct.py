"""`lowerbound reconstruct`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.sample import Label, Observe, Out, Seed, tell

Input = Annotated[Path | None, typer.Option("--input", help="Rows as .npy, or one image; default: the run's own data.")]
Split = Annotated[Literal["train", "validation", "test"], typer.Option(help="Of the run's own data.")]
Count = Annotated[int, typer.Option(min=1, help="At most so many rows of the run's own data.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")]


def reconstruct(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out,
    input_: Input = None,
    split: Split = "test",
    count: Count = 32,
    label: Label = None,
    observe: Observe = "point",
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Send rows through a run and back; a picture shows originals above reconstructions."""
    model = lowerbound.load(run, device=device)
    batch = lowerbound.load_rows(lowerbound.Run(run), input_, split, count, data_dir, label)
    rows = lowerbound.reconstruct(model, batch.raw, batch.context, observe, seed)
    lowerbound.write_pairs(out, batch.raw, rows, model.data)
    tell(out, list(rows.shape), json_)

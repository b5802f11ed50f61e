"""`lowerbound decode`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.sample import Label, Observe, Out, Seed, tell


def decode(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    input_: Annotated[Path, typer.Option("--input", help="Codes as written by `encode`: .npy or .npz.")],
    out: Out,
    label: Label = None,
    observe: Observe = "point",
    seed: Seed = 0,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Turn codes back into rows."""
    model = lowerbound.load(run, device=device)
    latents = lowerbound.read_latents(input_, model)
    count = len(next(iter(latents.values())))
    context = None if label is None else lowerbound.label_context(model, label, count)
    rows = lowerbound.decode(model, latents, context, observe, seed)
    lowerbound.write_rows(out, rows, model.data)
    tell(out, list(rows.shape), json_)

"""`lowerbound manifold`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.sample import Label, Out, tell


def manifold(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out,
    side: Annotated[int, typer.Option(min=1, max=200, help="Codes along each of the two axes.")] = 20,
    label: Label = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Draw the plane of a model with two latents: a grid of codes of equal probability, decoded."""
    model = lowerbound.load(run, device=device)
    rows = lowerbound.manifold(model, side, lowerbound.label_context(model, label, 1))
    lowerbound.write_steps(out, rows, model.data)
    tell(out, list(rows.shape), json_)

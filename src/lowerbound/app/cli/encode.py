"""`lowerbound encode`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.reconstruct import Count, DataDir, Input, Split
from lowerbound.app.cli.sample import tell


def encode(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Where to write: .npy for one group of latents, .npz for several.")],
    input_: Input = None,
    split: Split = "test",
    count: Count = 1_000_000_000,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Write the codes of rows: the posterior's point."""
    model = lowerbound.load(run).to(device)
    batch = lowerbound.load_rows(lowerbound.Run(run), input_, split, count, data_dir)
    latents = lowerbound.encode(model, batch.raw, batch.context)
    lowerbound.write_latents(out, latents)
    tell(out, list(next(iter(latents.values())).shape), json_)

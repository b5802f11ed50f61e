"""`lowerbound encode`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, print_json, say
from lowerbound.app.cli.reconstruct import Count, DataDir, Input, Split
from lowerbound.app.cli.sample import Label, tell
from lowerbound.errors import UsageError


def _writable(out: Path) -> Path:
    """Refuse an unknown format before any work is done."""
    if out.suffix.lower() not in (".npy", ".npz"):
        raise UsageError(f"--out {out} was given, but its extension decides the format; use .npy or .npz.")
    return out


Codes = Annotated[
    Path, typer.Option("--out", callback=_writable, help="Where to write: .npy for one group of latents, .npz for any.")
]


def encode(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Codes,
    input_: Input = None,
    split: Split = "test",
    count: Count = 1_000_000_000,
    label: Label = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Write the codes of rows: the posterior's point."""
    model = lowerbound.load(run, device=device)
    batch = lowerbound.load_rows(lowerbound.Run(run), input_, split, count, data_dir, label)
    latents = lowerbound.encode(model, batch.raw, batch.context)
    lowerbound.write_latents(out, latents)
    shapes = {name: list(z.shape) for name, z in latents.items()}
    if len(shapes) == 1:
        tell(out, next(iter(shapes.values())), json_)
    elif json_:
        print_json({"out": str(out), "shapes": shapes})
    else:
        say(f"wrote {out}: {', '.join(f'{name} of shape {shape}' for name, shape in shapes.items())}")

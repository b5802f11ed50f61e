"""`lowerbound fill`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, print_json, say
from lowerbound.app.cli.reconstruct import DataDir, Input, Split
from lowerbound.app.cli.sample import Label, Observe, Out, Seed, tell


def fill(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out,
    mask: Annotated[
        str | None,
        typer.Option(help="What is missing: left, right, top, bottom, or a .npy or .png (not 0); default: NaN."),
    ] = None,
    input_: Input = None,
    split: Split = "test",
    count: Annotated[int, typer.Option(min=1, help="At most so many rows of the run's own data.")] = 16,
    iterations: Annotated[int, typer.Option(min=1, help="Of the Markov chain.")] = 200,
    sampler: Annotated[
        Literal["metropolis", "gibbs"], typer.Option(help="Proposals are weighed, or all accepted.")
    ] = "metropolis",
    observe: Observe = "point",
    label: Label = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Fill in missing values given the observed ones, which stay exactly as they are."""
    model = lowerbound.load(run, device=device)
    batch = lowerbound.load_rows(lowerbound.Run(run), input_, split, count, data_dir, label, gaps=True)
    missing = lowerbound.read_mask(mask, batch.raw, model.data)
    found = lowerbound.fill(model, batch.raw, missing, iterations, sampler, batch.context, observe, seed)
    shown = lowerbound.show_gaps(batch.raw, missing, model.data)
    lowerbound.write_stack(out, {"with gaps": shown, "filled": found.rows}, model.data)
    accepted = float(found.accepted.mean())
    if json_:
        print_json({"out": str(out), "shape": list(found.rows.shape), "accepted": accepted})
    else:
        tell(out, list(found.rows.shape), False)
        count = int(missing.expand(batch.raw.shape).sum())
        say(f"{count:,} values filled; {accepted:.0%} of the proposals were accepted")

"""`lowerbound sample`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, print_json, say
from lowerbound.errors import UsageError

Observe = Annotated[Literal["point", "sample"], typer.Option(help="Write the point of p(x|z), or a sample of it.")]
Seed = Annotated[int, typer.Option(help="Row i of the answer is a function of (seed, i).")]


def _writable(out: Path) -> Path:
    """Refuse an unknown format before any work is done."""
    if out.suffix.lower() not in (".npy", ".png", ".gif"):
        raise UsageError(f"--out {out} was given, but its extension decides the format; use .npy, .png or .gif.")
    return out


Out = Annotated[
    Path, typer.Option(callback=_writable, help="Where to write; the extension decides: .npy, .png, or .gif for clips.")
]
Steps = Annotated[
    Path, typer.Option("--out", callback=_writable, help="Where to write: .npy, .png, or .gif for a film.")
]
Label = Annotated[int | None, typer.Option(min=0, help="For a model conditional on a label.")]


def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="How many rows.")] = 64,
    seed: Seed = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="Scales sigma of the latents.")] = 1.0,
    label: Annotated[int | None, typer.Option(min=0, help="For a conditional model; default: each in turn.")] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help='For a model that reads texts: what to make, as "a red circle at the left"; for one that is '
            "conditional on numbers: a file of them (.npy), of one row for all or of one each."
        ),
    ] = None,
    observe: Observe = "point",
    use: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of use: sampler.kind=ddim, steps=20, guidance=3 of a diffusion model."),
    ] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Draw rows from a run's prior."""
    model = lowerbound.load(run, device=device, use=use or ())
    if context is not None and label is not None:
        raise UsageError("--label and --context were both given; a row has one context, so give one of them.")
    if context is None:
        known = lowerbound.label_context(model, label, count)
    elif Path(context).suffix == ".npy":
        known = lowerbound.numbers_context(model, Path(context), count)
    else:
        known = lowerbound.text_context(run, context, count)
    rows = lowerbound.sample(model, count, seed, known, observe, temperature)
    lowerbound.write_rows(out, rows, model.data)
    tell(out, list(rows.shape), json_)


def tell(out: Path, shape: list[int], as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        print_json({"out": str(out), "shape": shape})
    else:
        say(f"wrote {out}: {shape[0]} {'row' if shape[0] == 1 else 'rows'} of shape {shape[1:]}")

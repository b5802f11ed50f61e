"""`lowerbound edit`"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json
from lowerbound.app.cli.reconstruct import DataDir, Input, Split
from lowerbound.app.cli.sample import Label, Steps, tell
from lowerbound.errors import UsageError

if TYPE_CHECKING:
    from lowerbound.lab.data.rows import Batch


def edit(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Steps,
    attribute: Annotated[int | None, typer.Option(min=0, help="A label of the run's own training data.")] = None,
    against: Annotated[int | None, typer.Option(min=0, help="The label it is compared with; default: all.")] = None,
    having: Annotated[Path | None, typer.Option(help="Rows with the attribute, instead of a label.")] = None,
    lacking: Annotated[Path | None, typer.Option(help="Rows without it.")] = None,
    way: Annotated[Literal["means", "logistic"], typer.Option(help="How the direction is found.")] = "means",
    strengths: Annotated[str, typer.Option(help="Steps along it; 0 is the row.")] = "0,0.25,0.5,0.75,1,1.25",
    input_: Input = None,
    split: Split = "test",
    count: Annotated[int, typer.Option(min=1, help="At most so many rows of the run's own data.")] = 8,
    label: Label = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Move rows along an attribute's direction: what rows that have it have and others lack."""
    amounts = _strengths(strengths)
    model, folder = lowerbound.load(run, device=device), lowerbound.Run(run)
    present, absent = _examples(folder, attribute, against, having, lacking, label, data_dir)
    direction = lowerbound.attribute_direction(model, present.raw, absent.raw, way, present.context, absent.context)
    batch = lowerbound.load_rows(folder, input_, split, count, data_dir, None if input_ is None else label)
    rows = lowerbound.edit(model, batch.raw, direction, amounts, batch.context)
    lowerbound.write_steps(out, rows, model.data)
    tell(out, list(rows.shape), json_)


def _examples(
    run: lowerbound.Run,
    attribute: int | None,
    against: int | None,
    having: Path | None,
    lacking: Path | None,
    label: int | None,
    data_dir: Path | None,
) -> tuple[Batch, Batch]:
    """Rows with the attribute, and rows without it."""
    if (attribute is None) == (having is None) or (having is None) != (lacking is None):
        raise UsageError(
            "an edit needs an attribute: give --attribute LABEL, or both --having FILE and --lacking FILE."
        )
    if attribute is not None:
        return lowerbound.labelled_rows(run, attribute, against, data_dir=data_dir)
    return (
        lowerbound.load_rows(run, having, data_dir=data_dir, label=label),
        lowerbound.load_rows(run, lacking, data_dir=data_dir, label=label),
    )


def _strengths(text: str) -> list[float]:
    try:
        found = [float(strength) for strength in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UsageError(f"--strengths {text} was given; write finite numbers with commas between them: -1,0,1.")
    return found

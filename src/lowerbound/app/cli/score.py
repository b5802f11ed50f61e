"""`lowerbound score`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, print_json, say
from lowerbound.app.cli.reconstruct import Count, DataDir, Input, Split
from lowerbound.app.cli.sample import Label
from lowerbound.errors import UsageError

STRANGEST = 5
SHOWN = 16  # rows on a picture of maps


def _writable(out: Path) -> Path:
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out} was given; scores are written as .csv.")
    return out


def score(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(callback=_writable, help="Where to write: .csv, one line per row.")],
    maps: Annotated[
        Path | None, typer.Option(help="Write where each row is strange: .npy (nats), or .png of the strangest images.")
    ] = None,
    input_: Input = None,
    split: Split = "test",
    count: Count = 1_000_000_000,
    samples: Annotated[int, typer.Option(min=1, help="Draws of each row's posterior.")] = 64,
    label: Label = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Write how strange rows are: scores by likelihood and by code, and a p-value."""
    if maps is not None and maps.suffix.lower() not in (".npy", ".png"):
        raise UsageError(f"--maps {maps} was given; use .npy, or .png for images.")
    model, place = lowerbound.load(run, device=device), lowerbound.Run(run)
    batch = lowerbound.load_rows(place, input_, split, count, data_dir, label)
    scores = lowerbound.score_rows(place, model, batch, samples, data_dir)
    lowerbound.write_columns(out, scores)
    order = scores["p_value"].argsort()[:STRANGEST].tolist()
    if maps is not None:
        found = lowerbound.feature_scores(model, batch.raw, batch.context, samples)
        most = scores["reconstruction"].argsort(descending=True)[:SHOWN].tolist()
        lowerbound.write_maps(maps, batch.raw, found, most, model.data)
    if json_:
        strangest = [{"row": row, "p_value": float(scores["p_value"][row])} for row in order]
        print_json({"out": str(out), "rows": len(batch.raw), "scores": list(scores), "strangest": strangest})
        return
    say(f"wrote {out}: {len(batch.raw):,} rows, {', '.join(scores)}")
    say("strangest: " + ", ".join(f"row {row} (p = {float(scores['p_value'][row]):.3g})" for row in order))

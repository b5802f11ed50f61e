"""`lowerbound export`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

import lowerbound
from lowerbound.app.cli.console import Json, print_json, say


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    format: Annotated[
        Literal["onnx", "torch", "both"], typer.Option(help="ONNX, or programs of `torch.export`.")
    ] = "onnx",
    out: Annotated[Path | None, typer.Option(help="Folder to write to (default: RUN/export).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    json_: Json = False,
) -> None:
    """Write a run's encoder and decoder for other engines, if they are proven to do what the model does."""
    proven = lowerbound.export(run, out, ("onnx", "torch") if format == "both" else (format,), data_dir)
    if json_:
        print_json({name: asdict(parity) for name, parity in proven.items()})
        return
    for name, parity in proven.items():
        worst = max(parity.outputs, key=lambda output: parity.outputs[output])
        say(
            f"{name}: proven with {parity.engine} on {sum(parity.rows.values())} rows, {parity.batches} at a time; the "
            f"largest difference is {parity.outputs[worst]:.2g} of `{worst}` (allowed: {parity.tolerance:g}), and "
            f"{parity.decisions} decisions are the same"
        )
        for file in parity.files:
            say(f"wrote {(out or run / 'export') / file}")

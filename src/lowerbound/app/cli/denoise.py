"""`lowerbound denoise`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, print_json, say
from lowerbound.app.cli.reconstruct import Count, DataDir, Input, Split
from lowerbound.app.cli.sample import Label, Out, Seed, tell

if TYPE_CHECKING:
    from torch import Tensor


def denoise(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out,
    input_: Input = None,
    split: Split = "test",
    count: Count = 32,
    noise: Annotated[float, typer.Option(min=0.0, help="Add noise of this sigma first (raw scale), to try it.")] = 0.0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the posterior to average over.")] = 32,
    label: Label = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Take noise out of rows: the mean of what the model makes of draws of their posterior."""
    model = lowerbound.load(run, device=device)
    batch = lowerbound.load_rows(lowerbound.Run(run), input_, split, count, data_dir, label)
    clean = batch.raw.float()
    noisy = lowerbound.add_noise(clean, noise, model.data, seed) if noise else clean
    rows = lowerbound.denoise(model, noisy, draws, batch.context, seed)
    sets = {"original": clean, "noisy": noisy, "denoised": rows} if noise else {"noisy": noisy, "denoised": rows}
    lowerbound.write_stack(out, sets, model.data)
    if not noise:
        tell(out, list(rows.shape), json_)
        return
    before, after = (_error(found, clean) for found in (noisy, rows))
    if json_:
        print_json({"out": str(out), "shape": list(rows.shape), "error_before": before, "error_after": after})
    else:
        tell(out, list(rows.shape), False)
        say(f"root mean squared error to the original: {before:.4g} with noise, {after:.4g} without")


def _error(rows: Tensor, clean: Tensor) -> float:
    return float((rows - clean).square().mean().sqrt())

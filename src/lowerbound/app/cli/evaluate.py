"""`lowerbound evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress

import lowerbound
from lowerbound.app.cli.console import Device, Json, console, print_json, say

if TYPE_CHECKING:
    from lowerbound.lab.judge import Judgement


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    samples: Annotated[int | None, typer.Option(min=1, help="Samples of the importance bound.")] = None,
    split: Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="Which rows.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows at a time.")] = None,
    annealing: Annotated[
        int | None, typer.Option(min=1, help="Temperatures of annealed importance sampling on rows of the model.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all draws.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Judge a run on held-out data and write its evaluation.json."""
    chosen = {"samples": samples, "split": split, "examples": examples, "batch_size": batch_size}
    chosen |= {"annealing": annealing, "seed": seed}
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = lowerbound.Run(run).recipe().evaluation.model_copy(update=given)
    with Progress(console=console, transient=True, disable=json_ or not console.is_terminal) as bar:
        task = bar.add_task("evaluating", total=None)
        judgement = lowerbound.evaluate(
            run,
            settings,
            data_dir=data_dir,
            device=device,
            watch=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_:
        print_json(judgement.json())
    else:
        describe(judgement)


def describe(judgement: Judgement) -> None:
    """Print the results as a table."""
    protocol = judgement.protocol
    say(
        f"{protocol['examples']:,} rows of {protocol['split']}, "
        f"{protocol['samples']} samples, {protocol['preparation']}"
    )
    width = max(map(len, judgement.results))
    for name, result in judgement.results.items():
        numbers = result.value if isinstance(result.value, list) else [result.value]
        shown = " ".join(f"{number:.4g}" for number in numbers[:12]) + (" ..." if len(numbers) > 12 else "")
        error = f" +- {result.stderr:.2g}" if result.stderr is not None else ""
        say(f"{name:{width}}  {shown}{error}  ({result.kind.replace('_', ' ')})")
    for name, reason in judgement.refused.items():
        say(f"{name:{width}}  refused: {reason}")

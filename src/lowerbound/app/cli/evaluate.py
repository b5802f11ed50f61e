"""`lowerbound evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress

import lowerbound
from lowerbound.app.cli.console import Device, Json, console, print_json, say
from lowerbound.errors import UsageError
from lowerbound.files import write_json

if TYPE_CHECKING:
    from lowerbound.lab.judge import Judgement


Size = Annotated[str | None, typer.Option(help="With --data: HEIGHT,WIDTH of the pictures.")]
Scale = Annotated[
    Literal["raw", "unit", "symmetric"], typer.Option(help="Values that a pair in ONNX takes: 0-255, 0-1, -1-1.")
]


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            help="Folder of a finished run; with --data also of an autoencoder of diffusers, of a pair in ONNX, or of "
            "pictures."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of pictures to judge on, instead of the run's own data.")
    ] = None,
    size: Size = None,
    scale: Scale = "raw",
    samples: Annotated[int | None, typer.Option(min=1, help="Samples of the importance bound.")] = None,
    split: Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="Which rows.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows at a time.")] = None,
    annealing: Annotated[
        int | None, typer.Option(min=1, help="Temperatures of annealed importance sampling on rows of the model.")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(help="What samples are compared by: raw, own, a network's file or a run; repeat for several."),
    ] = None,
    perceptual: Annotated[
        str | None, typer.Option(help="Weights of the perceptual distance LPIPS, .safetensors.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of all draws.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --data: where to write the result, .json.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Judge a run on held-out data and write its evaluation.json; or anything that makes pictures, with --data."""
    chosen: dict[str, object] = {"samples": samples, "split": split, "examples": examples, "batch_size": batch_size}
    chosen |= {"annealing": annealing, "features": features or None, "perceptual": perceptual, "seed": seed}
    given = {name: value for name, value in chosen.items() if value is not None}
    if out is not None and out.suffix.lower() != ".json":
        raise UsageError(f"--out {out} was given; the result is written as .json.")
    run = lowerbound.Run(target) if (target / "recipe.json").exists() or data is None else None
    if data is None and (out is not None or size is not None):
        raise UsageError("--out and --size belong to --data; a run's own judgement goes to its evaluation.json.")
    own = (run.recipe().evaluation if run else lowerbound.Evaluation(batch_size=16)).model_copy(update=given)
    with Progress(console=console, transient=True, disable=json_ or not console.is_terminal) as bar:
        task = bar.add_task("evaluating", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if data is None:
            judgement = lowerbound.evaluate(target, own, data_dir=data_dir, device=device, watch=watch)
        elif run is not None:
            rows = lowerbound.pictures_of(data, run.data_spec().event)
            judgement = lowerbound.evaluate(run, own, data=rows, device=device, watch=watch, write=False)
        else:
            rows = lowerbound.pictures_of(data, shape_of(size))
            if lowerbound.holds_pictures(target):
                judgement = lowerbound.evaluate_pictures(target, rows, own)
            else:
                judgement = lowerbound.evaluate_foreign(target, rows, own, scale=scale, device=device, watch=watch)
    if out is not None:
        write_json(out, judgement.json())
    if json_:
        print_json(judgement.json())
    else:
        describe(judgement)


def shape_of(size: str | None) -> tuple[int, int, int] | None:
    """The shape of a row from --size."""
    if size is None:
        return None
    try:
        height, width = map(int, size.split(","))
    except ValueError:
        height, width = 0, 0
    if min(height, width) < 1:
        raise UsageError(f"--size {size} was given; give HEIGHT,WIDTH in pixels.")
    return 3, height, width


def describe(judgement: Judgement) -> None:
    """Print the results as a table."""
    protocol = judgement.protocol
    say(
        f"{protocol['examples']:,} rows of {protocol['split']}, "
        f"{protocol['samples']} samples, {protocol['preparation']}"
    )
    width = max(map(len, [*judgement.results, *judgement.refused]), default=0)
    for name, result in judgement.results.items():
        numbers = result.value if isinstance(result.value, list) else [result.value]
        shown = " ".join(f"{number:.4g}" for number in numbers[:12]) + (" ..." if len(numbers) > 12 else "")
        error = f" +- {result.stderr:.2g}" if result.stderr is not None else ""
        say(f"{name:{width}}  {shown}{error}  ({result.kind.replace('_', ' ')})")
    for name, reason in judgement.refused.items():
        say(f"{name:{width}}  refused: {reason}")

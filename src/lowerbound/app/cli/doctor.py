"""`lowerbound doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

import lowerbound
from lowerbound.app.cli.console import Device, Json, console, print_json, say
from lowerbound.app.cli.evaluate import Scale, Size, shape_of
from lowerbound.errors import UsageError

if TYPE_CHECKING:
    from lowerbound.lab.doctor.examine import Examination


def doctor(
    target: Annotated[
        Path,
        typer.Argument(help="Folder of a finished run; with --data also of an autoencoder of diffusers or in ONNX."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of pictures to examine on, instead of the run's own data.")
    ] = None,
    size: Size = None,
    scale: Scale = "raw",
    out: Annotated[Path | None, typer.Option(help="The page; default: doctor.html in the run.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Look for what is wrong with a model: evidence, likely causes, what to do. Ends with 1 if a symptom is found."""
    if out is not None and out.suffix.lower() != ".html":
        raise UsageError(f"--out {out} was given; the page is written as .html.")
    run = lowerbound.Run(target) if (target / "recipe.json").exists() or data is None else None
    rows = None
    if data is not None:
        rows = lowerbound.pictures_of(data, run.data_spec().event if run else shape_of(size))
    elif size is not None:
        raise UsageError("--size belongs to --data.")
    with Progress(console=console, transient=True, disable=json_ or not console.is_terminal) as bar:
        task = bar.add_task("examining", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if run is not None:
            found = lowerbound.doctor(run, data=rows, data_dir=data_dir, device=device, watch=watch)
        else:
            assert rows is not None
            found = lowerbound.doctor_foreign(target, rows, scale=scale, device=device, watch=watch)
    page = out or (target / "doctor.html" if run is not None else None)
    if page is not None:
        lowerbound.write_examination(
            page, target.resolve().name, found, rows.spec if rows is not None else lowerbound.Run(target).data_spec()
        )
    if json_:
        print_json(_plain(found))
    else:
        _describe(found, page)
    raise typer.Exit(1 if found.found else 0)


def _describe(found: Examination, page: Path | None) -> None:
    for diagnosis in found.found:
        say(f"{diagnosis.symptom.upper()}\n  {diagnosis.evidence}\n  likely causes:")
        for number, cause in enumerate(diagnosis.causes, 1):
            say(f"    {number}. {cause}")
        say("  what to do:")
        for number, step in enumerate(diagnosis.treatment, 1):
            say(f"    {number}. {step}")
    for symptom, reason in found.skipped.items():
        say(f"not looked for: {symptom} ({reason})")
    say(f"symptoms found: {len(found.found) or 'none'}; looked for and not found: {len(found.healthy)}")
    if page is not None:
        say(f"wrote {page}")


def _plain(found: Examination) -> dict[str, object]:
    return {
        "found": [
            {"symptom": one.symptom, "evidence": one.evidence, "causes": one.causes, "treatment": one.treatment}
            for one in found.found
        ],
        "healthy": found.healthy,
        "skipped": found.skipped,
    }

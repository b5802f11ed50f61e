"""`lowerbound train`"""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import lowerbound
from lowerbound.app.cli.console import Device, Json, Set, console, print_json, say
from lowerbound.errors import UsageError

if TYPE_CHECKING:
    from lowerbound.lab.recorder import Progress as Report


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe (see `recipes`), or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; absent or empty unless --resume.")] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or start it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print shapes and parameters; train nothing.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    check: Annotated[
        Literal["strict", "permissive", "off"],
        typer.Option(help="Data with something wrong: refuse them, leave such rows out, or do not look."),
    ] = "off",
    to: Annotated[list[str] | None, typer.Option(help="Write the journal for tensorboard or mlflow too.")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Train a recipe into a run folder."""
    chosen = lowerbound.read_recipe(recipe, set_ or [])
    if dry_run:
        _dry_run(chosen, data_dir, json_)
        return
    if out is None:
        raise UsageError("where the run shall live is missing: give --out DIR (or --dry-run to train nothing).")
    writers = lowerbound.Writers(to or [], out, chosen)

    def watch(report: Report) -> None:
        bar.show(report)
        writers.watch(report)

    with Stop() as stopping, Bar(quiet=json_) as bar, closing(writers):
        run = lowerbound.train(
            chosen,
            out,
            resume=resume,
            data_dir=data_dir,
            device=device,
            check=check,
            watch=watch,
            stop=stopping.asked,
        )
    if json_:
        print_json({"run": str(run.path), "finished": run.finished, "last": bar.last})
    elif run.finished:
        say(f"finished {run.path}; next: lowerbound evaluate {run.path}")
    else:
        say(f"stopped with a checkpoint in {run.path}; go on with the same command and --resume")


def _dry_run(recipe: lowerbound.Recipe, data_dir: Path | None, as_json: bool) -> None:
    data = lowerbound.load_data(recipe.data, data_dir)
    model = lowerbound.make_loop(recipe, data).model
    rows = lowerbound.summarise(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    if as_json:
        print_json({"parameters": total, "modules": [row.__dict__ for row in rows]})
        return
    say(f"{recipe.name}: {recipe.description}")
    say(f"data: {len(data.train):,} training rows of shape {list(data.spec.event)}")
    width = max(len(row.name) for row in rows)
    for row in rows:
        say(f"{row.name:{width}}  {row.kind:20}  {row.shape or '-'!s:18}  {row.parameters:>12,}")
    say(f"{'in all':{width}}  {'':20}  {'':18}  {total:>12,}")


class Stop:
    """While inside, SIGTERM and the first Ctrl-C ask for a checkpoint and a clean end; the second Ctrl-C is at once."""

    def __init__(self) -> None:
        self._asked = False

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._take_note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Bar:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.last = quiet, {}  # type: ignore[var-annotated]
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=None)
        self._said = 0.0

    def __enter__(self) -> Bar:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)

    def show(self, report: Report) -> None:
        """Show where training is."""
        self.last = {"step": report.step, **report.parts}
        bound, loss = report.parts.get("elbo_nats"), report.parts.get("loss", float("nan"))
        shown = f"loss {loss:9.3f}     " if bound is None else f"elbo {bound:9.3f} nats"
        text = f"{shown}  {report.rows_per_second:9,.0f} rows/s"
        self._bar.update(self._task, completed=report.step, total=report.steps, description=text)
        share = report.step / report.steps
        if not self.quiet and not console.is_terminal and (share >= self._said + 0.1 or share == 1):
            self._said = share
            say(f"step {report.step}/{report.steps}  {text}")

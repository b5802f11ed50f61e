"""The command `lowerbound`: its verbs, and how errors become exit codes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from lowerbound import __version__
from lowerbound.app.cli import (
    canary,
    compare,
    contest,
    data,
    decode,
    denoise,
    doctor,
    edit,
    encode,
    evaluate,
    export,
    fill,
    interpolate,
    lifecycle,
    manifold,
    monitor,
    profile,
    recipes,
    reconstruct,
    registry,
    report,
    reproduce,
    retrain,
    sample,
    score,
    serve,
    stack,
    sweep,
    train,
    traverse,
    watch,
)
from lowerbound.app.cli.console import fail, show_tracebacks
from lowerbound.errors import LowerboundError

app = typer.Typer(
    help="Train, judge, ship, watch and repair variational autoencoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "recipes": recipes.recipes,
    "train": train.train,
    "sweep": sweep.sweep,
    "data": data.data,
    "evaluate": evaluate.evaluate,
    "canary": canary.canary,
    "compare": compare.compare,
    "contest": contest.contest,
    "doctor": doctor.doctor,
    "report": report.report,
    "reproduce": reproduce.reproduce,
    "sample": sample.sample,
    "stack": stack.stack,
    "reconstruct": reconstruct.reconstruct,
    "encode": encode.encode,
    "decode": decode.decode,
    "score": score.score,
    "interpolate": interpolate.interpolate,
    "lifecycle": lifecycle.lifecycle,
    "traverse": traverse.traverse,
    "edit": edit.edit,
    "denoise": denoise.denoise,
    "fill": fill.fill,
    "manifold": manifold.manifold,
    "profile": profile.profile,
    "serve": serve.serve,
    "serve-key": serve.serve_key,
    "export": export.export,
    "retrain": retrain.retrain,
    "watch": watch.watch,
}
GROUPS: dict[str, typer.Typer] = {"registry": registry.app, "monitor": monitor.app}
for name, command in COMMANDS.items():
    app.command(name)(command)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train, judge, ship, watch and repair variational autoencoders."""
    if version:
        print(__version__)  # noqa: T201
        raise typer.Exit
    show_tracebacks(debug)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 a verdict against, 2 wrong use or bad input, 3 failed while running.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)  # noqa: T201
        try:
            app()
        except LowerboundError as error:
            fail(error, error.exit_code)
        except OSError as error:
            fail(error, *_refused(error))
        except Exception as error:
            fail(error, 3, _unforeseen(error))


def _refused(error: OSError) -> tuple[int, str]:
    """Exit code and sentence for what the system refused."""
    place = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
    reason = error.strerror or str(error)
    if isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)):
        return 2, f"{place} ({reason}); give another one."
    return 3, f"{place} ({reason}); what was saved before is unharmed: mend this, then do it again."


def _unforeseen(error: Exception) -> str:
    """The sentence for what nobody thought of; its exit code is not 1, which would be a verdict."""
    reason = next(iter(str(error).splitlines()), "")[:200]
    return (
        f"this failed in a way that was not foreseen ({type(error).__name__}: {reason}); what was saved before is "
        "unharmed: see where with `lowerbound --debug ...`, and please report it."
    )

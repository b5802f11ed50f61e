"""What commands say, and how."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print the machine-readable result and nothing else.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting of the recipe: a.b=VALUE (TOML).")]

console = Console(highlight=False, soft_wrap=True)


_tracebacks = False


def show_tracebacks(yes: bool) -> None:
    """Whether `fail` shows the traceback."""
    global _tracebacks
    _tracebacks = yes


def say(text: str) -> None:
    """Print for a person."""
    console.print(text, markup=False)


def print_json(value: Any) -> None:
    """Print for a machine."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def fail(error: BaseException, code: int, message: str | None = None) -> NoReturn:
    """Print one sentence and exit; with --debug the traceback before it."""
    if _tracebacks:
        traceback.print_exception(error)
    sys.stderr.write(f"error: {message or error}\n")
    raise SystemExit(code)

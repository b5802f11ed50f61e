"""`lowerbound lifecycle`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.errors import UsageError


def lifecycle(
    out: Annotated[Path, typer.Option(help="Empty folder for runs, registry, telemetry, pages and figures.")],
    scene: Annotated[str, typer.Argument(help="digits, or fashion-shift.")] = "digits",
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    json_: Json = False,
) -> None:
    """Play a model's life on real processes: incident, detection, retraining, canary, rollback, a silent change."""
    from lowerbound.app.lifecycle.play import Play
    from lowerbound.app.lifecycle.scenes import scene_of

    played = scene_of(scene)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; a play needs a folder of its own.")
    out.mkdir(parents=True, exist_ok=True)
    found = asdict(Play(played, out, data_dir, (lambda _: None) if json_ else say).run())
    if json_:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name.replace('_', ' '):16} {value}")
    say(f"see {out}")

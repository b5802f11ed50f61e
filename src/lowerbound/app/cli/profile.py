"""`lowerbound profile`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, Set, print_json, say

MIB = 2**20


def profile(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a TOML file.")],
    set_: Set = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Print what training would need: memory, and the range of activations against the limits of fp16."""
    ranges, memory = lowerbound.profile(lowerbound.read_recipe(recipe, set_ or []), data_dir=data_dir, device=device)
    if json_:
        held = {f"{name}_bytes": size for name, size in vars(memory).items()}
        print_json({"memory": {**held, "total_bytes": memory.total}, "ranges": [vars(row) for row in ranges]})
        return
    say("memory of one process, MiB")
    for name, size in [*vars(memory).items(), ("in all", memory.total)]:
        say(f"  {name:12} {size / MIB:10.2f}")
    width = max(len(row.name) for row in ranges)
    say(f"\n{'module':{width}}  largest output  largest gradient  in fp16")
    for row in ranges:
        slope = "" if row.gradient is None else f"{row.gradient:.3g}"
        say(f"{row.name:{width}}  {row.largest:14.4g}  {slope:>16}  {row.fp16}")

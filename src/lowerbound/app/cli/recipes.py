"""`lowerbound recipes`"""

from __future__ import annotations

from typing import Annotated

import typer

from lowerbound import recipe as recipes_module
from lowerbound.app.cli.console import Json, print_json, say


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe whole, bases merged in.")] = None,
    json_: Json = False,
) -> None:
    """List the recipes that come with the package, or show one."""
    if name is not None:
        print_json(recipes_module.read_recipe(name).dump())
        return
    found = {key: recipes_module.read_recipe(key).description for key in recipes_module.shipped()}
    if json_:
        print_json(found)
        return
    width = max(map(len, found))
    for key, description in found.items():
        say(f"{key:{width}}  {description}")

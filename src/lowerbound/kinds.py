"""Tables of kinds: from a recipe's table to a class and its checked settings.

A part's settings are the keyword-only arguments of its constructor, checked against their annotations; its
positional arguments are what the assembly supplies. So a part is added by one line in a table of kinds, and neither
the recipe's records nor the command line know it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lowerbound.errors import RecipeError
from lowerbound.recipe import explain, suggest

Kinds = Mapping[str, Callable[..., Any]]
Groups = Mapping[Any, Kinds]

T_co = TypeVar("T_co", covariant=True)


class Part(Generic[T_co]):
    """A part of an assembly that waits for its shapes: a class and the settings that a recipe gives it.

    `Part(MLP, widths=[64])(ports)` is `MLP(ports, widths=[64])`.
    """

    def __init__(self, make: Callable[..., T_co], **settings: Any) -> None:
        self.make, self.settings = make, settings

    def __call__(self, *shapes: Any) -> T_co:
        return self.make(*shapes, **self.settings)


def resolve(
    table: Any, kinds: Kinds, where: str, groups: Groups | None = None
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The maker that a table's `kind` names, and its checked settings, parts within parts included.

    Args:
        table: a recipe's table.
        kinds: what there is to choose from.
        where: the table's place in the recipe, for errors.
        groups: kinds of the parts that a setting may be: by T for an annotation `Part[T]`, else by the annotation.
            A plain value stands for the kind "constant" with that value, where there is one.

    Raises:
        RecipeError: an unknown kind or setting, or a value of the wrong type.
    """
    groups = groups or {}
    if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
        raise RecipeError(f"`{where}` must be a table with a `kind`: {', '.join(sorted(kinds))}; it is {table!r}.")
    kind = table["kind"]
    if kind not in kinds:
        raise RecipeError(f"`{where}.kind` is {kind!r}, which does not exist{suggest(kind, kinds)}")
    make = kinds[kind]
    hints = settings_of(make)
    settings = {}
    for key, value in table.items():
        if key == "kind":
            continue
        if key not in hints:
            raise RecipeError(f"{where} ({kind}) has no setting `{key}`{suggest(key, hints)}")
        settings[key] = _setting(value, hints[key], f"{where}.{key}", groups)
    signature = inspect.signature(make)
    for key in hints:
        if key not in settings and signature.parameters[key].default is inspect.Parameter.empty:
            raise RecipeError(f"{where} ({kind}) needs a setting `{key}`, and it is missing.")
    return make, settings


def settings_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Names and annotations of a maker's keyword-only arguments: the settings that a recipe may give."""
    function = make.__init__ if inspect.isclass(make) else make
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(make).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _setting(value: Any, annotation: Any, where: str, groups: Groups) -> Any:
    """One setting: a part that waits for its shapes, a part that needs none, or a plain value."""
    if get_origin(annotation) is Part:
        make, settings = resolve(value, groups[get_args(annotation)[0]], where, groups)
        return Part(make, **settings)
    if annotation in groups:
        kinds = groups[annotation]
        plain = "constant" in kinds and not isinstance(value, Mapping)
        make, settings = resolve({"kind": "constant", "value": value} if plain else value, kinds, where, groups)
        return make(**settings)
    try:
        return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        raise RecipeError(explain(error, where)) from None

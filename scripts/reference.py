"""Write docs/reference.md and the tree in README.md from the source: python scripts/reference.py"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

import lowerbound
from lowerbound.app.cli.main import app
from lowerbound.kinds import Part, settings_of
from lowerbound.lab.data.load import DATA, DATA_PARTS
from lowerbound.model.build import FAMILIES, OBJECTIVES, PARTS
from lowerbound.recipe import Evaluation, Guard, Recipe, Training, read_recipe, shipped

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lowerbound"
TREE = re.compile(r"(<!-- tree -->\n```text\n).*?(```\n<!-- end of tree -->)", re.DOTALL)
WIDE = 88  # characters; longer purposes are cut at their first clause

INTRODUCTION = """# Reference

Written from the source by `make reference`; a test holds the two equal.
"""

RECIPES = """A recipe is a TOML file. It may name a `base`: another recipe, whose settings hold where it is silent. The
tables `data`, `model` and `objective` have a `kind` and the settings of that kind.
"""

KINDS = """A setting that is itself a part, such as a prior, is a table with a `kind` of that group. A plain number
stands for a constant schedule. A schedule's default is shown by its value at step 0.
"""


# ---------------------------------------------------------------------------------------------------- the pages


def reference() -> str:
    """The content of docs/reference.md."""
    sections = {
        "Commands": "\n".join(_commands()),
        "Recipes that come with the package": _table(
            ("recipe", "what it is"), ((f"`{name}`", read_recipe(name).description) for name in shipped())
        ),
        "Settings of a recipe": RECIPES + "\n" + "\n".join(_records()),
        "Kinds": KINDS + "\n" + "\n".join(_kinds()),
        "Python": _table(("`lowerbound.`", "what it is"), _names()),
    }
    return INTRODUCTION + "".join(f"\n## {title}\n\n{text}" for title, text in sections.items())


def readme() -> str:
    """The content of README.md with a tree that is true."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = "\n".join(["src/lowerbound/", *_tree(PACKAGE, "  ")])
    return TREE.sub(lambda found: f"{found[1]}{tree}\n{found[2]}", text)


# ------------------------------------------------------------------------------------------------------ sections


def _commands() -> Iterator[str]:
    for name, command in _leaves(typer.main.get_command(app), ""):
        yield f"### `lowerbound {name}`\n\n{command.help}\n"
        rows = []
        for option in command.params:
            argument = option.param_type_name == "argument"
            label = option.name.upper() if argument else ", ".join(option.opts)
            rows.append((f"`{label}`", "required" if option.required else _plain(option.default), option.help))
        yield _table(("option", "default", "what it is"), rows)


def _leaves(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    """The commands of a group and of the groups in it, by their whole names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _records() -> Iterator[str]:
    records: dict[str, type[BaseModel]] = {
        "": Recipe,
        "training.": Training,
        "training.guard.": Guard,
        "evaluation.": Evaluation,
    }
    for prefix, record in records.items():
        told = _told(record)
        rows = []
        for name, field in record.model_fields.items():
            nested = isinstance(field.default, BaseModel)
            default = "required" if field.is_required() else "" if nested else _plain(field.default)
            rows.append((f"`{prefix}{name}`", default, told.get(name, "")))
        yield _table(("setting", "default", "what it is"), rows)


def _kinds() -> Iterator[str]:
    groups: dict[str, Mapping[str, Callable[..., Any]]] = {"data": DATA, "model": FAMILIES, "objective": OBJECTIVES}
    for key, kinds in {**PARTS, **DATA_PARTS}.items():
        groups[key.__name__.lower() if inspect.isclass(key) else "schedule"] = kinds
    for group, kinds in groups.items():
        yield f"### {group}\n"
        yield _table(
            ("kind", "what it is", "settings"),
            ((f"`{kind}`", _sentence(_documented(make)), _settings(make)) for kind, make in kinds.items()),
        )


def _names() -> Iterator[tuple[str, str]]:
    for name in lowerbound.__all__:
        yield f"`{name}`", _sentence(getattr(lowerbound, name))


def _settings(make: Callable[..., Any]) -> str:
    """Each setting with its default and what it is."""
    told, lines = _told(_documented(make)) | _told(make), []
    for name, annotation in settings_of(make).items():
        default = inspect.signature(make).parameters[name].default
        value = "required" if default is inspect.Parameter.empty else _default(default)
        meaning = "" if told.get(name, "").startswith("the parts") else told.get(name, "")
        lines.append(f"`{name}` ({value}) {': '.join(filter(None, (_choices(annotation), meaning)))}".strip())
    return "<br>".join(lines)


def _choices(annotation: Any) -> str:
    """What a setting may be, where that is a part or one of a few words."""
    if get_origin(annotation) is Part:
        return f"a {get_args(annotation)[0].__name__.lower()}"
    if inspect.isclass(annotation) and annotation in PARTS:
        return f"a {annotation.__name__.lower()}"
    return f"one of {', '.join(map(str, get_args(annotation)))}" if get_origin(annotation) is Literal else ""


def _tree(folder: Path, indent: str) -> Iterator[str]:
    """A line for each module, recipe and folder of the package, with its purpose."""
    hidden = ("__pycache__", "__init__.py")
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        inside = list(_tree(path, indent + "  ")) if path.is_dir() and path.name not in hidden else []
        if inside:
            yield _line(f"{indent}{path.name}/", _purpose(path / "__init__.py"))
            yield from inside
        elif path.suffix in (".py", ".toml") and path.name not in hidden:
            yield _line(f"{indent}{path.name}", _purpose(path))


# ------------------------------------------------------------------------------------------- reading the source


def _purpose(path: Path) -> str:
    """The first sentence of a module or a recipe; of the command in a module, where that is just a command's name."""
    if not path.exists():
        return ""
    if path.suffix == ".toml":
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return _shortened((table.get("description") or f"{table['title']} ({table['citation']})").rstrip("."))
    module = ast.parse(path.read_text(encoding="utf-8"))
    text = ast.get_docstring(module) or ""
    if text.startswith("`lowerbound "):
        name = text.strip("`").split()[1].replace("-", "_")
        functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        text = (ast.get_docstring(functions[name]) if name in functions else None) or text
    return _shortened(_first(text))


def _shortened(sentence: str) -> str:
    return re.split(r"; |: | \(", sentence)[0] if len(sentence) > WIDE else sentence


def _documented(make: Callable[..., Any]) -> Any:
    """What says what a maker makes: a family's class, else the maker."""
    return getattr(make, "__self__", make)


def _sentence(thing: Any) -> str:
    return _first(inspect.getdoc(thing) or "")


def _first(text: str) -> str:
    """The first sentence of a docstring, without its full stop."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^. ])\. (?=[A-Z`])", paragraph)[0].rstrip(".:")


def _told(thing: Any) -> dict[str, str]:
    """What a docstring says about each argument or attribute."""
    text = inspect.getdoc(thing) or ""
    found = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    told: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", found[1].rstrip()) if found else []:
        names, _, meaning = " ".join(entry.split()).partition(": ")
        told |= {name.strip(): meaning for name in names.split(",")}
    return told


def _default(value: Any) -> str:
    """A default as a recipe would write it."""
    if isinstance(value, Part):
        kind = next(
            kind for kinds in (PARTS | DATA_PARTS).values() for kind, make in kinds.items() if make is value.make
        )
        return _plain({"kind": kind, **value.settings})
    for kinds in PARTS.values():  # a part that needs no shapes is made already
        for kind, make in kinds.items():
            if type(value) is make:
                return _plain({"kind": kind})
    return _plain(value(0)) if callable(value) else _plain(value)  # a schedule is shown by its first value


def _plain(value: Any) -> str:
    if value is False:
        return "off"
    return "none" if value is None or value == {} else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return str(value).lower() if isinstance(value, bool) else str(value)


# -------------------------------------------------------------------------------------------------------- layout


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *(tuple(str(cell or "").replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(name: str, purpose: str) -> str:
    return f"{name:46}{purpose}".rstrip()


def main() -> None:
    """Write both files."""
    (ROOT / "docs" / "reference.md").write_text(reference(), encoding="utf-8")
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()

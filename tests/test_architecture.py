"""The direction of imports: storeys point down, and inside `model` too; there are no cycles."""

from __future__ import annotations

import ast
from pathlib import Path

import lowerbound

ROOT = Path(lowerbound.__file__).parent
GROUND = {"errors", "extras", "files", "kinds", "noise", "recipe"}
STOREYS = ["model", "lab", "service", "app"]
MODEL = ["spec", "networks", "distributions", "conditionals", "evidence", "families", "objectives", "build", "summary"]
# What may import what inside `model`, lowest first; a distribution may hold a network, but not import one.
RANK = {
    "spec": 0,
    "networks": 1,
    "distributions": 1,
    "evidence": 2,
    "conditionals": 3,
    "families": 4,
    "objectives": 4,
    "build": 5,
    "summary": 5,
}


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, without the leading `lowerbound.`, deferred imports included."""
    found: set[str] = set()
    known = set(modules())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lowerbound":
            base = node.module.removeprefix("lowerbound").strip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                found.add(full if full in known or f"{full}.__init__" in known else base)
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("lowerbound.") for a in node.names if a.name.startswith("lowerbound.")}
    return found - {""}


def storey(module: str) -> int:
    top = module.split(".")[0]
    return STOREYS.index(top) if top in STOREYS else -1


EDGES = [(module, other) for module, path in modules().items() for other in imports(path)]


def test_there_is_something_to_check() -> None:
    assert len(EDGES) > 100


def allowed(module: str, other: str) -> bool:
    """Whether `module` may import `other`: from below, or from its own part."""
    if not (module.startswith("model.") and other.startswith("model.")):
        return storey(other) <= storey(module)
    above, below = module.split(".")[1], other.split(".")[1]
    return above == below or RANK[below] < RANK[above]


def test_imports_point_down() -> None:
    entries = ("__init__", "__main__")  # the public names and the command line see everything
    assert [edge for edge in EDGES if edge[0] not in entries and not allowed(*edge)] == []


def test_every_top_level_name_is_known() -> None:
    tops = {module.split(".")[0] for module in modules()}
    assert tops == GROUND | set(STOREYS) | {"__init__", "__main__"}
    assert set(RANK) == set(MODEL)


def test_there_are_no_cycles() -> None:
    after: dict[str, set[str]] = {}
    for module, other in EDGES:
        after.setdefault(module, set()).add(other)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in after.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in list(after):
        visit(module, ())


def test_the_model_storey_touches_no_files_clocks_or_threads() -> None:
    forbidden = {"pathlib", "os", "time", "threading", "logging", "json", "socket"}
    for module, path in modules().items():
        if module.startswith("model"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.split(".")[0] for name in names} & forbidden, module

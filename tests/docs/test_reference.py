"""What the documentation must mention, and that what was written from the source still equals it."""

import doctest
import importlib
import pkgutil
import re
import runpy
import tomllib
from pathlib import Path

import lowerbound
from lowerbound.app.cli.main import COMMANDS, GROUPS
from lowerbound.kinds import settings_of
from lowerbound.lab.data.load import DATA, DATA_PARTS
from lowerbound.model.build import FAMILIES, OBJECTIVES, PARTS
from lowerbound.recipe import Evaluation, Recipe, Training, shipped

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lowerbound"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
MODULES = ["lowerbound", *(found.name for found in pkgutil.walk_packages(lowerbound.__path__, "lowerbound."))]
STALE = "the source has changed: run `make reference`"


def test_reference_equals_the_source() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "reference.py"))
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == written["reference"](), STALE
    assert (ROOT / "README.md").read_text(encoding="utf-8") == written["readme"](), STALE


def test_tree_lists_every_module_and_nothing_else() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\nsrc/lowerbound/\n(.*?)```", readme, re.DOTALL)
    assert tree is not None
    folders: list[str] = []
    listed = set()
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth - 1 :] = [name]
        if not name.endswith("/"):
            listed.add("".join(folders))
            assert len(line.split()) > 1, f"{name} has no purpose: give it a docstring"
    found = {str(path.relative_to(SOURCE)) for kind in ("*.py", "*.toml") for path in SOURCE.rglob(kind)}
    assert listed == {path for path in found if not path.endswith("__init__.py")}


def test_every_name_is_documented() -> None:
    records = {"": Recipe, "training.": Training, "evaluation.": Evaluation}
    names = [*lowerbound.__all__, *shipped(), *(f"lowerbound {command}" for command in (*COMMANDS, *GROUPS))]
    names += [f"{prefix}{field}" for prefix, record in records.items() for field in record.model_fields]
    groups = [DATA, FAMILIES, OBJECTIVES, *PARTS.values(), *DATA_PARTS.values()]
    names += [kind for group in groups for kind in group]
    names += [setting for group in groups for make in group.values() for setting in settings_of(make)]
    assert not [name for name in names if f"`{name}`" not in TEXT]


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w.]+)", TEXT):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "docs" / "images").iterdir())


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == lowerbound.__version__


def test_examples_in_docstrings() -> None:
    for name in MODULES:
        if not name.endswith("__main__"):
            assert doctest.testmod(importlib.import_module(name)).failed == 0, name


def test_examples_in_pages() -> None:
    results = [doctest.testfile(str(page), module_relative=False) for page in PAGES]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 0

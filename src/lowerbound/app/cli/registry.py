"""`lowerbound registry`: versions of models, which of them serve, and what served when"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.errors import DataError

if TYPE_CHECKING:
    from lowerbound.service.registry.ledger import Entry
    from lowerbound.service.registry.registry import Registry
    from lowerbound.service.registry.version import Version

Where = Annotated[
    str | None,
    typer.Option(
        "--registry", help="Folder or address of the registry (default: $LOWERBOUND_REGISTRY, else registry)."
    ),
]
Files = Annotated[
    Path | None,
    typer.Option(help="Folder of the files, for a registry on a server (default: $LOWERBOUND_REGISTRY_FILES)."),
]
Place = Annotated[
    str | None, typer.Option(help="Address of MLflow's tracking server or store (default: $MLFLOW_TRACKING_URI).")
]
Why = Annotated[str, typer.Option(help="The reason, for the history.")]
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Alias = Annotated[Literal["stable", "canary", "shadow"], typer.Option("--as", help="Which alias moves.")]

app = typer.Typer(
    help="Keep versions of models: add, list, show, promote, rollback, history, send, fetch, verify.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Option(help="Of the model: lower-case letters, digits, '.', '_' and '-'.")],
    why: Why = "",
    card: Annotated[Path | None, typer.Option(help="What it is meant for, .md: a part of its model card.")] = None,
    against: Annotated[
        int | None, typer.Option(help="Version that its codes are compared with (default: the stable or newest one).")
    ] = None,
    stores_latents: Annotated[
        bool | None,
        typer.Option("--stores-latents/--no-stores-latents", help="Whether deployments of this name store codes."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Register a finished run as the next version of a name."""
    version = _open(registry, files).add(
        run,
        name,
        why=why,
        card=None if card is None else _text(card),
        against=against,
        stores_latents=stores_latents,
        data_dir=data_dir,
    )
    if json_:
        print_json({**version.json(), "new": version.new, "compatibility": version.compatibility()})
        return
    say(f"{'registered' if version.new else 'this run is registered already, as'} {version.reference}")
    _describe(version)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Of one model; all by default.")] = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """List the models, or the versions of one."""
    place = _open(registry, files)
    found: list[dict[str, Any]] = []
    for each in place.names() if name is None else [name]:
        aliases = {alias: version.number for alias, version in place.aliases(each).items()}
        numbers = [version.json() for version in place.versions(each)]
        found.append(
            {"name": each, "aliases": aliases, "stores_latents": place.stores_latents(each), "versions": numbers}
        )
    if json_:
        print_json(found)
        return
    for entry in found:
        shown = ", ".join(f"{alias} {number}" for alias, number in entry["aliases"].items()) or "nothing serves"
        say(f"{entry['name']}: {shown}" + ("; deployments store latents" if entry["stores_latents"] else ""))
        for version in entry["versions"]:
            say(f"  {version['number']:>3}  {version['created'][:19]}  {version['hash'][:12]}")


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="NAME (its stable version), NAME:3 or NAME@canary.")],
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Show what a version is: its card, its codes against its parent's, and where its files are."""
    found = _open(registry, files).resolve(version)
    manifest = found.manifest()
    if json_:
        print_json({**found.json(), "manifest": manifest, "compatibility": found.compatibility()})
        return
    say(found.reference)
    _describe(found)
    say(f"\n{(found.path / 'card.md').read_text(encoding='utf-8').strip()}")


@app.command()
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    alias: Alias = "stable",
    why: Why = "",
    expect: Annotated[
        int | None, typer.Option(min=0, help="Refuse unless the alias points to this number now; 0 for none.")
    ] = None,
    breaking: Annotated[
        bool, typer.Option("--breaking", help="Take other codes than the stable version's though codes are stored.")
    ] = False,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Let a version serve: point an alias to it, unless somebody else moves it meanwhile."""
    entry = _open(registry, files).promote(name, version, alias, why=why, breaking=breaking, expected=expect)
    _say_entry(entry, json_)


@app.command()
def rollback(
    name: Name,
    alias: Alias = "stable",
    why: Why = "",
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Undo the last promotion: the version before it is stable again; a canary or shadow is taken off."""
    _say_entry(_open(registry, files).rollback(name, alias, why=why), json_)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="Name of the model; all by default.")] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Say what served then, and why: 2026-11-21, 2026-11-21T14:30, with a zone or local."),
    ] = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Say what happened, or what served at a time and why."""
    place = _open(registry, files)
    if at is None:
        rows = place.history(name)
        if json_:
            print_json([row.json() for row in rows])
            return
        for row in rows:
            say(_line(row))
        return
    told = {each: place.served(each, at) for each in (place.names() if name is None else [name])}
    if json_:
        print_json({each: {alias: row.json() for alias, row in found.items()} for each, found in told.items()})
        return
    for each, found in told.items():
        for alias, row in found.items():
            say(f"{alias}: {each}:{row.number}, since {_line(row)}")
        if not found:
            say(f"nothing of {each} served then")


@app.command()
def send(
    version: Annotated[str, typer.Argument(help="NAME (its stable version), NAME:3 or NAME@canary.")],
    mlflow: Place = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Send a version to MLflow's registry of models, with its files and the numbers of its evaluation."""
    from lowerbound.service.registry.on_mlflow import to_mlflow

    found = _open(registry, files).resolve(version)
    number = to_mlflow(found, mlflow)
    if json_:
        print_json({**found.json(), "mlflow": {"name": found.name, "number": number}})
        return
    say(f"{found.reference} is version {number} of {found.name} in MLflow")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Of the model in MLflow.")],
    number: Annotated[int, typer.Argument(min=1, help="Of its version there.")],
    mlflow: Place = None,
    as_name: Annotated[str | None, typer.Option(help="Name in this registry (default: the same).")] = None,
    why: Why = "",
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Take a version that was sent to MLflow into this registry; its hash stays what it was."""
    from lowerbound.service.registry.on_mlflow import from_mlflow

    version = from_mlflow(_open(registry, files), name, number, mlflow, as_name=as_name, why=why)
    if json_:
        print_json({**version.json(), "new": version.new})
        return
    say(f"{'registered' if version.new else 'this version is registered already, as'} {version.reference}")
    _describe(version)


@app.command()
def verify(registry: Where = None, files: Files = None, json_: Json = False) -> None:
    """Check every file of every version, and that nobody changed the history."""
    found = _open(registry, files).verify()
    if json_:
        print_json(asdict(found))
        return
    say(
        f"{found.versions} versions and {found.entries} rows of history are as they were written; the last row's "
        f"hash is {found.head}"
    )
    for unused in found.unused:
        say(f"objects/{unused} belongs to no version (an `add` was cut off); it may be deleted")


def _open(registry: str | None, files: Path | None) -> Registry:
    from lowerbound.service.registry.registry import Registry

    return Registry(registry, files)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the card {path} cannot be read ({error}); give a Markdown file in UTF-8.") from None


def _describe(version: Version) -> None:
    """Print what tells versions apart."""
    say(f"  hash    {version.hash}")
    say(f"  files   {version.path}")
    exported = version.manifest()["export"]
    if "refused" in exported:
        say(f"  export  none: {exported['refused']}")
    else:
        say(f"  export  {exported['format']}, proven to {exported['largest_difference']:.2g} of an output's size")
    found = version.compatibility()
    if found is None:
        return
    say(f"  codes   {found['verdict']} against {version.name}:{found['against']}: {found['reason']}")
    names: dict[str, str] = {
        "equal_indices": "equal indices",
        "orthogonal_error": "unexplained after an orthogonal alignment",
        "affine_error": "after an affine one",
        "cka": "kernel alignment",
        "neighbour_overlap": "common neighbours",
    }
    shown = [f"{text} {found[name]:.3g}" for name, text in names.items() if found.get(name) is not None]
    if shown and found["verdict"] != "identical":
        say(f"          {', '.join(shown)}")


def _say_entry(entry: Entry, json_: bool) -> None:
    print_json(entry.json()) if json_ else say(_line(entry))


def _line(row: Entry) -> str:
    """A row of the history, for a person."""
    parts: dict[str, Any] = {
        "add": f"{row.name}:{row.number} was added",
        "promote": f"{row.name}:{row.number} became {row.alias}",
        "rollback": f"{row.name} went back to {row.number} as {row.alias}",
        "withdraw": f"{row.name}:{row.before} is {row.alias} no more",
        "settings": f"{row.name} was changed",
    }
    before = f" after {row.before}" if row.action == "promote" and row.before else ""
    return f"{row.time[:19]}Z  {parts[row.action]}{before}, by {row.who}" + (f": {row.why}" if row.why else "")

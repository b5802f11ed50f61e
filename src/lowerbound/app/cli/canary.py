"""`lowerbound canary`"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.errors import DataError, TooFewError, UsageError
from lowerbound.files import read_json

if TYPE_CHECKING:
    from lowerbound.service.registry.version import Version

AGAINST = 1  # exit code of a verdict against the candidate


def canary(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    place: Annotated[Literal["canary", "shadow"], typer.Option("--of", help="Which candidate.")] = "canary",
    promote: Annotated[bool, typer.Option("--promote", help="Decide that it becomes stable.")] = False,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Decide that it goes.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Decide that it stays a candidate.")] = False,
    look: Annotated[
        str, typer.Option(help="Compare samples with kept inputs, by raw values, own codes, or a file of a network.")
    ] = "",
    who: Annotated[str, typer.Option(help="Who decides.")] = "",
    why: Annotated[str, typer.Option(help="For what reason.")] = "",
    telemetry: Annotated[
        Path | None, typer.Option(help="Folder of the facts (default: $LOWERBOUND_TELEMETRY, else telemetry).")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(help="Folder or address of the registry (default: $LOWERBOUND_REGISTRY, else registry)."),
    ] = None,
    json_: Json = False,
) -> None:
    """Say what is known of a candidate beside the stable version, or decide about it; exit code 1 if it is worse."""
    from lowerbound.service.monitoring.telemetry.database import place_of
    from lowerbound.service.monitoring.verdicts.court import decide
    from lowerbound.service.registry.registry import Registry

    folder, aliases = place_of(telemetry), Registry(registry).aliases(name)
    place_now, action = aliases.get(place), _decision(promote, roll_back, hold)
    if place_now is None and (look or action is not None):
        raise UsageError(f"{name} has no {place} version, so there is nothing to decide or to look at.")
    if look and place_now is not None:
        found = _looked(folder, place_now, aliases["stable"], look)
    elif action is not None and place_now is not None:
        found = decide(folder, name, place_now.number, action, who, why)
    else:
        found = _state(folder, name, place, None if place_now is None else place_now.number)
    found["codes"] = _codes(folder, found)
    if json_:
        print_json({key: value for key, value in found.items() if key not in ("evidence", "waiting")})
    else:
        _tell(found, place, serves=place_now is not None and place_now.number == found["number"])
    if found["verdict"]["action"] == "roll_back":
        raise SystemExit(AGAINST)


def _decision(promote: bool, roll_back: bool, hold: bool) -> Literal["promote", "roll_back", "hold"] | None:
    given: list[Literal["promote", "roll_back", "hold"]] = []
    given += ["promote"] if promote else []
    given += ["roll_back"] if roll_back else []
    given += ["hold"] if hold else []
    if len(given) > 1:
        raise UsageError("more than one decision was given; give one of --promote, --roll-back and --hold.")
    return given[0] if given else None


def _looked(folder: Path, candidate: Version, stable: Version, extractor: str) -> dict[str, Any]:
    """Compare what both versions sample, and let the court know."""
    from lowerbound.service.monitoring.verdicts.court import deliver
    from lowerbound.service.monitoring.verdicts.sampled import look_at_samples
    from lowerbound.service.monitoring.verdicts.trial import path_of

    name, number = candidate.name, candidate.number
    path = path_of(folder, name, number)
    looks = read_json(path)["looks"] if path.is_file() else 0
    found = look_at_samples(folder, name, number, candidate.path, stable.path, extractor, seed=looks)
    return deliver(folder, name, number, found)


def _state(folder: Path, name: str, place: str, number: int | None) -> dict[str, Any]:
    """The trial of a version; of the last candidate where there is none now.

    Raises:
        DataError: there was none.
    """
    from lowerbound.service.monitoring.verdicts.trial import trials_of

    known = [each for each in trials_of(folder, name) if each["alias"] == place and number in (None, each["number"])]
    if not known:
        what = f"no {place}" if number is None else f"no evidence about {name}:{number} as a {place} yet"
        raise DataError(
            f"there is {what} of {name} in {folder}; promote one with `lowerbound registry promote {name} NUMBER --as "
            f"{place}`, and serve {name} with this folder as --telemetry."
        )
    return known[-1]


def _codes(folder: Path, found: dict[str, Any]) -> dict[str, Any] | None:
    """How the codes of both versions differ; None where there are none of both."""
    from lowerbound.service.monitoring.verdicts.codes import compare_codes
    from lowerbound.service.monitoring.verdicts.halves import Side

    sides = Side(found["alias"], found["version"]), Side("stable", found["stable"]["version"])
    try:
        return asdict(compare_codes(folder, found["name"], *sides))
    except TooFewError:
        return None


def _tell(found: dict[str, Any], place: str, serves: bool) -> None:
    verdict, stable = found["verdict"], found["stable"]["number"]
    now = place if serves else f"{place} then"
    say(f"{found['name']}:{found['number']} ({now}) beside {found['name']}:{stable}, since {_time(found['started'])}")
    say(f"  {verdict['action'].replace('_', ' ')}: {verdict['reason']}")
    for metric, finding in verdict["findings"].items():
        mean = "none" if finding["mean"] is None else f"{finding['mean']:+.4f}"
        needs = f", about {finding['needs']} more until it is known" if finding["needs"] else ""
        say(
            f"  {metric}: {finding['state']}; mean {mean} ({finding['lower']:+.4f} to {finding['upper']:+.4f}), margin "
            f"{finding['margin']:+.4f}, {finding['n']} rows{needs}"
        )
    if (codes := found["codes"]) is not None:
        say(
            f"  codes: {100 * codes['equal']:.1f} % of {codes['rows']} rows equal; units differ by "
            f"{codes['distance']:.3f} of their deviation, unit {codes['unit']} most, by {codes['most']:.3f}"
        )
    if found["ended"] is not None:
        done = {"promote": "promoted", "roll_back": "rolled back"}[found["ended"]["action"]]
        say(f"  {done} at {_time(found['ended']['at'])}, row {found['ended']['history']} of the registry's history")
    if found["trouble"]:
        say(f"  not done: {found['trouble']}")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(" ", "seconds")

"""`lowerbound retrain`"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.app.cli.registry import Files, Where
from lowerbound.app.cli.train import Stop
from lowerbound.files import read_json

if TYPE_CHECKING:
    from lowerbound.service.retraining.job import Outcome

Tier = Literal["incremental", "full", "emergency"]
Telemetry = Annotated[
    Path | None, typer.Option(help="Folder of the store (default: $LOWERBOUND_TELEMETRY, else telemetry).")
]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="Settings over those of the tier, .toml.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")]


def retrain(
    name: Annotated[str, typer.Argument(help="Of the model; its stable version is retrained.")],
    tier: Annotated[
        Tier,
        typer.Option(help="The decoder under codes that stay; everything from scratch; or at once, after a drift."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of this retraining, begun or gone on with (default: retraining/NAME/TIER-TODAY)."),
    ] = None,
    plan: PlanFile = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting of the plan: a.b=VALUE (TOML).")
    ] = None,
    suite: Annotated[Path | None, typer.Option(help="Folder of the fixed suite (default: beside --out).")] = None,
    telemetry: Telemetry = None,
    registry: Where = None,
    files: Files = None,
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """Retrain a model on its requests, and let the server try it if it forgot nothing; ends with 1 if it is refused."""
    from lowerbound.service.monitoring.telemetry.database import place_of
    from lowerbound.service.registry.registry import Registry
    from lowerbound.service.retraining.job import Job
    from lowerbound.service.retraining.plan import read_plan
    from lowerbound.service.retraining.states import retrain as retrain_model

    folder = out or Path("retraining") / name / f"{tier}-{datetime.now(UTC):%Y-%m-%d}"
    chosen = read_plan(tier, plan, set_ or [])
    with Stop() as stopping:
        found = retrain_model(
            Job(name, chosen, folder, Registry(registry, files), place_of(telemetry), data_dir, suite), stopping.asked
        )
    if json_:
        print_json(found.json())
    else:
        describe(found)
    if found.outcome == "refused":
        raise typer.Exit(1)


def describe(found: Outcome) -> None:
    """Print what was found, slice by slice."""
    for name in ("guard", "refused"):
        path = found.folder / f"{name}.json"
        for each in read_json(path).get("findings", []) if path.exists() else []:
            if isinstance(each, dict):
                say(
                    f"{each['verdict']:10}  {each['slice']:28}  {each['metric']:6} {each['change']:+8.2%} "
                    f"(at most {each['limit']:+.2%}) against {each['against']}, {each['rows']:,} rows"
                )
    say(f"{found.outcome}: {found.why}")
    say(f"see {found.folder}")

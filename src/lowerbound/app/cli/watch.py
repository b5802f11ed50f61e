"""`lowerbound watch`"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.app.cli.registry import Files, Where
from lowerbound.app.cli.retrain import DataDir, PlanFile, Telemetry
from lowerbound.app.cli.train import Stop

if TYPE_CHECKING:
    from lowerbound.service.retraining.watcher import Event

Tier = Literal["incremental", "full", "emergency", "nothing"]


def watch(
    names: Annotated[list[str], typer.Argument(help="Of the models.")],
    weekly: Annotated[Tier, typer.Option(help="What is retrained every week.")] = "incremental",
    monthly: Annotated[Tier, typer.Option(help="What is retrained every month.")] = "full",
    on_drift: Annotated[Tier, typer.Option(help="What is retrained when there is drift.")] = "emergency",
    every: Annotated[float, typer.Option(min=1.0, help="Seconds between two rounds.")] = 60.0,
    once: Annotated[
        bool, typer.Option("--once", help="One round, for cron; ends with 1 for a refusal or drift.")
    ] = False,
    plan: PlanFile = None,
    out: Annotated[Path, typer.Option(help="Folder of the retrainings.")] = Path("retraining"),
    telemetry: Telemetry = None,
    registry: Where = None,
    files: Files = None,
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """Watch models until SIGTERM: look for drift, retrain what is due, and keep the house of telemetry."""
    from lowerbound.app.report.drifted import write_drifted
    from lowerbound.service.monitoring.looking.monitor import Monitor
    from lowerbound.service.monitoring.telemetry.database import place_of
    from lowerbound.service.registry.registry import Registry
    from lowerbound.service.retraining.watcher import Watcher, looking, noting, schedules

    given = {"weekly": weekly, "monthly": monthly, "on-drift": on_drift}
    tasks = schedules({task: tier for task, tier in given.items() if tier != "nothing"}, plan)
    place, facts = Registry(registry, files), place_of(telemetry)
    for name in names:
        place.resolve(name)
    monitor = Monitor(facts, place, report=write_drifted)
    with Stop() as stopping:
        watcher = Watcher(
            names,
            place,
            facts,
            out,
            tasks,
            looks=[looking(monitor)],
            after=[noting(monitor.incidents)],
            data_dir=data_dir,
            stop=stopping.asked,
        )
        if not once and not json_:
            say(f"watching {', '.join(names)}: {', '.join(f'{task} {tier}' for task, tier in given.items())}")
        events = watcher.round()
        _show(events, json_)
        while not once and not stopping.asked():
            rest = time.monotonic() + every
            while time.monotonic() < rest and not stopping.asked():
                time.sleep(min(0.2, every))
            if not stopping.asked():
                _show(watcher.round(), json_)
    if once and any(event.kind in ("drift", "refused") for event in events):
        raise typer.Exit(1)


def _show(events: list[Event], as_json: bool) -> None:
    if as_json:
        print_json([event.json() for event in events])
        return
    for event in events:
        say(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(event.time))}  {event.name}  {event.kind}: {event.text}")

"""`lowerbound contest`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, console, print_json, say
from lowerbound.app.cli.train import Bar, Stop

if TYPE_CHECKING:
    from lowerbound.lab.contest import Outcome


def contest(
    data: Annotated[str, typer.Argument(help="Kind of the data: digits, mnist.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs; a contest that was stopped goes on there.")],
    families: Annotated[
        str, typer.Option(help="Words (vae, gan, diffusion, autoregressive, flow), or names or files of recipes.")
    ] = "vae,gan,diffusion,autoregressive,flow",
    budget: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to train each run in (default: by the data).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each family.")] = 3,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Train families on the same data for equal time, and put what they are worth on one page."""
    names = [name.strip() for name in families.split(",") if name.strip()]
    plan = lowerbound.plan_contest(data, names, out, budget_s=budget, seeds=seeds, data_dir=data_dir, device=device)
    trials = lowerbound.trials_of(plan, out)
    outcomes: list[Outcome] = []
    with Stop() as stopping:
        for number, trial in enumerate(trials, 1):
            with Bar(quiet=json_ or not console.is_terminal) as bar:
                found = lowerbound.run_contestant(trial, data_dir, device, bar.show, stopping.asked)
            if found is None:
                break
            outcomes.append(found)
            lowerbound.write_contest(out / "contest.json", plan, outcomes)
            if not json_:
                say(_told(number, len(trials), found))
    page = lowerbound.write_contested(out, plan, outcomes, data_dir) if outcomes else None
    if json_:
        print_json({"plan": asdict(plan), "runs": [asdict(outcome) for outcome in outcomes]})
    elif len(outcomes) < len(trials):
        say(f"stopped after {len(outcomes)} of {len(trials)} runs; go on with the same command")
    else:
        say(f"wrote {out / 'contest.json'} and {page}")


def _told(number: int, count: int, found: Outcome) -> str:
    """The line of a finished run."""
    shown = ("kernel_distance", "coverage", "sample_s", "bits_per_dim")
    numbers = "  ".join(f"{name} {found.numbers[name].value:.4g}" for name in shown if name in found.numbers)
    failed = f"  FAILED: {found.failed}" if found.failed else ""
    return f"{number}/{count}  {found.run}  {numbers}{failed}"

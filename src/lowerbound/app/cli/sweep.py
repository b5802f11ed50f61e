"""`lowerbound sweep`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, Set, console, print_json, say
from lowerbound.app.cli.train import Bar, Stop

if TYPE_CHECKING:
    from lowerbound.lab.sweep import Finding, Trial


def sweep(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe (see `recipes`), or a TOML file.")],
    over: Annotated[str, typer.Option(help="The setting and its values: objective.beta=0.5,1,2 (TOML values).")],
    out: Annotated[Path, typer.Option(help="Folder of the runs; a sweep that was stopped goes on there.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs for each value, each with its own seed.")] = 1,
    set_: Set = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Train and judge a recipe for each of several values of one setting."""
    key, values = lowerbound.parse_over(over)
    trials = lowerbound.plan_sweep(recipe, key, values, seeds, out, set_ or [])
    lowerbound.check_trials(trials, data_dir)
    findings: list[Finding] = []
    with Stop() as stopping:
        for number, trial in enumerate(trials, 1):
            with Bar(quiet=json_ or not console.is_terminal) as bar:
                found = lowerbound.run_trial(trial, data_dir, device, bar.show, stopping.asked)
            if found is None:
                break
            findings.append(found)
            lowerbound.write_sweep(out / "sweep.json", recipe, key, findings)
            if not json_:
                say(_told(number, len(trials), key, trial, found))
    if len(findings) == len(trials):
        findings = lowerbound.rank_seeds(trials, findings, data_dir, device)
        lowerbound.write_sweep(out / "sweep.json", recipe, key, findings)
    page = lowerbound.write_comparison(out, recipe, key, findings, len(trials)) if findings else None
    if json_:
        runs = [finding.__dict__ for finding in findings]
        print_json({"key": key, "planned": len(trials), "finished": len(findings), "runs": runs})
    elif len(findings) < len(trials):
        say(f"stopped after {len(findings)} of {len(trials)} runs; go on with the same command")
    else:
        say(f"wrote {out / 'sweep.json'} and {page}")


def _told(number: int, count: int, key: str, trial: Trial, found: Finding) -> str:
    """The line of a finished run."""
    shown = ("elbo_nats", "rate_nats", "distortion_nats", "active_units")
    numbers = "  ".join(f"{name} {found.results[name]:.4g}" for name in shown if name in found.results)
    failed = f"  FAILED: {found.failed}" if found.failed else ""
    return f"{number}/{count}  {key} = {trial.value}, seed {found.seed}  {numbers}{failed}"

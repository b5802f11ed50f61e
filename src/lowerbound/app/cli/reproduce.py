"""`lowerbound reproduce`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowerbound
from lowerbound.app.cli.console import Device, Json, console, print_json, say
from lowerbound.app.cli.train import Bar, Stop


def reproduce(
    paper: Annotated[str | None, typer.Argument(help="Name of a paper, or a TOML file; without it, the list.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of pages and runs; a reproduction that was stopped goes on there.")
    ] = Path("reproduction"),
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of every run, instead of the paper's.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Make this run only; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and judge nothing; write what there is.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")] = None,
    device: Device = "cpu",
    json_: Json = False,
) -> None:
    """Put a paper's figures beside ours: train and judge what is missing."""
    if paper is None:
        _list(json_)
        return
    name, content = lowerbound.read_paper(paper)
    trials = lowerbound.plan_paper(content, name, out, seeds)
    wanted = lowerbound.plan_paper(content, name, out, seeds, only or [])
    with Stop() as stopping:
        for number, trial in enumerate([] if dry_run else wanted, 1):
            with Bar(quiet=json_ or not console.is_terminal) as bar:
                failed = lowerbound.make_trial(trial, data_dir, device, bar.show, stopping.asked)
            if failed is None:
                break
            if content.runs[trial.value].keep and not failed:
                lowerbound.keep_weights(trial, out / "weights" / f"{name}-{trial.path.name}", data_dir)
            if not json_:
                say(f"{number}/{len(wanted)}  {trial.path.name}  {failed or 'finished and judged'}")
    made = [lowerbound.look_at_trial(content, trial) for trial in trials]
    record = lowerbound.write_reproduction(out / f"{name}.json", name, content, made)
    lowerbound.write_reproduced(out, lowerbound.read_reproductions(out))
    if json_:
        print_json(record)
    else:
        say(f"wrote {out / name}.md, {out / name}.json and {out / 'README.md'}")


def _list(json_: bool) -> None:
    papers = {name: lowerbound.read_paper(name)[1] for name in lowerbound.shipped_papers()}
    if json_:
        print_json({name: paper.model_dump(mode="json") for name, paper in papers.items()})
        return
    width = max(map(len, papers))
    for name, paper in papers.items():
        say(f"{name:{width}}  {paper.citation}: {', '.join(paper.runs)}")

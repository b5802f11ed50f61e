"""The pages of reproduced papers, in Markdown: one for each, and a table of all figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowerbound.files import write_text

Record = dict[str, Any]


def write_reproduced(folder: Path, records: Sequence[Record]) -> None:
    """Write a page for each record of `lab.reproduction`, and README.md about all of them."""
    for record in records:
        write_text(folder / f"{record['name']}.md", paper_page(record))
    write_text(folder / "README.md", index_page(records))


def index_page(records: Sequence[Record]) -> str:
    """The table of all figures, published and ours."""
    rows = [
        (
            f"[{record['name']}]({record['name']}.md)",
            figure["what"],
            _published(figure),
            _aim(figure),
            _ours(figure),
            f"{figure['seeds']}" if figure["seeds"] else "",
            _time(record, figure),
            _verdict(figure),
        )
        for record in records
        for figure in record["figures"]
    ]
    head = ("paper", "figure", "published", "aim", "ours", "seeds", "training", "")
    return (
        "# Reproduced figures\n\n"
        "Written by `lowerbound reproduce PAPER --out FOLDER`, which trains what is missing, judges it and writes a "
        "page and a record (JSON) for each paper, and this table. Ours is the mean over seeds, ± its standard error "
        "over the rows that were judged; the page of a paper says what differs from it, what each run took, and what "
        "more would take. Training is the processor time of all runs of the figure.\n\n" + _table(head, rows)
    )


def paper_page(record: Record) -> str:
    """What was published, what was run, and what came out."""
    figures, runs = record["figures"], record["runs"]
    compared = [
        (
            figure["what"],
            f"`{figure['number']}` of {_named(figure)}",
            f"{_published(figure)} ({figure['where']})".strip(),
            _aim(figure),
            _ours(figure),
            "" if figure["spread"] is None else f"{figure['spread']:.2g}",
            str(figure["seeds"] or ""),
            f"{figure['rows']:,}" if figure["rows"] else "",
        )
        for figure in figures
    ]
    head = ("figure", "number", "published", "aim", "ours ± standard error", "spread over seeds", "seeds", "rows")
    shortfalls = [sentence for figure in figures if (sentence := _shortfall(figure))]
    more = [f"* {run}: {sentence}" for run, sentence in record["more"].items()]
    parts = [
        f"# {record['title']}\n\n{record['citation']}\n\n{record['differs']}\n",
        f"## Figures\n\n{_table(head, compared)}",
        "\n".join(f"* {sentence}" for sentence in shortfalls) + "\n" if shortfalls else "",
        f"## Runs\n\n{_table(('run', 'state', 'steps', 'draws of the bound', 'training', 'on'), map(_run, runs))}",
        "Processor time is of all threads; other work may have run beside it. "
        f"This page was written on a machine of {record['cores']} cores by "
        f"`lowerbound reproduce {record['name']}`. Each run alone:\n",
        "```text\n" + "\n".join(dict.fromkeys(run["command"] for run in runs)) + "\n```\n",
        "## What more would take\n\n" + "\n".join(more) + "\n" if more else "",
    ]
    return "\n".join(part for part in parts if part)


def _run(run: Record) -> tuple[str, ...]:
    planned = f" of {run['planned']:,}" if run["planned"] and run["planned"] != run["steps"] else ""
    wall, work = run["seconds"], run["processor_seconds"]
    took = [_minutes(wall, "by the clock")] if wall is not None else []
    took += [_minutes(work, "of processors")] if work is not None else []
    on = f"torch {run['torch']}, {run['machine']}, threads: {run['threads']}" if run["torch"] else ""
    samples = f"{run['samples']:,}" if run["samples"] else ""
    return f"{run['run']}, seed {run['seed']}", run["state"], f"{run['steps']:,}{planned}", samples, ", ".join(took), on


def _minutes(seconds: float, what: str) -> str:
    return f"{seconds / 60:.1f} min {what}" if seconds >= 60 else f"{seconds:.0f} s {what}"


def _time(record: Record, figure: Record) -> str:
    """The processor time of the runs of a figure, where all of it is known."""
    used = [run for run in record["runs"] if run["run"] in (figure["run"], figure["over"])]
    times = [run["processor_seconds"] for run in used]
    return _minutes(sum(times), "").strip() if times and None not in times else ""


def _named(figure: Record) -> str:
    return figure["run"] if figure["over"] is None else f"{figure['run']} less that of {figure['over']}"


def _published(figure: Record) -> str:
    return "" if figure["published"] is None else f"{figure['published']:g}"


def _aim(figure: Record) -> str:
    return f"{'≤' if figure['better'] == 'less' else '≥'} {figure['aim']:g}"


def _ours(figure: Record) -> str:
    if figure["value"] is None:
        return "not yet"
    stderr = figure["stderr"]
    return f"{figure['value']:.4g}" if stderr is None else f"{figure['value']:.4g} ± {stderr:.2g}"


def _verdict(figure: Record) -> str:
    return "" if figure["value"] is None else "reached" if figure["reached"] else f"short by {_gap(figure):.2g}"


def _gap(figure: Record) -> float:
    return abs(figure["value"] - figure["aim"])


def _shortfall(figure: Record) -> str:
    """One sentence where ours is not what was aimed at, or not there."""
    if figure["value"] is None:
        missing = figure["run"] if figure["over"] is None else f"{figure['run']} and {figure['over']}"
        return f"{figure['what']}: not all runs of {missing} are finished and judged; the same command goes on there."
    if figure["reached"]:
        return ""
    stderr, gap = figure["stderr"], _gap(figure)
    doubt = "" if not stderr else f", {gap / stderr:.1f} standard errors"
    return f"{figure['what']}: ours is {_ours(figure)}, short of {figure['aim']:g} by {gap:.2g}{doubt}."


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)

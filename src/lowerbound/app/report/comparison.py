"""The page of a sweep: numbers by value, and distortion against rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from lowerbound.app.report import figures
from lowerbound.app.report.page import Drawn, Section, chart, render
from lowerbound.files import write_bytes, write_text
from lowerbound.lab.sweep import Finding

SHOWN = (
    "elbo_nats",
    "nll_nats",
    "bits_per_dim",
    "rate_nats",
    "distortion_nats",
    "active_units",
    "codebook_perplexity",
)


def write_comparison(folder: Path, name: str, key: str, findings: Sequence[Finding], planned: int) -> Path:
    """Write `sweep.html`, and `rate-distortion.png` where the models have a rate.

    Args:
        folder: of the sweep.
        name: of the recipe.
        key: of the setting.
        findings: of the finished runs.
        planned: runs of the whole sweep.

    Returns:
        The path of the page.
    """
    drawn = _trade(key, findings)
    for figure in drawn:
        write_bytes(folder / figure.file, figure.png)
    numbers = [number for number in SHOWN if any(number in finding.results for finding in findings)]
    values = list(dict.fromkeys(finding.value for finding in findings))
    page = render(
        "sweep.html",
        {
            "name": name,
            "key": key,
            "done": len(findings),
            "planned": planned,
            "sections": [Section("trade", "Distortion against rate", "", drawn)] if drawn else [],
            "numbers": numbers,
            "rows": [(value, [_cell(value, number, findings) for number in numbers]) for value in values],
        },
    )
    write_text(folder / "sweep.html", page)
    return folder / "sweep.html"


def _trade(key: str, findings: Sequence[Finding]) -> list[Drawn]:
    points: dict[str, list[tuple[float, float]]] = {}
    for finding in findings:
        if {"rate_nats", "distortion_nats"} <= finding.results.keys():
            place = (finding.results["rate_nats"], finding.results["distortion_nats"])
            points.setdefault(finding.value, []).append(place)
    if not points:
        return []
    return [
        chart(
            "rate-distortion.png",
            f"Runs by {key}",
            "Each point is a run. On a dotted line all have the same ELBO, larger towards the lower left: a setting "
            "that moves along such a line trades one for the other; one that moves across it is better or worse.",
            f"Distortion against rate of {len(findings)} runs, by {key}.",
            lambda narrow: figures.trade(points, narrow),
        )
    ]


def _cell(value: str, number: str, findings: Sequence[Finding]) -> str:
    """The mean over seeds, and their standard deviation where there are several."""
    found = [finding.results[number] for finding in findings if finding.value == value and number in finding.results]
    if not found:
        return ""
    spread = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.4g}{spread}"

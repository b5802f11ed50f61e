"""The page of a sweep: numbers by value, and distortion against rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from lowerbound.app.report import figures
from lowerbound.app.report.page import Drawn, Section, chart, render
from lowerbound.files import write_bytes, write_text
from lowerbound.lab.sweep import Finding

LONG = 12  # letters of a value that fit into a chart
SHOWN = (
    "elbo_nats",
    "nll_nats",
    "bits_per_dim",
    "rate_nats",
    "distortion_nats",
    "active_units",
    "codebook_perplexity",
    "psnr_db",
    "frechet_distance_raw",
    "kernel_distance_raw",
    "coverage_raw",
    "mig",
    "udr",
    "linear_probe_accuracy",
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
    values = list(dict.fromkeys(finding.value for finding in findings))
    numbers = [number for number in SHOWN if any(number in finding.results for finding in findings)]
    labels = _labels(values)
    drawn = [*_trade(key, findings, labels), *_curves(key, labels, numbers, findings)]
    for figure in drawn:
        write_bytes(folder / figure.file, figure.png)
    page = render(
        "sweep.html",
        {
            "name": name,
            "key": key,
            "done": len(findings),
            "planned": planned,
            "sections": [Section("trade", "Curves", "", drawn)] if drawn else [],
            "numbers": numbers,
            "rows": [
                (
                    _named(value, labels),
                    _failures(value, findings),
                    [_cell(value, number, findings) for number in numbers],
                )
                for value in values
            ],
            "failures": [(finding.run, finding.failed) for finding in findings if finding.failed],
        },
    )
    write_text(folder / "sweep.html", page)
    return folder / "sweep.html"


def _labels(values: list[str]) -> dict[str, str]:
    """What charts call each value: itself, or a letter where some are long."""
    letters = len(values) <= len(ascii_uppercase) and max(map(len, values)) > LONG
    return dict(zip(values, ascii_uppercase if letters else values, strict=False))


def _named(value: str, labels: dict[str, str]) -> str:
    return value if labels[value] == value else f"{labels[value]}: {value}"


def _trade(key: str, findings: Sequence[Finding], labels: dict[str, str]) -> list[Drawn]:
    points: dict[str, list[tuple[float, float]]] = {}
    for finding in findings:
        if {"rate_nats", "distortion_nats"} <= finding.results.keys():
            place = (finding.results["rate_nats"], finding.results["distortion_nats"])
            points.setdefault(labels[finding.value], []).append(place)
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


def _curves(key: str, labels: dict[str, str], numbers: list[str], findings: Sequence[Finding]) -> list[Drawn]:
    """Each number by value, with its spread over seeds."""
    if len(labels) < 2 or not numbers:
        return []
    found = {number: [_of(value, number, findings) for value in labels] for number in numbers}
    return [
        chart(
            "numbers.png",
            f"Numbers by {key}",
            "Points are runs, collapsed ones too; lines go through their means.",
            f"{len(numbers)} numbers by {key}.",
            lambda narrow: figures.by_value(found, list(labels.values()), narrow),
        )
    ]


def _of(value: str, number: str, findings: Sequence[Finding]) -> list[float]:
    return [finding.results[number] for finding in findings if finding.value == value and number in finding.results]


def _failures(value: str, findings: Sequence[Finding]) -> str:
    """How many of how many runs failed."""
    runs = [finding for finding in findings if finding.value == value]
    return f"{sum(bool(finding.failed) for finding in runs)} of {len(runs)}"


def _cell(value: str, number: str, findings: Sequence[Finding]) -> str:
    """The mean over seeds, and their standard deviation where there are several."""
    found = _of(value, number, findings)
    if not found:
        return ""
    spread = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.4g}{spread}"

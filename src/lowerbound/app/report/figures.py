"""Charts of a run, from its journal and evaluation; each is drawn wide for a desk and narrow for a phone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from lowerbound.app.report.pictures import INK

ACCENT, LEAF, PLUM, STONE = "#ca6702", "#2a9d8f", "#7b2d6b", "#8a9499"
COLOURS = [INK, ACCENT, LEAF, PLUM, "#bb3e03", "#5a7d2a", "#4a6fa5", STONE]
ZERO_RATE, WEAK_RATE = 0.01, 0.1  # nats; below the first a unit is dead, below the second weak
WIDTHS = {False: 9.2, True: 4.0}  # inches, wide and narrow
SCHEDULED = ("beta", "multiplier", "target_nats", "capacity_nats", "free_bits_nats", "gamma", "alpha")
TIMES = ("step", "seconds", "processor_seconds", "rows_per_second", "loss")
POINTS = 1500  # of a curve, at most

Row = dict[str, Any]


def training(rows: list[Row], narrow: bool = False) -> Figure:
    """Loss terms over the steps; below them, on the same axis, what was scheduled, gradients and all else."""
    rows = rows[:: max(1, len(rows) // POINTS)] + rows[-1:]
    panels = [panel for panel in _panels(rows) if panel[1]]
    heights = [3.0 if title == "loss terms, nats" else 1.25 for title, _ in panels]
    figure = _figure(narrow, sum(heights) + 0.4)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name, colour in zip(names, COLOURS * 2, strict=False):
            steps, values = _series(rows, name)
            flip = -1 if name.endswith("elbo_nats") else 1
            points = "o-" if len(values) < 40 else "-"
            axis.plot(steps, flip * values, points, markersize=3, color=colour, linewidth=1.2, label=_label(name))
        axis.set_ylabel(title, fontsize=9)
        if title == "gradient norm" and _spread(rows, names) > 20:
            axis.set_yscale("log")
        if title == "loss terms, nats":
            _limit_to_late_values(axis, rows, names)
        if len(names) > 1:
            _legend(axis, 3 if narrow else 6)
        _plain(axis)
    axes[-1].set_xlabel("step")
    return figure


def health(groups: dict[str, dict[str, list[float]]], standard: bool, narrow: bool = False) -> Figure:
    """One picture of all groups of latents.

    Args:
        groups: of each group, "rates" per unit (nats), "means" and "variances" of the codes of all rows, or "shares" of
            the codes of a codebook; those that there are.
        standard: whether codes are meant to be standard normal.
        narrow: for a phone.
    """
    panels = [(name, kind) for name, found in groups.items() for kind in ("rates", "means", "shares") if kind in found]
    columns = 1 if narrow else max(1, min(2, max(sum(name == own for own, _ in panels) for name in groups)))
    lines = math.ceil(len(panels) / columns)
    figure = _figure(narrow, 2.7 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, (name, kind) in zip(axes, panels, strict=False):
        found = groups[name]
        if kind == "rates":
            _rates(axis, found["rates"], narrow)
        elif kind == "means":
            _moments(axis, found["means"], found["variances"], standard)
        else:
            _shares(axis, found["shares"])
        if len(groups) > 1:
            axis.set_xlabel(f"{axis.get_xlabel()} of {name}")
        _legend(axis)
        _plain(axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure


def _rates(axis: Axes, values: list[float], narrow: bool) -> None:
    """Rate per unit as bars, largest first; weak and dead units in other colours."""
    order = np.argsort(values)[::-1]
    ordered = np.asarray(values)[order]
    kinds = (("carries information", INK), ("weak", ACCENT), ("dead", STONE))
    which = np.where(ordered < ZERO_RATE, 2, np.where(ordered < WEAK_RATE, 1, 0))
    for kind, (label, colour) in enumerate(kinds):
        chosen = np.flatnonzero(which == kind)
        if len(chosen):
            axis.bar(chosen, ordered[chosen], color=colour, label=f"{label} ({len(chosen)})")
    few = len(order) <= 18
    axis.set_xticks(range(len(order)) if few else [], [str(unit) for unit in order] if few else [])
    axis.set_xlabel("unit, by rate")
    axis.set_ylabel("rate, nats")


def _moments(axis: Axes, means: list[float], variances: list[float], standard: bool) -> None:
    """Mean and standard deviation of the codes of all rows, unit by unit; beside a standard normal if asked."""
    units = np.arange(len(means))
    if standard:
        axis.axhspan(-1, 1, color=STONE, alpha=0.15, linewidth=0, label="standard normal, 0 ± 1")
    axis.axhline(0, color=STONE, linewidth=0.8)
    axis.errorbar(
        units, means, yerr=np.sqrt(variances), fmt="o", markersize=3, color=INK, linewidth=1, label="codes of all rows"
    )
    axis.set_xlabel("unit")
    axis.set_ylabel("mean ± deviation")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlim(-0.7, len(means) - 0.3)


def _shares(axis: Axes, shares: list[float]) -> None:
    """How often each code of a codebook is used, the most used first."""
    ordered = np.sort(shares)[::-1]
    axis.fill_between(range(len(ordered)), ordered, step="mid", color=INK, label=f"used: {int((ordered > 0).sum())}")
    axis.axhline(1 / len(ordered), color=ACCENT, linewidth=1, label="all used evenly")
    axis.set_xlabel("code, by use")
    axis.set_ylabel("share of codes")


def labelled(image: Image.Image, columns: list[str], lines: list[str], across: str, narrow: bool = False) -> Figure:
    """A table of pictures with a word above each column and one before each line."""
    width = WIDTHS[narrow] * (1.0 if narrow else 0.8)
    figure = Figure(figsize=(width, width * image.height / image.width + 0.45), dpi=150, layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.asarray(image.convert("RGB")), interpolation="nearest", aspect="equal")
    axis.set_xticks((np.arange(len(columns)) + 0.5) * image.width / len(columns), columns)
    axis.set_yticks((np.arange(len(lines)) + 0.5) * image.height / max(len(lines), 1), lines)
    axis.tick_params(labelsize=8, length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.set_title(across, fontsize=8)
    for side in axis.spines.values():
        side.set_visible(False)
    return figure


def convergence(curve: list[dict[str, float]], narrow: bool = False) -> Figure:
    """The importance bound by number of samples, with its standard error."""
    figure = _figure(narrow, 2.8)
    axis = figure.subplots()
    samples = [row["samples"] for row in curve]
    errors = [row["stderr"] or 0 for row in curve]
    axis.errorbar(samples, [row["value"] for row in curve], yerr=errors, fmt="o-", markersize=3, color=INK, capsize=2)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_xlabel("samples K")
    axis.set_ylabel("bound on log p(x), nats")
    _plain(axis)
    return figure


def trade(points: dict[str, list[tuple[float, float]]], narrow: bool = False) -> Figure:
    """Distortion against rate: one point per run, one colour per setting, and lines of equal ELBO."""
    figure = _figure(narrow, 4.2)
    axis = figure.subplots()
    for (name, found), colour in zip(points.items(), COLOURS * 8, strict=False):
        rate, distortion = zip(*found, strict=True)
        axis.plot(rate, distortion, "o", color=colour, markersize=6, label=name)
    centres = [np.mean(found, axis=0) for found in points.values()]
    axis.plot(*zip(*sorted(map(tuple, centres)), strict=True), color=STONE, linewidth=0.8, zorder=0)
    axis.margins(0.12)
    _lines_of_equal_elbo(axis)
    axis.set_xlabel("rate, nats")
    axis.set_ylabel("distortion, nats")
    _legend(axis, 3 if narrow else 6)
    _plain(axis)
    return figure


def by_value(found: dict[str, list[list[float]]], values: list[str], narrow: bool = False) -> Figure:
    """A panel for each number: its runs and their mean, by value of a setting."""
    columns = 2 if narrow else 3
    lines = math.ceil(len(found) / columns)
    figure = _figure(narrow, (1.5 if narrow else 1.9) * lines)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, (number, runs) in zip(axes, found.items(), strict=False):
        for place, of_value in enumerate(runs):
            axis.plot([place] * len(of_value), of_value, "o", color=INK, markersize=3, alpha=0.6)
        there = [place for place, of_value in enumerate(runs) if of_value]
        axis.plot(there, [float(np.mean(runs[place])) for place in there], color=ACCENT, linewidth=1)
        axis.set_title(number, fontsize=8)
        axis.set_xticks(range(len(values)), [value if len(value) < 9 else f"{value[:8]}…" for value in values])
        _plain(axis)
        axis.tick_params(labelsize=7)
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    return figure


def quality_time(points: dict[str, list[tuple[float, float]]], narrow: bool = False) -> Figure:
    """Kernel distance against milliseconds per image, on a logarithmic axis: one point per run, one colour a family."""
    figure = _figure(narrow, 3.6)
    axis = figure.subplots()
    for (name, found), colour in zip(points.items(), COLOURS * 8, strict=False):
        times, distances = zip(*found, strict=True)
        axis.plot(times, distances, "o", color=colour, markersize=6, label=name)
    axis.set_xscale("log")
    axis.margins(0.12)
    axis.axhline(0, color=STONE, linewidth=0.8, zorder=0)
    axis.set_xlabel("time to draw an image, ms")
    axis.set_ylabel("KID")
    _legend(axis, 3 if narrow else 6)
    _plain(axis)
    return figure


def _lines_of_equal_elbo(axis: Axes) -> None:
    """rate + distortion = -ELBO, within what is shown."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    levels = np.linspace(left + low, right + high, 9)[1:-1]
    for level in levels:
        axis.plot([left, right], [level - left, level - right], color=STONE, linewidth=0.5, linestyle=":", zorder=0)
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)


def _panels(rows: list[Row]) -> list[tuple[str, list[str]]]:
    """Titles and the names of the series below them."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, int | float)))
    scheduled = [name for name in names if name in SCHEDULED]
    terms = [name for name in names if _is_term(name) and name not in scheduled]
    gradients = [name for name in names if name.startswith("gradient_norm")]
    rest = [name for name in names if name not in (*TIMES, *terms, *scheduled, *gradients)]
    return [
        ("loss terms, nats", terms or [name for name in names if name == "loss"]),
        *((name.replace("_", " "), [name]) for name in scheduled),
        ("gradient norm", gradients),
        *((_label(name), [name]) for name in rest[:4]),
    ]


def _is_term(name: str) -> bool:
    return name.endswith("_nats") and name.split("_")[0] not in ("free", "target", "capacity", "clamped")


def _label(name: str) -> str:
    """A series as a legend names it; an ELBO is drawn as its negative, beside the terms that it is the sum of."""
    words = name.removesuffix("_nats").removeprefix("gradient_norm_").replace("_", " ")
    return f"-{words.replace('elbo', 'ELBO')}" if name.endswith("elbo_nats") else words


def _series(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
    steps, values = zip(*found, strict=True)
    return np.asarray(steps), np.asarray(values, dtype=float)


def _spread(rows: list[Row], names: Iterable[str]) -> float:
    """The largest value over the smallest."""
    values = [value for name in names for value in _series(rows, name)[1] if math.isfinite(value) and value > 0]
    return max(values) / min(values) if values else 1.0


def _limit_to_late_values(axis: Axes, rows: list[Row], names: Iterable[str]) -> None:
    """Leave the first steps above the frame: they would flatten all others."""
    late = rows[len(rows) // 20 :]
    values = [
        abs(row[name]) if name.endswith("elbo_nats") else row[name] for row in late for name in names if name in row
    ]
    finite = [value for value in values if math.isfinite(value)]
    if len(late) > 20 and finite:
        low, high = min(finite), max(finite)
        margin = 0.05 * (high - low) + 1e-9
        axis.set_ylim(low - margin, high + margin)


def _legend(axis: Axes, columns: int = 3) -> None:
    """Above the axes, where it hides nothing."""
    axis.legend(
        fontsize=8,
        frameon=False,
        ncols=columns,
        handlelength=1.4,
        columnspacing=1.2,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )


def _figure(narrow: bool, height: float) -> Figure:
    return Figure(figsize=(WIDTHS[narrow], height), dpi=150, layout="constrained")


def _plain(axis: Axes) -> None:
    axis.grid(alpha=0.2)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)

"""Figures of a run, from its journal and evaluation."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lowerbound.app.report.pictures import INK

ACCENT = "#ca6702"
ZERO_RATE = 0.01  # nats; below it a unit is dead


def training(rows: list[dict[str, Any]]) -> Figure:
    """The parts of the loss over the steps."""
    names = [name for name in rows[-1] if name.endswith("_nats") or name in ("beta", "loss", "critic_loss")]
    figure = _figure(len(names))
    for axis, name in zip(_axes(figure, len(names)), names, strict=True):
        found = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*found, strict=True), color=INK, linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.2)
    return figure


def rates(values: list[float]) -> Figure:
    """Rate per unit as bars, largest first; dead units in another colour."""
    ordered = sorted(values, reverse=True)
    figure = Figure(figsize=(8, 3), dpi=120, layout="constrained")
    axis = figure.subplots()
    axis.bar(range(len(ordered)), ordered, color=[INK if v >= ZERO_RATE else ACCENT for v in ordered])
    axis.set_xlabel("unit, by rate")
    axis.set_ylabel("rate, nats")
    axis.grid(alpha=0.2, axis="y")
    return figure


def convergence(curve: list[dict[str, float]]) -> Figure:
    """The importance bound by number of samples, with its standard error."""
    figure = Figure(figsize=(8, 3), dpi=120, layout="constrained")
    axis = figure.subplots()
    samples = [row["samples"] for row in curve]
    axis.errorbar(
        samples, [row["value"] for row in curve], yerr=[row["stderr"] or 0 for row in curve], color=INK, capsize=2
    )
    axis.set_xscale("log")
    axis.set_xlabel("samples K")
    axis.set_ylabel("bound on log p(x), nats")
    axis.grid(alpha=0.2)
    return figure


def _figure(count: int) -> Figure:
    lines = -(-count // 3)
    return Figure(figsize=(9, 2.4 * lines), dpi=120, layout="constrained")


def _axes(figure: Figure, count: int) -> list[Axes]:
    lines = -(-count // 3)
    grid = figure.subplots(lines, 3, squeeze=False).flatten()
    for spare in grid[count:]:
        spare.remove()
    return list(grid[:count])

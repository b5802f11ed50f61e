"""The page of a look at requests: alerts, causes, and what drifted, drawn by the model itself"""

from __future__ import annotations

from pathlib import Path

from lowerbound.app.report import pictures
from lowerbound.app.report.page import Drawn, Tile, picture, render
from lowerbound.errors import UsageError
from lowerbound.files import write_bytes, write_text
from lowerbound.lab.run import Run
from lowerbound.model.spec import DataSpec
from lowerbound.service.monitoring.alerts import ALERTS
from lowerbound.service.monitoring.looking.baseline import moment
from lowerbound.service.monitoring.looking.explain import Direction, Explanation, Shown
from lowerbound.service.monitoring.looking.look import Look
from lowerbound.service.monitoring.looking.monitor import Told


def write_drifted(out: Path, told: Told) -> None:
    """Write the page of a look, and each picture beside it under the name that its JSON gives.

    Args:
        out: the page, .html.
        told: the look.
    """
    spec, behind = Run(told.version.path).data_spec(), told.explanation
    ways = [] if behind is None else [(way, _way(way, spec)) for way in behind.directions]
    for place, (_, drawn) in enumerate(ways):
        if drawn is not None:
            write_bytes(out.with_name(f"{told.id}-{place}.png"), drawn.png)
    page = render(
        "drifted.html",
        {
            "name": f"{told.model}:{told.version.number}",
            "look": told.look,
            "since": moment(told.look.since),
            "until": moment(told.look.until),
            "alerts": [ALERTS[name] for name in told.look.alerts],
            "tiles": _tiles(told.look),
            "behind": behind,
            "ways": ways,
            "shown": [] if behind is None else [(one, _pairs(one, spec)) for one in behind.shown],
            "unsaid": _unsaid(behind, told.look),
            "errors": _errors(told.look),
        },
    )
    write_text(out, page)


def _tiles(look: Look) -> list[Tile]:
    asked = look.requests + sum(look.refused.values())
    refused = sum(look.refused.values()) / max(1, asked)
    found = [
        Tile("requests", f"{asked:,}", "", f"{look.requests:,} with facts"),
        Tile("refused by the gate", f"{refused:.1%}", "", ", ".join(look.refused) or "none"),
        Tile("alerts", str(len(look.alerts)), "", f"of {len(look.verdicts) + len(look.signs)} that could be"),
    ]
    if look.errors is not None:
        ratio = look.errors.mean / max(look.errors.ordinary_mean, 1e-12)
        found.append(Tile("mean error", f"x {ratio:.2f}", "", "of that of ordinary requests"))
    return found


def _errors(look: Look) -> str:
    """Whether reconstruction suffered, as a sentence."""
    if look.errors is None:
        return "No errors of reconstruction are known of these requests."
    found = look.errors
    verdict = "Reconstruction suffered" if found.suffered else "Reconstruction did not suffer"
    return (
        f"{verdict}: the mean error is {found.mean:.3g}, that of ordinary requests {found.ordinary_mean:.3g}, and "
        f"{found.above:.1%} of the errors lie above the 99th percentile of ordinary ones."
    )


def _way(way: Direction, spec: DataSpec) -> Drawn | None:
    try:
        made = pictures.table(way.rows[None], spec)
    except UsageError:  # rows that have no picture
        return None
    side = "up" if way.moved >= 0 else "down"
    caption = (
        f"From {way.values[0]:+g} to {way.values[-1]:+g} deviations of ordinary requests, decoded by the model. The "
        f"mean of the requests went {side} by {abs(way.moved):.2f} of these; they spread {way.spread:.2f} times as far."
    )
    return picture("", way.label, caption, f"{len(way.rows)} decoded rows: {way.label}.", made)


def _pairs(shown: Shown, spec: DataSpec) -> Drawn | None:
    try:
        made = pictures.pairs(shown.rows, shown.made, spec, 8)
    except UsageError:
        return None
    return picture(
        "", shown.name, "Inputs above what the model makes of them.", f"Inputs and reconstructions: {shown.name}.", made
    )


def _unsaid(behind: Explanation | None, look: Look) -> dict[str, str]:
    return {**look.skipped, **({} if behind is None else behind.unsaid)}

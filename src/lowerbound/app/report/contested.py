"""The page of a contest: one table, sentences that follow from it, and what each family makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lowerbound.app.report import figures, pictures
from lowerbound.app.report.page import Drawn, Section, chart, picture, render, save_figures
from lowerbound.files import write_text
from lowerbound.lab.contest import Outcome, Plan
from lowerbound.lab.data.load import load_data
from lowerbound.lab.evaluation.case import Case
from lowerbound.lab.generation import use
from lowerbound.lab.run import Run
from lowerbound.lab.standings import Standing, advice, standings, table

COLUMNS = 16
PAGE = "contest.html"


def write_contested(folder: Path, plan: Plan, outcomes: Sequence[Outcome], data_dir: Path | None = None) -> Path:
    """Write `contest.html` and its figures.

    Args:
        folder: of the contest.
        plan: of it.
        outcomes: of the runs that are done.
        data_dir: where data lie.

    Returns:
        The path of the page.
    """
    found = standings(plan, outcomes)
    sections = [Section("pictures", "Pictures", "The first seed of each.", _pictures(folder, found, data_dir))]
    save_figures(folder / "figures", sections)
    page = render(
        "contested.html",
        {
            "plan": plan,
            "names": [one.name for one in found],
            "done": len(outcomes),
            "planned": plan.seeds * len(plan.entrants),
            "advice": advice(found),
            "lines": table(found),
            "failures": [(outcome.run, outcome.failed) for outcome in outcomes if outcome.failed],
            "lacks": _lacks(found),
            "sections": sections,
        },
    )
    write_text(folder / PAGE, page)
    return folder / PAGE


def _lacks(found: Sequence[Standing]) -> list[tuple[str, str]]:
    """What each family was asked for and refused, in its own sentence."""
    lacks = []
    for one in found:
        told = one.outcomes[0].told
        lacks += [(one.name, told["encode"])] if "encode" in told else []
        lacks += [(one.name, told["likelihood"])] if one.numbers and one.likelihood == "none" else []
    return lacks


def _pictures(folder: Path, found: Sequence[Standing], data_dir: Path | None) -> list[Drawn]:
    """Samples of each family below rows of the data, and quality against the time to draw."""
    drawn = [one for one in found if one.numbers]
    if not drawn:
        return []
    sets: dict[str, Tensor] = {}
    for one in drawn:
        run = Run(folder / one.outcomes[0].run)
        recipe, model = run.recipe(), run.model()
        data = load_data(recipe.data, data_dir, run.quarantine_path)
        rows = Case(model, data, recipe.evaluation).first(COLUMNS)
        sets.setdefault("data", rows.raw)
        sets[one.name] = use.sample(model, len(rows.raw), context=rows.context)
    spec = model.data
    made: list[Drawn] = []
    if len(spec.event) != 3 or spec.event[0] in (1, 3):
        made.append(
            picture(
                "samples.png",
                "Samples",
                f"From top to bottom: {', '.join(sets)}. Samples are not chosen.",
                f"{COLUMNS} held-out rows, and as many samples of {len(drawn)} families.",
                pictures.stack(sets, spec, COLUMNS),
                pictures.stack({name: rows[: COLUMNS // 2] for name, rows in sets.items()}, spec, COLUMNS // 2),
            )
        )
    points = {
        one.name: [
            (1e3 * time, distance)
            for time, distance in zip(
                one.numbers["sample_s"].values, one.numbers["kernel_distance"].values, strict=True
            )
        ]
        for one in drawn
    }
    made.append(
        chart(
            "quality-time.png",
            "Quality against time",
            "Each point is a run; towards the lower left samples are nearer to the data and sooner there.",
            "KID of each run against the time that it takes to draw an image.",
            lambda narrow: figures.quality_time(points, narrow),
        )
    )
    return made

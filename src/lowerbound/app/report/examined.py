"""The page of an examination."""

from __future__ import annotations

from pathlib import Path

from lowerbound.app.report import pictures
from lowerbound.app.report.page import Drawn, picture, render
from lowerbound.files import write_text
from lowerbound.lab.doctor.examine import Examination
from lowerbound.lab.doctor.patient import Diagnosis
from lowerbound.model.spec import DataSpec

COLUMNS = 8


def write_examination(out: Path, name: str, found: Examination, spec: DataSpec) -> None:
    """Write the page.

    Args:
        out: the page, .html.
        name: of what was examined.
        found: the examination.
        spec: of the rows that are shown.
    """
    diagnoses = [(diagnosis, _picture(diagnosis, spec)) for diagnosis in found.found]
    page = render(
        "examined.html",
        {"name": name, "diagnoses": diagnoses, "healthy": found.healthy, "skipped": found.skipped},
    )
    write_text(out, page)


def _picture(diagnosis: Diagnosis, spec: DataSpec) -> Drawn | None:
    """Rows of each kind below one another; None where there is nothing to look at."""
    if not diagnosis.rows or len(spec.event) != 3 or spec.event[0] not in (1, 3):
        return None
    kinds = list(diagnosis.rows)
    return picture(
        "",
        "",
        f"From top to bottom: {', '.join(kinds)}.",
        f"Rows that show: {diagnosis.symptom}.",
        pictures.stack(diagnosis.rows, spec, COLUMNS),
    )

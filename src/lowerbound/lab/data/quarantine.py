"""The quarantine of a run: which rows and files were left out, so that whoever reads its data leaves out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowerbound.errors import DataError
from lowerbound.files import read_json
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.data.validate import Report

FILE = "quarantine.json"


def record(data: Dataset, report: Report) -> dict[str, Any]:
    """The content of `quarantine.json`: what was left out, and why."""
    return {
        "rows": {
            split: [{"row": row, "name": data.split(split).name(row)} for row in places]
            for split, places in report.left_out().items()
        },
        "files": [name for finding in report.errors if not finding.rows for name in finding.names],
        "findings": [finding.sentence() for finding in report.errors],
    }


def left_out(report: Report) -> str:
    """What permissive mode does, in one sentence; "" for nothing."""
    if not report.errors:
        return ""
    rows = sum(len(places) for places in report.left_out().values())
    files = sum(len(finding.names) for finding in report.errors if not finding.rows and finding.check != "constant")
    return (
        f"{rows:,} rows and {files:,} files are left out and listed in {FILE}: "
        f"{'; '.join(finding.sentence() for finding in report.errors)}"
    )


def apply(data: Dataset, path: Path) -> Dataset:
    """The data without what a run's quarantine lists.

    Raises:
        DataError: the file is damaged, or the data are no longer those that it was written for.
    """
    content = read_json(path)
    try:
        files = set(content["files"])
        listed = {
            split: [(entry["row"], entry["name"]) for entry in entries] for split, entries in content["rows"].items()
        }
        for split, rows in listed.items():
            for row, name in rows:
                if row >= len(data.split(split)) or data.split(split).name(row) != name:
                    raise DataError(
                        f"{path} leaves out {name}, which is no longer row {row} of {split}: the data have changed; "
                        "restore them, or train again."
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what training wrote ({error}); restore it, or train again.") from None
    for finding in data.findings:
        known = {name for rows in listed.values() for _, name in rows} | files
        new = [name for name in finding.names if name not in known]
        if finding.severity == "error" and new:
            raise DataError(f"{finding.what}: {new[0]}, which was not so when the run began; mend it, or train again.")
    return data.without({split: [row for row, _ in rows] for split, rows in listed.items()})

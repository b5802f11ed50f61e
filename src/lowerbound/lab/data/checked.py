"""The data of a run, validated when it begins and the same ever after."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowerbound.lab.data.load import load_data, read_data
from lowerbound.lab.data.quarantine import apply, left_out, record
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.data.validate import Check, enforce, likelihood_of, validate


def checked_data(
    table: Mapping[str, Any],
    model: Mapping[str, Any],
    *,
    check: Check,
    quarantine: Path,
    begun: bool,
    data: Dataset | None = None,
    data_dir: Path | None = None,
) -> tuple[Dataset, dict[str, Any] | None]:
    """The data to train on.

    Args:
        table: a recipe's `data` table.
        model: its `model` table, which names the likelihood.
        check: "strict" refuses data with errors, "permissive" leaves rows out and warns, "off" looks at nothing.
        quarantine: the run's list of what is left out; where there is one, it decides.
        begun: whether the run has begun; then its data are what they were, and are not checked again.
        data: rows of one's own instead of the table's.
        data_dir: where the table's data lie.

    Returns:
        The data, and what `quarantine` has to say if rows were left out now.

    Raises:
        DataError: the data cannot be read, or the check refuses them.
    """
    if quarantine.exists() and data is not None:
        return apply(data, quarantine), None
    if begun or check == "off" or quarantine.exists():
        return data or load_data(table, data_dir, quarantine), None
    found = data or read_data(table, data_dir)
    report = validate(found, likelihood_of(model))
    kept = enforce(found, report, check)
    if not report.errors:
        return kept, None
    warnings.warn(left_out(report), stacklevel=3)
    return kept, record(found, report)

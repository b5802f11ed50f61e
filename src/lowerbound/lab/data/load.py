"""The table of kinds of data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowerbound.kinds import Kinds, resolve
from lowerbound.lab.data.digits import digits
from lowerbound.lab.data.gmm2d import gmm2d
from lowerbound.lab.data.mnist import mnist
from lowerbound.lab.data.rows import Dataset

DATA: Kinds = {"gmm2d": gmm2d, "digits": digits, "mnist": mnist}


def load_data(table: Mapping[str, Any], data_dir: Path | None = None) -> Dataset:
    """The data of a recipe's `data` table.

    Args:
        table: `kind` and its settings.
        data_dir: where files lie; by default the folder named by the environment variable LOWERBOUND_DATA.

    Raises:
        RecipeError: an unknown kind or setting.
        DataError: files that are missing or wrong; names the file.
    """
    named = os.environ.get("LOWERBOUND_DATA")
    make, settings = resolve(table, DATA, "data")
    dataset: Dataset = make(data_dir or (Path(named) if named else None), **settings)
    return dataset

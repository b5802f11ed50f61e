"""The table of kinds of data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lowerbound.errors import DataError, UsageError
from lowerbound.kinds import Groups, Kinds, resolve
from lowerbound.lab.data.arrays import arrays, idx
from lowerbound.lab.data.captions import Pretrained, Reading, Words
from lowerbound.lab.data.cifar10 import cifar10
from lowerbound.lab.data.collected import collected
from lowerbound.lab.data.digits import digits
from lowerbound.lab.data.dsprites import dsprites
from lowerbound.lab.data.frey import frey_faces
from lowerbound.lab.data.given import GivenFrames, with_given_frames
from lowerbound.lab.data.images import images
from lowerbound.lab.data.latents import latents_of, with_contexts
from lowerbound.lab.data.mnist import fashion_mnist, mnist
from lowerbound.lab.data.moving import moving_mnist
from lowerbound.lab.data.planar import gmm2d, grid2d
from lowerbound.lab.data.quarantine import apply
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.data.series import series
from lowerbound.lab.data.shapes import captioned_shapes
from lowerbound.lab.data.shapes3d import shapes3d_occupancy, shapes3d_points, shapes3d_voxels
from lowerbound.lab.data.shards import shards
from lowerbound.lab.data.splits import SPLITS, Split
from lowerbound.lab.data.table import table as table_data
from lowerbound.lab.data.text import text
from lowerbound.lab.data.video import video
from lowerbound.lab.data.views import shapes3d_views
from lowerbound.lab.data.without import without_labels
from lowerbound.lab.run import Run
from lowerbound.model.spec import Count, DataSpec


def latents(
    data_dir: Path | None,
    *,
    run: str,
    context: Literal["none", "label", "text"] = "none",
    labelled: Count | None = None,
) -> Dataset:
    """The codes of the rows that a finished run was trained and judged on, for a second stage.

    Args:
        data_dir: where that run's data lie.
        run: folder of the run, from where the command is given.
        context: "label" makes models of the codes conditional on the label of their row, "text" on its text.
        labelled: number of training rows that keep their label as context.
    """
    first = Run(run)
    table = first.recipe().data
    if context != "text":
        rows = load_data(table, data_dir, first.quarantine_path)
        return latents_of(first.model(), rows, context, labelled, first.path)
    described = load_data({**table, "context": "text"}, data_dir, first.quarantine_path)
    return with_contexts(latents_of(first.model(), described, where=first.path), described)


def some_labels(
    data_dir: Path | None, *, data: Mapping[str, Any], without: Annotated[list[int], Field(min_length=1)]
) -> Dataset:
    """The rows of other data that have none of some labels.

    Args:
        data_dir: where those data lie.
        data: their table.
        without: labels that are left out.
    """
    return without_labels(read_data(data, data_dir), without)


def given_frames(
    data_dir: Path | None, *, data: Mapping[str, Any], frames: GivenFrames = ((), (0,), (0, -1))
) -> Dataset:
    """Clips, or the codes of clips, of which some frames are given: the context of models that make the others.

    Args:
        data_dir: where those data lie.
        data: their table, of rows (channels, frames, height, width).
        frames: which frames are given, by number; each row comes once with each of these choices. [] gives none, [0]
            the first, [0, -1] the first and the last.
    """
    return with_given_frames(load_data(data, data_dir), frames)


DATA: Kinds = {
    "gmm2d": gmm2d,
    "grid2d": grid2d,
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "frey-faces": frey_faces,
    "cifar10": cifar10,
    "dsprites": dsprites,
    "moving-mnist": moving_mnist,
    "images": images,
    "arrays": arrays,
    "idx": idx,
    "table": table_data,
    "text": text,
    "series": series,
    "video": video,
    "shards": shards,
    "latents": latents,
    "collected": collected,
    "some-labels": some_labels,
    "captioned-shapes": captioned_shapes,
    "given-frames": given_frames,
    "shapes3d-voxels": shapes3d_voxels,
    "shapes3d-points": shapes3d_points,
    "shapes3d-occupancy": shapes3d_occupancy,
    "shapes3d-views": shapes3d_views,
}
DATA_PARTS: Groups = {Split: SPLITS, Reading: {"words": Words, "pretrained": Pretrained}}


def load_data(table: Mapping[str, Any], data_dir: Path | None = None, quarantine: Path | None = None) -> Dataset:
    """The data of a recipe's `data` table.

    Args:
        table: `kind` and its settings.
        data_dir: where files lie; by default the folder named by the environment variable LOWERBOUND_DATA.
        quarantine: the list of what a run leaves out, where there is such a file.

    Raises:
        RecipeError: an unknown kind or setting.
        DataError: files that are missing or wrong, or hold rows that are; names the first of them.
    """
    dataset = read_data(table, data_dir)
    if quarantine is not None and quarantine.exists():
        return apply(dataset, quarantine)
    wrong = [finding for finding in dataset.findings if finding.severity == "error"]
    if wrong:
        more = f" (and {len(wrong) - 1} more findings)" if len(wrong) > 1 else ""
        raise DataError(f"{wrong[0].sentence()}{more}; mend the data, or leave these out with --check permissive.")
    return dataset


def reading_of(table: Mapping[str, Any], spec: DataSpec) -> Reading:
    """How texts become contexts of a model.

    Args:
        table: the recipe's `data`.
        spec: the facts of the data.

    Raises:
        UsageError: contexts of these data are not texts.
    """
    if spec.words:
        return Words(spec.words, spec.context)
    if "text" not in table:
        raise UsageError("a text was given, but this model is not conditional on texts; leave it out.")
    make, settings = resolve(table["text"], DATA_PARTS[Reading], "data.text")
    reading: Reading = make(spec.words, spec.context, **settings)
    return reading


def read_data(table: Mapping[str, Any], data_dir: Path | None = None) -> Dataset:
    """The data of a recipe's `data` table, with the findings about what could not be read or cannot be.

    Raises:
        RecipeError: an unknown kind or setting.
        DataError: nothing can be made of the files.
    """
    named = os.environ.get("LOWERBOUND_DATA")
    make, settings = resolve(table, DATA, "data", DATA_PARTS)
    dataset: Dataset = make(data_dir or (Path(named) if named else None), **settings)
    return dataset

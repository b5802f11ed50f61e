"""The sections of a run's report: what it generates, how it was trained, and what its latents carry."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from lowerbound.app.report import figures, pictures
from lowerbound.app.report.page import Drawn, Section, Still, Strip, chart, picture, png
from lowerbound.errors import NotSupportedError, ShapeError
from lowerbound.files import write_bytes
from lowerbound.lab.data.rows import Batch, Dataset
from lowerbound.lab.film import Frame, has_picture, read_film
from lowerbound.lab.generation import paths, use
from lowerbound.lab.run import Run
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec

SHOWN, POINTS = 64, 2000  # rows in a picture: images, points
PAIRS, UNITS, STEPS = 6, 10, 11  # ways, units that are traversed, and steps of each
SIDE = 16  # codes along each axis of the plane
STILL = 150  # pixels that a still is enlarged towards

Judged = dict[str, Any]
T = TypeVar("T")


def of_run(run: Run, model: Family, dataset: Dataset, judged: Judged) -> list[Section]:
    """All sections, some of them empty."""
    seen = has_picture(model.data)
    rows = _held_out(dataset, POINTS if model.data.event == (2,) else SHOWN)
    return [
        Section(
            "generated",
            "What it makes",
            "Samples show what the model believes in; reconstructions show what its code keeps.",
            _generated(model, rows) if seen else [],
        ),
        Section(
            "training",
            "How it learned",
            "From left to right: the steps of training.",
            _training(run),
            _film(run, model),
        ),
        Section(
            "latents",
            "What the code carries",
            "A unit with a rate near 0 says nothing about a row; the others should each change something one can name.",
            [*_health(judged, _is_standard(run)), *(_ways(model, rows, judged) if seen else [])],
        ),
        Section(
            "convergence",
            "How tight the bound is",
            "The importance bound rises with the number of samples towards log p(x).",
            _convergence(judged),
        ),
    ]


def save_film(run: Run, spec: DataSpec) -> None:
    """Write the film of training as `figures/film.gif`, where there is one."""
    frames = read_film(run.film)
    if len(frames) < 2:
        return
    seen = [_still(frame.samples, spec, frames).convert("RGB") for frame in frames]
    buffer = io.BytesIO()
    pace = [400] * (len(seen) - 1) + [1600]
    seen[0].save(buffer, format="GIF", save_all=True, append_images=seen[1:], duration=pace, loop=0)
    write_bytes(run.figures / "film.gif", buffer.getvalue())


# ------------------------------------------------------------------------------------------------------ what it makes


def _generated(model: Family, rows: Batch) -> list[Drawn]:
    """Samples of the prior, and reconstructions beside inputs."""
    spec = model.data
    return _points(model, rows) if spec.event == (2,) else _images(model, rows)


def _points(model: Family, rows: Batch) -> list[Drawn]:
    generated = use.sample(model, len(rows.raw), context=rows.context, observe="sample")
    sets = {"real": rows.raw, "generated": generated}
    drawn = [
        picture(
            "samples.png",
            "Real and generated points",
            "Draws of p(x|z) for z from the prior, beside held-out rows. Look for clusters that are missing, bridges "
            "between them, and a wrong width.",
            f"Two scatter plots of {len(rows.raw):,} points on the same axes: held-out rows and samples of the model.",
            pictures.scatter(sets, model.data),
        )
    ]
    if (back := _try(lambda: use.reconstruct(model, rows.raw, rows.context))) is not None:
        drawn.append(
            picture(
                "reconstructions.png",
                "Reconstructions",
                "Held-out rows, and what is left of them after their code. What the code leaves out is drawn together.",
                "Two scatter plots on the same axes: held-out rows and their reconstructions.",
                pictures.scatter({"original": rows.raw, "reconstruction": back}, model.data),
            )
        )
    return drawn


def _images(model: Family, rows: Batch) -> list[Drawn]:
    spec = model.data
    generated = use.sample(model, len(rows.raw), context=rows.context)
    drawn = [
        picture(
            "samples.png",
            "Samples",
            "The point of p(x|z) for z from the prior. Look for variety, and for images that are of no kind.",
            f"A grid of {len(rows.raw)} images sampled from the model.",
            pictures.gallery(generated, spec),
        )
    ]
    if (back := _try(lambda: use.reconstruct(model, rows.raw, rows.context))) is not None:
        drawn.append(
            picture(
                "reconstructions.png",
                "Reconstructions",
                "Held-out originals, and below each its reconstruction from the posterior's point. Blur is what the "
                "code does not carry; another shape means that the row lies outside of what was learned.",
                "Lines of held-out images, each with its reconstruction below it.",
                pictures.pairs(rows.raw[:32], back[:32], spec, 8),
            )
        )
    return drawn


# ------------------------------------------------------------------------------------------------------ how it learned


def _training(run: Run) -> list[Drawn]:
    journal = read_journal(run.journal_path)
    if not journal:
        return []
    return [
        chart(
            "training.png",
            "Loss terms, and what was scheduled",
            "Means over the batch of each recorded step. Minus the ELBO is the sum of distortion and rate, never "
            "weighted or annealed. Look for a rate that falls to 0 (the code is not used), for a jump where a schedule "
            "ends, and for curves that still fall at the end (train longer).",
            "Curves over the steps of training: distortion, rate and minus the ELBO; below them schedules and the norm "
            "of the gradient.",
            lambda narrow: figures.training(journal, narrow),
        )
    ]


def _film(run: Run, model: Family) -> list[Strip]:
    """Samples, and reconstructions, after a few steps each."""
    frames, spec = read_film(run.film), model.data
    if len(frames) < 2 or not has_picture(spec):
        return []
    label = [f"{frame.step:,}" for frame in frames]
    samples = [Still(name, png(_still(frame.samples, spec, frames))) for name, frame in zip(label, frames, strict=True)]
    steps = f"after {', '.join(label)} steps"
    strips = [
        Strip(
            "Samples during training",
            f"The same noise {steps}. Also as a film: figures/film.gif.",
            f"Small pictures of samples {steps}.",
            samples,
        )
    ]
    last = frames[-1]
    if last.originals is not None and spec.event != (2,):
        stills = [
            Still(name, png(_still(frame.reconstructions, spec, frames)))
            for name, frame in zip(label, frames, strict=True)
            if frame.reconstructions is not None
        ]
        original = Still("original", png(_still(last.originals, spec, frames)))
        strips.append(
            Strip(
                "Reconstructions during training",
                f"The same held-out rows {steps}, and last of all the rows themselves.",
                f"Small pictures of reconstructions {steps}.",
                [*stills, original],
            )
        )
    return strips


def _still(rows: Tensor, spec: DataSpec, frames: list[Frame]) -> Image.Image:
    """The rows of a frame as a small picture; points with the axes of the whole film."""
    if spec.event == (2,):
        last = frames[-1].samples if frames[-1].originals is None else frames[-1].originals
        return pictures.dots(rows, last)
    return pictures.small(rows, spec, 2, STILL)


# ------------------------------------------------------------------------------------------------ what the code carries


def _is_standard(run: Run) -> bool:
    """Whether codes are meant to be standard normal."""
    model = run.recipe().model
    return model.get("kind") == "vae" and model.get("prior", {}).get("kind", "standard") == "standard"


def _health(judged: Judged, standard: bool) -> list[Drawn]:
    """One picture of all groups of latents."""
    groups = {name: _series(found) for name, found in judged.get("latents", {}).items()}
    groups = {name: found for name, found in groups.items() if found}
    if not groups:
        return []
    told = [_told(name if len(judged["latents"]) > 1 else "", found) for name, found in judged["latents"].items()]
    return [
        chart(
            "latents.png",
            "The code",
            f"Below {figures.ZERO_RATE} nats a unit is dead, below {figures.WEAK_RATE} weak; a few long bars and many "
            f"dead ones mean that fewer units would do. {' '.join(told)}",
            f"Rates, and mean and deviation of the codes of all held-out rows, of {len(groups)} groups of latents.",
            lambda narrow: figures.health(groups, standard, narrow),
        )
    ]


def _series(found: dict[str, Any]) -> dict[str, list[float]]:
    """What can be drawn of a group."""
    names = {
        "rates": "rate_per_unit_nats",
        "means": "aggregate_mean_per_unit",
        "variances": "aggregate_variance_per_unit",
        "shares": "codebook_share_per_code",
    }
    given = {short: found[name]["value"] for short, name in names.items() if name in found}
    return {short: values for short, values in given.items() if len(values) > 1}


def _told(name: str, found: dict[str, Any]) -> str:
    """What is said of a group."""
    words = {
        "mutual_information_nats": "the code says {:.2f} nats about the row (mutual information)",
        "aggregate_kl_nats": "all codes together are {:.2f} nats from the prior",
        "total_correlation_nats": "units share {:.2f} nats (total correlation)",
        "prior_hole_share": "{:.1%} of prior draws fall in holes (1 % is expected)",
        "outside_prior_share": "{:.1%} of codes lie outside the prior's 99 % region (1 % is expected)",
        "prior_cells_reached": "codes reach {:.0%} of the prior's cells",
        "codebook_usage": "{:.0%} of the codes are used",
        "codebook_perplexity": "evenly as {:.0f} would be",
    }
    said = "; ".join(form.format(found[key]["value"]) for key, form in words.items() if key in found)
    return f"{name}: {said}." if name and said else _sentence(said)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _ways(model: Family, rows: Batch, judged: Judged) -> list[Drawn]:
    """Traversals, interpolations and the plane of a model with two latents; what a model cannot do is left out."""
    drawn = [_try(partial(make, model, rows, judged)) for make in (_traversals, _interpolations, _plane)]
    return [figure for figure in drawn if figure is not None]


def _traversals(model: Family, rows: Batch, judged: Judged) -> Drawn:
    group = paths.continuous_groups(use.encode(model, rows.raw[:1], _first(rows)))[0]
    several = len(model.latents) > 1
    found = judged.get("results", {}).get(f"rate_per_unit_{group}_nats" if several else "rate_per_unit_nats", {})
    size = torch.Size(model.latents[group]).numel()
    rates = torch.tensor(found.get("value", [0.0] * size))
    units = rates.argsort(descending=True, stable=True)[:UNITS].tolist()
    start = rows.raw[:1] if several else None
    values = paths.traverse(model, start, units, STEPS, context=_first(rows), group=group)[0]
    place = "the first held-out row" if several else "the mean of the prior"
    amounts = ["-3", *[""] * (STEPS // 2 - 1), "0", *[""] * (STEPS // 2 - 1), "3"]
    return _table(
        "traversal.png",
        "Traversals",
        f"Each line moves one unit from -3 to 3 standard deviations of the prior, all others at {place}. The units "
        "with the largest rates come first. Look for one change per line, and for lines that change nothing.",
        f"Lines of {STEPS} pictures, one line for each of {len(units)} units.",
        values,
        model,
        (amounts, [str(unit) for unit in units], "standard deviations from the prior's mean; lines are units"),
    )


def _interpolations(model: Family, rows: Batch, judged: Judged) -> Drawn:
    pairs = paths.random_pairs(PAIRS, len(rows.raw))
    contexts = [None if rows.context is None else rows.context.select(pairs[:, side]) for side in (0, 1)]
    values = paths.interpolate(
        model, rows.raw[pairs[:, 0]], rows.raw[pairs[:, 1]], STEPS, context=contexts[0], end_context=contexts[1]
    )
    return _table(
        "interpolation.png",
        "Interpolations",
        "Straight lines between the codes of two held-out rows each. Look for every step to be of some kind: a middle "
        "that is a mere blend of both ends tells of a hole between them.",
        f"Lines of {STEPS} pictures, each from one held-out row to another.",
        values,
        model,
        (["one", *[""] * (STEPS - 2), "other"], [""] * len(values), ""),
    )


def _table(
    file: str, title: str, caption: str, alt: str, rows: Tensor, model: Family, words: tuple[list[str], list[str], str]
) -> Drawn:
    """Rows (lines, columns, *event) with a word for each column and line; points as paths in the plane."""
    image = pictures.table(rows, model.data)
    if model.data.event == (2,):
        return picture(file, title, caption, alt, image)
    return chart(file, title, caption, alt, lambda narrow: figures.labelled(image, *words, narrow))


def _plane(model: Family, rows: Batch, judged: Judged) -> Drawn:
    values = paths.manifold(model, SIDE, _first(rows))
    return picture(
        "plane.png",
        "The plane of both latents",
        "Codes on a grid of equal probability under the prior, decoded.",
        f"A grid of {SIDE} by {SIDE} decoded codes.",
        pictures.table(values, model.data),
    )


def _first(rows: Batch) -> Any:
    return None if rows.context is None else rows.context.select(slice(0, 1))


# ---------------------------------------------------------------------------------------------------------- the bound


def _convergence(judged: Judged) -> list[Drawn]:
    curve = judged.get("curves", {}).get("importance_bound_nats")
    if not curve:
        return []
    return [
        chart(
            "convergence.png",
            "Convergence of the bound",
            "Each point is a lower bound; a curve that still climbs at its right end has not converged, and the truth "
            "is higher. Bars are standard errors over rows.",
            f"The importance bound from {curve[0]['samples']} to {curve[-1]['samples']} samples: from "
            f"{curve[0]['value']:.2f} to {curve[-1]['value']:.2f} nats.",
            lambda narrow: figures.convergence(curve, narrow),
        )
    ]


def _held_out(dataset: Dataset, count: int) -> Batch:
    return dataset.test.take(torch.arange(min(count, len(dataset.test))))


def _try(make: Callable[[], T]) -> T | None:
    """What is made, or None where this model cannot have it."""
    try:
        return make()
    except (NotSupportedError, ShapeError):
        return None

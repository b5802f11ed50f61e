"""The report of a run: figures, and one page that opens offline."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from matplotlib.figure import Figure
from PIL import Image

from lowerbound.app.report import figures, pictures
from lowerbound.errors import DataError, NotSupportedError
from lowerbound.files import read_json, write_bytes, write_text
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.generation import use
from lowerbound.lab.run import Run
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.families.family import Family

SHOWN = 64
POINTS = 2000


@dataclass(frozen=True)
class Drawn:
    """A figure of the page."""

    file: str
    title: str
    caption: str
    png: bytes
    smooth: bool

    @property
    def data(self) -> str:
        """The picture inside the page."""
        return base64.b64encode(self.png).decode()


def write_report(
    run: Run | Path | str,
    *,
    data: Dataset | None = None,
    data_dir: Path | None = None,
    model: Family | None = None,
) -> Path:
    """Draw a finished run into `figures/` and write `report.html`, one self-contained file.

    Args:
        run: the run or its folder.
        data: rows of one's own instead of the recipe's data.
        data_dir: where the recipe's data lie.
        model: a model of one's own that the recipe cannot build.

    Returns:
        The path of the page.
    """
    run = run if isinstance(run, Run) else Run(run)
    recipe = run.recipe()
    trained = run.model(model)
    dataset = data or load_data(recipe.data, data_dir)
    judged = _judged(run)
    drawn = [*_pictures(trained, dataset), *_curves(run, judged)]
    for figure in drawn:
        write_bytes(run.figures / figure.file, figure.png)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (resources.files("lowerbound.app.report") / "report.html").read_text(encoding="utf-8")
    )
    page = template.render(
        name=recipe.name,
        description=recipe.description,
        path=run.path,
        results=[_row(name, result) for name, result in judged.get("results", {}).items()],
        refused=judged.get("refused", {}),
        protocol=", ".join(f"{key}: {_plain(value)}" for key, value in judged.get("protocol", {}).items()),
        figures=drawn,
        recipe=json.dumps(recipe.dump(), indent=2),
    )
    write_text(run.report_path, page)
    return run.report_path


def _judged(run: Run) -> dict[str, Any]:
    """What `evaluation.json` says; nothing where there is none."""
    if not run.evaluation_path.exists():
        return {}
    found = read_json(run.evaluation_path)
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, dict) or not all(
        isinstance(result, dict) and {"value", "stderr", "kind"} <= result.keys() for result in results.values()
    ):
        raise DataError(f"{run.evaluation_path} is not what `lowerbound evaluate` wrote; run that again.")
    return found


def _pictures(model: Family, dataset: Dataset) -> list[Drawn]:
    """What can be seen: samples and reconstructions, where rows have a picture."""
    spec = model.data
    points = spec.event == (2,)
    if not points and (len(spec.event) != 3 or spec.event[0] not in (1, 3)):
        return []
    count = POINTS if points else SHOWN
    rows = dataset.test.take(torch.arange(min(count, len(dataset.test))))
    context = rows.context
    drawn = []
    if points:
        generated = use.sample(model, len(rows.raw), context=context, observe="sample")
        picture = pictures.scatter({"real": rows.raw, "generated": generated}, spec)
        drawn.append(
            _drawn("samples.png", "Real and generated", "Draws of p(x|z) for z from the prior.", picture, True)
        )
    else:
        generated = use.sample(model, len(rows.raw), context=context)
        picture = pictures.gallery(generated, spec)
        drawn.append(_drawn("samples.png", "Samples", "The point of p(x|z) for z from the prior.", picture))
    try:
        restored = use.reconstruct(model, rows.raw, context)
    except NotSupportedError:
        return drawn
    picture = pictures.pairs(rows.raw, restored, spec)
    caption = "Held-out originals, and below each its reconstruction from the posterior's point."
    return [*drawn, _drawn("reconstructions.png", "Reconstructions", caption, picture, points)]


def _curves(run: Run, judged: dict[str, Any]) -> list[Drawn]:
    """What was measured: latents, convergence of the bound, training."""
    drawn = []
    for name, result in judged.get("results", {}).items():
        if name.startswith("rate_per_unit") and len(result["value"]) > 1:
            caption = f"Mean over held-out rows; units below {figures.ZERO_RATE} nats are dead (other colour)."
            drawn.append(_plot(f"{name}.png", "Rate per unit", caption, figures.rates(result["value"])))
    curve = judged.get("curves", {}).get("importance_bound_nats")
    if curve:
        caption = "Each point is a lower bound; a curve that still climbs has not converged."
        drawn.append(_plot("convergence.png", "Convergence of the bound", caption, figures.convergence(curve)))
    journal = read_journal(run.journal_path)
    if journal:
        caption = "Means over the batch of each recorded step; the ELBO is never weighted or annealed."
        drawn.append(_plot("training.png", "Training", caption, figures.training(journal)))
    return drawn


def _plot(file: str, title: str, caption: str, figure: Figure) -> Drawn:
    return _drawn(file, title, caption, pictures.to_image(figure), True)


def _drawn(file: str, title: str, caption: str, picture: Image.Image, smooth: bool = False) -> Drawn:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return Drawn(file, title, caption, buffer.getvalue(), smooth)


def _row(name: str, result: dict[str, Any]) -> dict[str, str]:
    value = result["value"]
    shown = f"{len(value)} numbers" if isinstance(value, list) and len(value) > 8 else _plain(value)
    stderr = "" if result["stderr"] is None else f"{result['stderr']:.3g}"
    return {"name": name, "value": shown, "stderr": stderr, "kind": result["kind"].replace("_", " ")}


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_plain(item)}" for key, item in value.items())
    return str(value)

"""The report of a run: figures, and one page that opens offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lowerbound.app.report import sections
from lowerbound.app.report.page import Section, Tile, render, save_figures
from lowerbound.errors import DataError
from lowerbound.files import read_json, write_text
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family
from lowerbound.recipe import Recipe

LISTED = 6  # numbers of a list that are shown in the table
ADVICE = "Larger is better: a lower bound on log p(x)."


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
    judged = read_judgement(run)
    found = [part for part in sections.of_run(run, trained, dataset, judged) if not part.empty]
    save_figures(run.figures, found)
    sections.save_film(run, dataset.spec)
    write_text(run.report_path, render("report.html", _content(run, recipe, trained, judged, found)))
    return run.report_path


def read_judgement(run: Run) -> dict[str, Any]:
    """What `evaluation.json` says; nothing where there is none.

    Raises:
        DataError: it is not what `lowerbound evaluate` wrote.
    """
    if not run.evaluation_path.exists():
        return {}
    found = read_json(run.evaluation_path)
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, dict) or not all(
        isinstance(result, dict) and {"value", "stderr", "kind"} <= result.keys() for result in results.values()
    ):
        raise DataError(f"{run.evaluation_path} is not what `lowerbound evaluate` wrote; run that again.")
    return found


def _content(run: Run, recipe: Recipe, model: Family, judged: dict[str, Any], found: list[Section]) -> dict[str, Any]:
    """All that the page shows."""
    protocol = judged.get("protocol", {})
    return {
        "name": recipe.name,
        "description": recipe.description,
        "model": _describe(recipe, model),
        "path": run.path,
        "tiles": _tiles(judged),
        "rows": f"{protocol.get('examples', 0):,}",
        "split": protocol.get("split", ""),
        "sections": found,
        "results": [_row(name, result) for name, result in judged.get("results", {}).items()],
        "refused": judged.get("refused", {}),
        "protocol": {key: _plain(value) for key, value in protocol.items()},
        "recipe": json.dumps(recipe.dump(), indent=2),
    }


def _describe(recipe: Recipe, model: Family) -> str:
    """The model in one sentence."""
    latents = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in model.latents.items()) or "none"
    count = sum(parameter.numel() for parameter in model.parameters())
    event = " x ".join(map(str, model.data.event))
    kinds = f"{recipe.model.get('kind')} trained for {recipe.objective.get('kind')}"
    return f"{kinds}; rows of {event}; latents: {latents}; {count:,} parameters."


def _tiles(judged: dict[str, Any]) -> list[Tile]:
    """The numbers at the top: the bound, how tight it is, and whether the code is used."""
    results = judged.get("results", {})
    samples = judged.get("protocol", {}).get("samples", "")
    told = {
        "elbo_nats": ("ELBO, nats", 1, ADVICE),
        "nll_nats": ("tighter bound, nats", -1, f"Importance bound with {samples} samples."),
        "bits_per_dim": ("bits per dimension", 1, "Smaller is better: an upper bound."),
        "rate_nats": ("rate, nats", 1, "What the code costs."),
        "distortion_nats": ("distortion, nats", 1, "What is left to say once the code is known."),
    }
    tiles = []
    for name, (label, sign, note) in told.items():
        if name in results:
            result = results[name]
            error = "" if result["stderr"] is None else f"{result['stderr']:.2g}"
            tiles.append(Tile(label, _number(sign * result["value"], result["stderr"]), error, note))
    for name, result in results.items():
        if name.startswith("active_units"):
            units = results.get(name.replace("active_", ""), {}).get("value", 0)
            group = name.removeprefix("active_units").replace("_", " ")
            note = f"{units - result['value']:.0f} carry next to nothing."
            tiles.append(Tile(f"active units{group}", f"{result['value']:.0f} of {units:.0f}", "", note))
        if name.startswith("codebook_perplexity"):
            size = results.get(name.replace("perplexity", "size"), {}).get("value", 0)
            tiles.append(
                Tile("codes in use", f"{result['value']:.0f} of {size:.0f}", "", "Perplexity of the codebook.")
            )
    return tiles


def _number(value: float, stderr: float | None) -> str:
    """With the digits that the standard error allows, 4 significant ones without."""
    if stderr is None or not 0 < stderr < abs(value):
        return f"{value:.4g}"
    decimals = next((count for count in range(1, 8) if stderr * 10**count >= 1), 8)
    return f"{value:,.{decimals}f}"


def _row(name: str, result: dict[str, Any]) -> dict[str, str]:
    stderr = "" if result["stderr"] is None else f"{result['stderr']:.2g}"
    return {"name": name, "value": _shown(result), "stderr": stderr, "kind": result["kind"].replace("_", " ")}


def _shown(result: dict[str, Any]) -> str:
    value = result["value"]
    if isinstance(value, list):
        more = ", …" if len(value) > LISTED else ""
        return ", ".join(_plain(item) for item in value[:LISTED]) + more
    return _number(value, result["stderr"]) if isinstance(value, float) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_plain(item)}" for key, item in value.items())
    return str(value)

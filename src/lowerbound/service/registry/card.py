"""The model card of a version: what it is, what it was found to be worth, and where that ends."""

from __future__ import annotations

from typing import Any

from lowerbound.lab.run import Run

FIGURES = 12  # numbers of a list that are shown


def write_card(name: str, run: Run, evaluation: dict[str, Any], facts: dict[str, Any], use: str | None) -> str:
    """The card, in Markdown.

    Args:
        name: of the model.
        run: that it is of.
        evaluation: the content of `evaluation.json`.
        facts: of the manifest.
        use: what the model is meant for, in the words of who registered it.
    """
    recipe, spec = run.recipe().dump(), run.data_spec()
    parts = [
        f"# {name}",
        "## Intended use",
        use.strip() if use else "Not written: register it with `--card FILE`.",
        "## Model",
        *_table(recipe["model"]),
        "## Training",
        *_table({"objective": recipe["objective"], "seed": recipe["seed"], **recipe["training"]}),
        "## Data",
        f"Rows of shape {list(spec.event)}" + (f" with {spec.levels} levels." if spec.levels else ", real numbers."),
        *_table(facts["data"]["table"]),
        *[f"- {part}: {facts['data'][part]['rows']:,} rows" for part in ("train", "validation", "test")],
        "## Figures",
        *_figures(evaluation),
        "## Limits",
        *_limits(evaluation, facts),
    ]
    lines: list[str] = []
    for before, part in zip(["", *parts], parts, strict=False):
        listed = part.startswith(("- ", "| ")) and before.startswith(("- ", "| "))
        lines += [part] if listed or not lines else ["", part]
    return "\n".join(lines) + "\n"


def _table(values: dict[str, Any]) -> list[str]:
    return [f"- {name}: `{value}`" for name, value in values.items() if value is not None]


def _figures(evaluation: dict[str, Any]) -> list[str]:
    protocol = evaluation["protocol"]
    rows = ["| number | value | standard error | kind | rows |", "| --- | --- | --- | --- | --- |"]
    for name, result in evaluation["results"].items():
        value = result["value"]
        shown = " ".join(f"{number:.4g}" for number in (value if isinstance(value, list) else [value])[:FIGURES])
        more = " ..." if isinstance(value, list) and len(value) > FIGURES else ""
        error = "" if result["stderr"] is None else f"{result['stderr']:.2g}"
        rows.append(f"| {name} | {shown}{more} | {error} | {result['kind'].replace('_', ' ')} | {result['n']:,} |")
    return [f"On {protocol['examples']:,} rows of {protocol['split']}, {protocol['samples']} samples of each.", *rows]


def _limits(evaluation: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    lines = [
        "- Figures hold for rows drawn as those it was judged on; nothing is said of others.",
        *[f"- {name} cannot be had: {reason}" for name, reason in evaluation.get("refused", {}).items()],
    ]
    for what in ("reference", "export"):
        if "refused" in facts[what]:
            lines.append(f"- No {what}: {facts[what]['refused']}")
    if "rows" in facts["reference"]:
        rows = facts["reference"]["rows"]
        lines.append(
            f"- Limits of scores are from {rows:,} held-out rows: none can be had for a share of ordinary rows below "
            f"1 in {rows + 1:,}."
        )
    return lines

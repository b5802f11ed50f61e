"""How much a diffusion model of the digits 0 to 7 forgets when it is fine-tuned to eights and nines.

python benchmarks/fine_tuning.py --write
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import torch

import lowerbound
from lowerbound.files import write_text
from lowerbound.lab.data.load import load_data
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family
from lowerbound.model.families.low_rank import LowRank
from lowerbound.model.networks.low_rank import ADDED
from lowerbound.recipe import Recipe

torch.set_num_threads(1)
DOCS = Path(__file__).parents[1] / "docs" / "diffusion.md"
DIGITS = {"kind": "digits"}
OLD = {"kind": "some-labels", "data": DIGITS, "without": [8, 9]}
NEW = {"kind": "some-labels", "data": DIGITS, "without": list(range(8))}
DRAWS = 50  # of the bound, for each row


def tuned(recipe: Recipe, first: Run, data: dict[str, Any], rank: int | None, out: Path) -> Run:
    """The first run trained on, with other data."""
    inner = first.recipe().model
    model = inner if rank is None else {"kind": "low-rank", "rank": rank, "inner": inner}
    change = {"data": data, "model": model, "start": str(first.path)}
    return lowerbound.train(recipe.model_copy(update=change), out)


def trained(model: Family) -> int:
    """How many numbers fine-tuning may change."""
    every = {name: weight.numel() for name, weight in model.named_parameters()}
    return sum(size for name, size in every.items() if ADDED in name or not isinstance(model, LowRank))


def bound(run: Run, data: dict[str, Any]) -> tuple[float, float]:
    """Nats of a held-out row, with its standard error."""
    settings = run.recipe().evaluation.model_copy(update={"samples": DRAWS})
    found = lowerbound.evaluate(run, settings, data=load_data(data), write=False).results["elbo_nats"]
    assert isinstance(found.value, float)
    return -found.value, found.stderr or 0.0


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--tuning", type=int, default=600)
    parser.add_argument("--write", action="store_true", help="also into docs/diffusion.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        recipe = lowerbound.read_recipe("digits-diffusion", [f"training.steps={given.steps}"])
        first = lowerbound.train(recipe.model_copy(update={"data": OLD}), place / "first")
        again = lowerbound.read_recipe(
            "digits-diffusion", [f"training.steps={given.tuning}", "training.learning_rate=3e-4"]
        )
        runs = {"before": first}
        runs["all weights"] = tuned(again, first, NEW, None, place / "all")
        for rank in (1, 4, 16):
            runs[f"low rank, {rank}"] = tuned(again, first, NEW, rank, place / f"rank-{rank}")
        runs["all weights, old rows mixed in"] = tuned(again, first, DIGITS, None, place / "mixed")
        runs["low rank, 16, old rows mixed in"] = tuned(again, first, DIGITS, 16, place / "mixed-16")
        lines = [
            "| trained | numbers trained | old kinds, nats a row | change | new kinds, nats a row |",
            "|" + " --- |" * 5,
        ]
        old_before = bound(first, OLD)[0]
        for name, run in runs.items():
            (old, old_error), (new, new_error) = bound(run, OLD), bound(run, NEW)
            count = trained(run.model())
            change = f"{old - old_before:+.2f}"
            lines.append(
                f"| {name} | {count:,} | {old:.2f} ± {old_error:.2f} | {change} | {new:.2f} ± {new_error:.2f} |"
            )
            print(lines[-1], flush=True)
    if given.write:
        marked, table = re.compile(r"(<!-- fine-tuning -->\n).*?(<!-- end -->)", re.DOTALL), "\n".join(lines)
        write_text(DOCS, marked.sub(lambda found: f"{found[1]}{table}\n{found[2]}", DOCS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

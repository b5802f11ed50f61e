"""How soon planted trouble is seen, and what is said of it: drills on a model of the digits.

    python benchmarks/drills.py [--seeds 2] [--write]

--write puts the table into docs/drift.md.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import lowerbound
from lowerbound.service.monitoring.drill.drill import Outcome, Plan, run_drill
from lowerbound.service.registry.registry import Registry

DOCS = Path(__file__).parents[1] / "docs" / "drift.md"
LEVEL = 0.02  # of the gate: the digits have 200 validation rows, which allow no less
PLANS = (
    Plan("brightness", severity=0.5),
    Plan("brightness", severity=0.05),
    Plan("blur", severity=0.5),
    Plan("corruption"),
    Plan("pipeline-bug"),
    Plan("black"),
    Plan("new-class", hold_back=4),
    Plan("new-class", hold_back=8),
)


def drills(seeds: int) -> str:
    """The table."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = lowerbound.train(lowerbound.read_recipe("digits", ["model.latent=8"]), folder / "run")
        lowerbound.evaluate(run)
        registry = Registry(folder / "registry")
        version = registry.add(folder / "run", "digits")
        registry.promote("digits", version.number)
        rows = ["| trouble | planted | seen after | by | ordinary looks that alarmed | causes that were named |"]
        rows.append("| --- | --- | --- | --- | --- | --- |")
        for number, plan in enumerate(PLANS):
            found = [
                run_drill(version, registry, folder / f"{number}-{seed}", replace(plan, seed=seed), level=LEVEL)
                for seed in range(seeds)
            ]
            rows.append(_row(plan, found))
            print(rows[-1], flush=True)
        return "\n".join(rows)


def _row(plan: Plan, found: list[Outcome]) -> str:
    detected = [one.detected for one in found]
    seen = "not in 4,000" if None in detected else f"{median([each for each in detected if each]):,.0f}"
    first = {name for one in found for name, after in one.first.items() if after == one.detected}
    looks, false = sum(one.ordinary_looks for one in found), sum(one.false_alarms for one in found)
    causes = "; ".join(f"{name} {share:.1%}" for name, share in found[0].causes.items()) or "none"
    kind = f"{plan.trouble} {plan.hold_back}" if plan.hold_back is not None else f"{plan.trouble}, {plan.severity:g}"
    return f"| {kind} | {found[0].planted:.1%} | {seen} | {', '.join(sorted(first))} | {false} of {looks} | {causes} |"


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    made = drills(given.seeds)
    if given.write:
        page = DOCS.read_text(encoding="utf-8")
        marked = re.compile(r"(<!-- drills -->\n).*?(<!-- end -->)", re.DOTALL)
        DOCS.write_text(marked.sub(lambda found: found[1] + made + "\n" + found[2], page), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the evaluation of a run found, in a few lines: python examples/findings.py RUN"""

import json
import sys
from pathlib import Path


def findings(run: Path) -> str:
    """The findings of an evaluated run as text."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    results, protocol = evaluation["results"], evaluation["protocol"]
    elbo, nll = results["elbo_nats"], results["nll_nats"]
    active, units = results["active_units"]["value"], results["units"]["value"]
    samples = protocol["samples"]
    pictures = ", ".join(sorted(path.name for path in (run / "figures").glob("*.png")))
    return f"""
What was found, on {protocol["examples"]} held-out rows:

  ELBO             {elbo["value"]:7.2f} +- {elbo["stderr"]:.2f} nats   a lower bound on log p(x); larger is better
  importance bound {-nll["value"]:7.2f} +- {nll["stderr"]:.2f} nats   a tighter one ({samples} samples), -nll_nats
  active units     {active:4.0f} of {units:.0f}            the others carry nothing

Look at:  {run / "report.html"}   (opens in any browser, offline)
          {run / "figures"}/        {pictures}

Type next:

  .venv/bin/lowerbound sample {run} --out digits.png
  .venv/bin/lowerbound train gmm2d --out runs/gmm2d
  .venv/bin/lowerbound --help
"""


if __name__ == "__main__":
    print(findings(Path(sys.argv[1])))

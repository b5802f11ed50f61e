"""The alerts that there are: their names are stable, and each has a section of its own in docs/runbook.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Trouble = Literal["requests", "serving", "model"]
RUNBOOK = "docs/runbook.md"


@dataclass(frozen=True)
class Alert:
    """Something that a person should know.

    Attributes:
        name: a stable word.
        trouble: what it is about: the requests that come, the server that answers them, or the model itself.
        says: what was seen, as a clause.
    """

    name: str
    trouble: Trouble
    says: str

    @property
    def page(self) -> str:
        """Where it is said what to look at and what to do."""
        return f"{RUNBOOK}#{self.name}"


ALERTS = {
    alert.name: alert
    for alert in (
        Alert("flat-inputs", "requests", "more inputs than usual show nothing"),
        Alert("gate-rejects", "requests", "the gate refuses more than 1 % of the requests"),
        Alert("latent-norm", "requests", "more codes than usual lie far from all ordinary ones"),
        Alert("latent-outliers", "requests", "more codes than usual lie apart from their neighbours"),
        Alert("unknown-kind", "requests", "more codes than usual lie where ordinary ones are rare"),
        Alert("high-error", "requests", "more requests than usual are reconstructed badly"),
        Alert("low-error", "requests", "more requests than usual are reconstructed too well"),
        Alert("drift-inputs", "requests", "statistics of the inputs are distributed otherwise"),
        Alert("drift-latent", "requests", "units of the code are distributed otherwise"),
        Alert("drift-together", "requests", "units of the code move together otherwise"),
        Alert("drift-aggregate", "requests", "mean or variance of the aggregate posterior moved"),
        Alert("drift-rate", "requests", "the rate moved"),
        Alert("drift-error", "requests", "too many errors are larger or smaller than ordinary ones"),
        Alert("drift-codebook", "requests", "codes of the codebook are used otherwise"),
        Alert("slow-answers", "serving", "the 99th percentile of the answers' times stays over its limit"),
        Alert("serving-fault", "serving", "the server answers otherwise than the weights that it is said to serve"),
        Alert("drift-samples", "model", "what the model makes moved away from real rows"),
    )
}
# Which alert a detector of drift, or a sign of unusual requests, gives.
OF_DETECTOR = {
    "inputs": "drift-inputs",
    "latent, unit by unit": "drift-latent",
    "latent, together": "drift-together",
    "aggregate posterior": "drift-aggregate",
    "rate": "drift-rate",
    "reconstruction error": "drift-error",
    "codebook usage": "drift-codebook",
}
OF_SIGN = {
    "norm of the code": "latent-norm",
    "outlier factor of the code": "latent-outliers",
    "density of the code": "unknown-kind",
    "high error": "high-error",
    "low error": "low-error",
    "flat input": "flat-inputs",
}

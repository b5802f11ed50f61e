"""Several judgements side by side: numbers that mean the same, and their differences in standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lowerbound.errors import DataError, UsageError
from lowerbound.files import read_json
from lowerbound.lab.run import Run

# What must be equal before any number is compared, and what only the numbers that begin so stand on.
SHARED = ("data", "split", "examples", "preparation")
OWN_PROTOCOL = {
    "nll": ("samples",),
    "bits_per_dim": ("samples",),
    "simulated": ("annealing", "samples"),
    "lpips": ("perceptual",),
}
LARGER = ("elbo", "psnr", "ssim", "ms_ssim", "precision", "recall", "coverage", "token_accuracy", "mig",
          "sap", "dci", "modularity", "explicitness", "factor_vae", "beta_vae", "linear_probe_accuracy",
          "two_sample_p_value", "mutual_information")  # fmt: skip
SMALLER = ("nll", "bits_per_dim", "squared_error", "lpips", "frechet", "kernel", "flicker", "aggregate_kl",
           "prior_hole", "sample_hole", "small_prior_gain", "edit_round_trip", "two_sample_accuracy")  # fmt: skip
SAMPLES = ("frechet", "kernel", "precision", "recall", "density", "coverage", "two_sample")

CLEAR = 2.0  # standard errors from which a difference is marked

Better = Literal["larger", "smaller", ""]


@dataclass(frozen=True)
class Line:
    """One number of all judgements.

    Attributes:
        name: of the number.
        better: which end is better, where one is.
        values, stderrs: of each judgement; None where it has none.
        differences: from the first judgement, in standard errors of the difference; None where that cannot be had.
        refused: why the values are not comparable; empty if they are.
    """

    name: str
    better: Better
    values: list[float | None]
    stderrs: list[float | None]
    differences: list[float | None]
    refused: str = ""

    def cell(self, place: int) -> str:
        """The value, its standard error, and how far it is from the first."""
        value, error, difference = self.values[place], self.stderrs[place], self.differences[place]
        if value is None:
            return ""
        text = f"{value:.4g}" + ("" if error is None else f" ± {error:.2g}")
        if difference is None:
            return text
        found = self.verdict(place)
        return f"{text} ({difference:+.1f} s.e.{found and ', '}{found})"

    def verdict(self, place: int) -> str:
        """The word "better" or "worse" where the difference is clear and one end is better."""
        difference = self.differences[place]
        if difference is None or not self.better or abs(difference) < CLEAR:
            return ""
        return "better" if (difference > 0) == (self.better == "larger") else "worse"


@dataclass(frozen=True)
class Comparison:
    """All numbers of all judgements; the first judgement is what the others are compared with.

    Attributes:
        names: of the judgements.
        lines: one a number.
    """

    names: list[str]
    lines: list[Line]


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare judgements: of runs (`evaluation.json`), or files that `evaluate --out` wrote.

    A difference in standard errors takes the judgements as independent, sqrt(s1^2 + s2^2): of models judged on the same
    rows it is cautious. It says nothing of other seeds of training.

    Raises:
        UsageError: fewer than two, or judged on other rows.
        DataError: a file that is no judgement.
    """
    if len(paths) < 2:
        raise UsageError("one judgement alone compares with nothing; name two runs at least.")
    judged = [_read(path) for path in paths]
    for path, other in zip(paths[1:], judged[1:], strict=True):
        for key in SHARED:
            if judged[0]["protocol"].get(key) != other["protocol"].get(key):
                raise UsageError(
                    f"{paths[0]} and {path} were judged on other `{key}` ({judged[0]['protocol'].get(key)} and "
                    f"{other['protocol'].get(key)}), so their numbers mean different things; evaluate both alike."
                )
    numbers = dict.fromkeys(name for one in judged for name in one["results"])
    return Comparison(_names(paths), [line for name in numbers if (line := _line(name, judged)) is not None])


def _line(name: str, judged: list[dict[str, Any]]) -> Line | None:
    """None for numbers that are lists."""
    found = [one["results"].get(name) for one in judged]
    if any(result is not None and isinstance(result["value"], list) for result in found):
        return None
    values = [None if result is None else float(result["value"]) for result in found]
    errors = [None if result is None else result["stderr"] for result in found]
    refused = _refused(name, [one["protocol"] for one, result in zip(judged, found, strict=True) if result is not None])
    differences: list[float | None] = [None] * len(judged)
    for place in range(1, len(judged)):
        pair = (values[0], values[place], errors[0], errors[place])
        if not refused and None not in pair:
            differences[place] = _difference(*pair)  # type: ignore[arg-type]
    return Line(name, _better(name), values, errors, differences, refused)


def _difference(one: float, other: float, error: float, other_error: float) -> float | None:
    spread = math.hypot(error, other_error)
    return (other - one) / spread if spread > 0 else (0.0 if one == other else None)


def _refused(name: str, protocols: list[dict[str, Any]]) -> str:
    """Why a number of some judgements is not the same quantity."""
    for key in next((keys for stem, keys in OWN_PROTOCOL.items() if name.startswith(stem)), ()):
        if len({str(protocol.get(key)) for protocol in protocols}) > 1:
            return f"other `{key}`"
    if not name.startswith(SAMPLES):
        return ""
    if len({str(protocol.get("generated")) for protocol in protocols}) > 1:
        return "other numbers of samples"
    hashes = set()
    for protocol in protocols:
        known = protocol.get("extractors", {})
        fitting = [extractor for extractor in known if name.endswith(f"_{extractor}")]
        hashes.add(known[max(fitting, key=len)] if fitting else "")
    return "other extractors of features (their hashes differ)" if len(hashes) > 1 else ""


def _better(name: str) -> Better:
    return "larger" if name.startswith(LARGER) else "smaller" if name.startswith(SMALLER) else ""


def _read(path: Path) -> dict[str, Any]:
    place = path if path.is_file() else Run(path).evaluation_path
    if path.is_dir() and not place.exists():
        raise UsageError(f"{path} has not been judged; run `lowerbound evaluate {path}` first.")
    found = read_json(place)
    results = found.get("results") if isinstance(found, dict) else None
    if (
        not isinstance(results, dict)
        or not isinstance(found.get("protocol"), dict)
        or not all(map(_is_result, results.values()))
    ):
        raise DataError(f"{place} is not what `lowerbound evaluate` wrote; run that again.")
    return found


def _is_result(result: Any) -> bool:
    return (
        isinstance(result, dict)
        and isinstance(result.get("value"), int | float | list)
        and isinstance(result.get("stderr", ""), int | float | None)
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole where two are alike."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]

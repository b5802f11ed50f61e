"""Whether drift detectors keep their budget, and what they find: simulated streams, and the time of one look.

    python benchmarks/drift.py [false-alarms] [power] [together] [rolling] [speed] [--pairs 200] [--write]

Each false-alarm row draws independent pairs of a reference and a month of windows from one process in which nothing
drifts. --write puts the tables that were made into docs/drift.md.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingClassifier

from lowerbound.service.monitoring.drift.aggregate import Aggregate
from lowerbound.service.monitoring.drift.blocks import Blocks, cut
from lowerbound.service.monitoring.drift.budget import Budget
from lowerbound.service.monitoring.drift.detector import Detector
from lowerbound.service.monitoring.drift.means import Rates
from lowerbound.service.monitoring.drift.measure import Measure
from lowerbound.service.monitoring.drift.pairs import Pairs
from lowerbound.service.monitoring.drift.rolling import Rule
from lowerbound.service.monitoring.drift.shapes import Shapes
from lowerbound.service.monitoring.drift.tails import Tails
from lowerbound.service.monitoring.drift.usage import Usage
from lowerbound.service.monitoring.drift.watch import Watch
from lowerbound.service.monitoring.drift.window import Array, Window

DOCS = Path(__file__).parents[1] / "docs" / "drift.md"
UNITS, CODES = 3, 32
BUDGET = Budget(false_alarms=1, looks=100)


@dataclass(frozen=True)
class Stream:
    """A process of requests, each like the one before by `alike`.

    Attributes:
        alike: autocorrelation from one request to the next.
        heavy: whether errors have a heavy tail.
        mean, scale: of the first unit.
        together: correlation of all pairs of units.
        rate: factor of the first unit's rate.
        bad: share of requests with four times the error.
        codes: how much oftener the first code is used, log odds.
    """

    alike: float = 0.0
    heavy: bool = False
    mean: float = 0.0
    scale: float = 1.0
    together: float = 0.0
    rate: float = 1.0
    bad: float = 0.0
    codes: float = 0.0

    def draw(self, size: int, chance: np.random.Generator) -> Window:
        """So many requests."""
        noise = self._series(size, 2 * UNITS + 4, chance)
        shared, noise = noise[:, :1], noise[:, 1:]
        points = math.sqrt(1 - self.together) * noise[:, :UNITS] + math.sqrt(self.together) * shared
        points[:, 0] = self.scale * points[:, 0] + self.mean
        rates = np.exp(0.3 * noise[:, UNITS : 2 * UNITS])
        rates[:, 0] *= self.rate
        errors = np.exp((1.0 if self.heavy else 0.4) * noise[:, -1])
        if self.heavy:
            errors *= 1 + (1 - norm.cdf(noise[:, -2])) ** -0.5
        errors[chance.random(size) < self.bad] *= 4
        indices = np.minimum((norm.cdf(noise[:, -3:-1] - self.codes) * CODES).astype(int), CODES - 1)
        return Window(points, np.full_like(points, 0.1), rates, errors, noise[:, -3:-1], indices)

    def _series(self, size: int, columns: int, chance: np.random.Generator) -> Array:
        warm = 0 if self.alike == 0 else int(10 / (1 - self.alike))
        noise = chance.standard_normal((size + warm, columns))
        if self.alike == 0:
            return noise
        result: Array = lfilter([math.sqrt(1 - self.alike**2)], [1, -self.alike], noise, axis=0)[warm:]
        return result


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def asked(reference: Window, size: int, level: float, floors: bool) -> list[Measure]:
    """The measures of a watch, with floors or without."""
    none: Callable[[float], float] = lambda floor: floor if floors else 0.0  # noqa: E731
    units = np.arange(UNITS)
    return [
        Shapes("inputs", "inputs", reference.fact("inputs"), floor=none(0.1)),
        Shapes("latent, unit by unit", "points", reference.fact("points"), floor=none(0.1)),
        Pairs(reference.fact("points"), units, floor=none(0.1), every=none(0.05)),
        Aggregate(UNITS) if floors else Aggregate(UNITS, mean=0.0, variance=1.0),
        Rates(reference.fact("rates"), floor=none(0.2)),
        Tails(reference.fact("errors"), size, level),
        Usage(reference.fact("indices"), CODES, floor=none(0.01)),
    ]


@dataclass(frozen=True)
class Case:
    """A row of the table: a stream, requests in a window, windows in a reference, and how it is looked at."""

    stream: Stream
    window: int
    reference: int
    floors: bool = False
    blocks: Blocks | None = None


def month(case: Case, seed: int) -> list[int]:
    """False alarms of each detector in a month beside one reference, and looks with any; the last."""
    chance = np.random.default_rng(seed)
    reference = case.stream.draw(case.reference * case.window, chance)
    blocks = case.blocks or cut(reference, case.window)
    level = BUDGET.level / 7
    detectors = [
        Detector(measure, reference, blocks, level, seed)
        for measure in asked(reference, case.window, level, case.floors)
    ]
    alarms = np.zeros((int(BUDGET.looks), len(detectors)), dtype=bool)
    requests = case.stream.draw(len(alarms) * case.window, chance)
    for look in range(len(alarms)):
        part = requests.select(slice(look * case.window, (look + 1) * case.window))
        alarms[look] = [detector.update(part).alarm for detector in detectors]
    return [*alarms.sum(axis=0).tolist(), int(alarms.any(axis=1).sum())]


CASES = {
    "independent requests": Case(Stream(), 500, 60),
    "autocorrelation 0.9": Case(Stream(alike=0.9), 3000, 80),
    "independent, errors with a heavy tail": Case(Stream(heavy=True), 500, 60),
    "autocorrelation 0.9, a reference that is refused": Case(Stream(alike=0.9), 3000, 8, blocks=Blocks(19, 750, 4)),
}


def false_alarms(pairs: int) -> str:
    """The first table."""
    rows = []
    for name, case in CASES.items():
        found = np.array([month(case, seed) for seed in range(pairs)])
        every = found[:, -1]
        rows.append(
            [
                name,
                f"{case.window:,}",
                f"{case.reference * case.window:,}",
                f"{pairs}",
                f"{every.mean():.2f} ± {every.std(ddof=1) / math.sqrt(pairs):.2f}",
                f"{every.std(ddof=1):.1f}",
                ", ".join(f"{mean:.2f}" for mean in found[:, :-1].mean(axis=0)),
            ]
        )
        print(rows[-1], flush=True)
    return markdown(["stream", "window", "reference", "pairs", "alarms a month", "deviation", "of each detector"], rows)


# ------------------------------------------------------------------------------- what sees units that move together

WIDE, KNOWN, SEEN, NULLS, TRIED = 32, 5000, 500, 400, 100
Change = Callable[[Array, np.random.Generator], Array]


def all_pairs(z: Array, chance: np.random.Generator) -> Array:
    """Correlation 0.3 of all pairs."""
    return math.sqrt(0.7) * z + math.sqrt(0.3) * chance.standard_normal((len(z), 1))


def one_pair(z: Array, chance: np.random.Generator) -> Array:
    """Correlation 0.4 of one pair."""
    return np.concatenate([0.4 * z[:, 1:2] + math.sqrt(1 - 0.16) * z[:, :1], z[:, 1:]], axis=1)


def weak_pairs(z: Array, chance: np.random.Generator) -> Array:
    """Correlation 0.1 of all pairs."""
    return math.sqrt(0.9) * z + math.sqrt(0.1) * chance.standard_normal((len(z), 1))


def three_together(z: Array, chance: np.random.Generator) -> Array:
    """The sign of one unit is the product of two others' signs: no pair is correlated."""
    sign = np.sign(z[:, 1:2] * z[:, 2:3])
    return np.concatenate([np.abs(z[:, :1]) * sign, z[:, 1:]], axis=1)


def shifted(z: Array, chance: np.random.Generator) -> Array:
    """All means by 0.2."""
    return z + 0.2


CHANGES: dict[str, Change] = {
    "0.3, all pairs": all_pairs,
    "0.1, all pairs": weak_pairs,
    "0.4, one pair": one_pair,
    "three units": three_together,
    "0.2, all means": shifted,
}


def largest_distance(one: Array, other: Array) -> float:
    """Kolmogorov & Smirnov's, of the unit that moved most."""
    measure = Shapes("", "points", other)
    parts = [measure.sums(Window(points=rows), len(rows)) for rows in (one, other)]
    return float(measure.effects(parts[0], len(one), parts[0][0] + parts[1][0], len(one) + len(other)).max())


def likelihood_ratio(one: Array, other: Array) -> float:
    """Of one covariance against two (Anderson 2003, section 10.2)."""
    both = np.concatenate([one, other])
    return float(
        len(both) * np.linalg.slogdet(np.cov(both.T))[1]
        - sum(len(rows) * np.linalg.slogdet(np.cov(rows.T))[1] for rows in (one, other))
    )


def largest_correlation(one: Array, other: Array) -> float:
    """The change of the pair that changed most."""
    return float(np.abs(np.corrcoef(one.T) - np.corrcoef(other.T)).max())


def every_correlation(one: Array, other: Array) -> float:
    """The root mean square of the changes of all pairs."""
    return float(np.sqrt(np.mean((np.corrcoef(one.T) - np.corrcoef(other.T)) ** 2)))


def energy(one: Array, other: Array) -> float:
    """Twice the mean distance between, less those within (Székely & Rizzo 2013)."""
    other = other[: 4 * len(one)]

    def mean(a: Array, b: Array) -> float:
        square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
        return float(np.sqrt(np.maximum(square, 0)).mean())

    return 2 * mean(one, other) - mean(one, one) - mean(other, other)


def kernel(one: Array, other: Array) -> float:
    """Maximum mean discrepancy of 512 random features of a Gaussian kernel (Gretton et al. 2012)."""
    directions = np.random.default_rng(0).standard_normal((one.shape[1], 256)) / math.sqrt(one.shape[1])
    first, second = (np.exp(1j * (rows @ directions)).mean(axis=0) for rows in (one, other))
    return float((np.abs(first - second) ** 2).sum())


def forest(one: Array, other: Array) -> float:
    """Accuracy of boosted trees that tell equally many of each apart (Lopez-Paz & Oquab 2017)."""
    half = len(one) // 2
    rows = [np.concatenate([one[part], other[: len(one)][part]]) for part in (slice(half), slice(half, None))]
    truth = np.repeat([0, 1], half)
    model = HistGradientBoostingClassifier(max_iter=50, max_depth=4).fit(rows[0], truth)
    chances = model.predict_proba(rows[1])[:, 1]
    return float(np.log(np.where(truth == 1, chances, 1 - chances)).mean())


STATISTICS: dict[str, Callable[[Array, Array], float]] = {
    "largest KS distance": largest_distance,
    "largest change of a correlation": largest_correlation,
    "root mean square change": every_correlation,
    "likelihood ratio": likelihood_ratio,
    "energy distance": energy,
    "kernel, random features": kernel,
    "classifier": forest,
}


def together() -> str:
    """Power at a false-alarm rate of 1 %, of 500 codes of 32 units beside 5,000."""
    chance = np.random.default_rng(0)
    reference = chance.standard_normal((KNOWN, WIDE))
    rows = []
    for name, statistic in STATISTICS.items():
        start, chance = time.perf_counter(), np.random.default_rng(1)
        usual = [statistic(chance.standard_normal((SEEN, WIDE)), reference) for _ in range(NULLS)]
        took = (time.perf_counter() - start) / NULLS
        limit = np.quantile(usual, 0.99)
        powers = []
        for change in CHANGES.values():
            drifted = (change(chance.standard_normal((SEEN, WIDE)), chance) for _ in range(TRIED))
            powers.append(np.mean([statistic(part, reference) > limit for part in drifted]))
        rows.append([name, *(f"{power:.2f}" for power in powers), f"{1000 * took:.1f}"])
        print(rows[-1], flush=True)
    return markdown(["statistic", *CHANGES, "ms each"], rows)


# ------------------------------------------------------------------------------------------------------------ power

LOOKS = 50
DRIFTS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "none": ({}, {}),
    "mean of one unit, 0.4 or 1 deviations": ({"mean": 0.4}, {"mean": 1.0}),
    "scale of one unit, times 1.4 or 1.7": ({"scale": 1.4}, {"scale": 1.7}),
    "correlation of all pairs, 0.3 or 0.5": ({"together": 0.3}, {"together": 0.5}),
    "rate of one unit, times 1.1 or 1.3": ({"rate": 1.1}, {"rate": 1.3}),
    "errors of 4 % or 8 % four times as large": ({"bad": 0.04}, {"bad": 0.08}),
    "codes, log odds 0.3 or 0.7": ({"codes": 0.3}, {"codes": 0.7}),
}


def power() -> str:
    """Share of drifted windows that alarm: of independent requests (1,000), and alike by 0.9 (3,000)."""
    columns: list[list[str]] = []
    for place, (alike, size) in enumerate(((0.0, 1000), (0.9, 3000))):
        chance = np.random.default_rng(place)
        watch = Watch(Stream(alike=alike).draw(100 * size, chance), Budget(false_alarms=2, looks=240), size)
        print(watch.certificate, flush=True)
        for drift in DRIFTS.values():
            stream = replace(Stream(alike=alike), **drift[place])
            looks = [watch.update(stream.draw(size, chance)) for _ in range(LOOKS)]
            found = np.mean([[verdict.alarm for verdict in look.verdicts] for look in looks], axis=0)
            columns.append([f"{np.mean([look.alarm for look in looks]):.2f}", *(f"{share:.2f}" for share in found)])
            print(columns[-1], flush=True)
    heads = [
        "drift",
        *(f"{name}, {kind}" for kind in ("independent", "alike") for name in ("any", "unit by unit alone")),
    ]
    half = len(DRIFTS)
    place = 1 + list(watch.detectors).index("latent, unit by unit")
    rows = [
        [name, columns[row][0], columns[row][place], columns[half + row][0], columns[half + row][place]]
        for row, name in enumerate(DRIFTS)
    ]
    return markdown(heads, rows)


# ---------------------------------------------------------------------------------------------------------- 3 sigma

DAY, MONTH, REPEATS = 288, 30 * 288, 200


def rolling() -> str:
    """Alarms a month of one series of averages in which nothing happens."""
    rows = []
    for name, requests, spread, alike in (
        ("60 requests each, log deviation 0.4", 60, 0.4, 0.0),
        ("30 requests each, log deviation 1", 30, 1.0, 0.0),
        ("the same, averages alike by 0.5", 30, 1.0, 0.5),
    ):
        chance = np.random.default_rng(0)
        found = np.array([_month(requests, spread, alike, chance) for _ in range(REPEATS)])
        means, errors = found.mean(axis=0), found.std(axis=0, ddof=1) / math.sqrt(REPEATS)
        rows.append([name, *(f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True))])
        print(rows[-1], flush=True)
    return markdown(["series", "mean ± 3 deviations of an hour", "mean ± 3 deviations of a day", "the rule"], rows)


def _month(requests: int, spread: float, alike: float, chance: np.random.Generator) -> list[int]:
    noise = chance.standard_normal((DAY + MONTH, requests))
    level = lfilter([math.sqrt(1 - alike**2)], [1, -alike], chance.standard_normal(DAY + MONTH)) if alike else 0.0
    each = np.exp(spread * noise).mean(axis=1) * np.exp(0.1 * level)
    before, after = each[:DAY], each[DAY:]
    rule = Rule(before)
    naive = [int((np.abs(after - known.mean()) > 3 * known.std(ddof=1)).sum()) for known in (before[-12:], before)]
    return [*naive, sum(rule.update(mean, requests).alarm for mean in after.tolist())]


# ------------------------------------------------------------------------------------------------------------ speed


def speed() -> str:
    """One look over 100,000 codes of 64 units, with their rates, variances and errors."""
    chance = np.random.default_rng(0)

    def draw(size: int, shift: float) -> Window:
        points = chance.standard_normal((size, 64), dtype=np.float32)
        points[:, 3] += shift
        rates = np.abs(chance.standard_normal((size, 64), dtype=np.float32))
        return Window(points, np.full_like(points, 0.1), rates, rates[:, 0], points[:, :2].copy())

    rows = []

    def timed(name: str, work: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        rows.append([name, f"{time.perf_counter() - wall:.2f}", f"{time.process_time() - processor:.2f}"])
        print(rows[-1], flush=True)

    reference = draw(400_000, 0.0)
    watches: list[Watch] = []
    timed("getting ready", lambda: watches.append(Watch(reference, Budget(false_alarms=2, looks=720), 100_000)))
    print(watches[0].certificate)
    for name, shift in (("a look, nothing drifted", 0.0), ("a look that alarms", 0.5)):
        window = draw(100_000, shift)
        for _ in range(3):
            timed(name, lambda window=window: watches[0].update(window))
    return markdown(["what", "seconds", "seconds of the processor"], rows)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {"false-alarms": false_alarms, "power": power, "together": together, "rolling": rolling, "speed": speed}
    parser.add_argument("tables", nargs="*", choices=list(tables), default=list(tables))
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    for name in given.tables:
        made = false_alarms(given.pairs) if name == "false-alarms" else tables[name]()
        print(made)
        if given.write:
            page = DOCS.read_text(encoding="utf-8")
            marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            DOCS.write_text(
                marked.sub(lambda found, made=made: found[1] + made + "\n" + found[2], page), encoding="utf-8"
            )


if __name__ == "__main__":
    main()

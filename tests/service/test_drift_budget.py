"""Detectors keep their budget, over many independent references and streams, and say when they cannot."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from drift_streams import Stream, series

from lowerbound.errors import TooFewError, UsageError
from lowerbound.service.monitoring.drift.blocks import Blocks, cut, dependence
from lowerbound.service.monitoring.drift.budget import Budget, certify
from lowerbound.service.monitoring.drift.detector import Detector, holm
from lowerbound.service.monitoring.drift.measure import Measure
from lowerbound.service.monitoring.drift.pairs import Pairs
from lowerbound.service.monitoring.drift.shapes import Shapes
from lowerbound.service.monitoring.drift.tails import Tails
from lowerbound.service.monitoring.drift.watch import Watch
from lowerbound.service.monitoring.drift.window import Window

PAIRS, LOOKS, FALSE_ALARMS = 200, 20, 1.0


def alarms(alike: float, size: int, windows: int, seed: int) -> int:
    """Looks with an alarm of two detectors without floors, in a month of twenty, beside one reference."""
    chance = np.random.default_rng(seed)
    level = FALSE_ALARMS / LOOKS / 2
    requests = Window(points=series((windows + LOOKS) * size, 2, alike, chance))
    reference, stream = requests.select(slice(windows * size)), requests.select(slice(windows * size, None))
    blocks = cut(reference, size)
    asked: list[Measure] = [
        Shapes("", "points", reference.fact("points"), floor=0.0),
        Pairs(reference.fact("points"), np.arange(2), floor=0.0, every=0.0),
    ]
    detectors = [Detector(measure, reference, blocks, level, seed) for measure in asked]
    parts = [stream.select(slice(look * size, (look + 1) * size)) for look in range(LOOKS)]
    return sum(max([detector.update(part).alarm for detector in detectors]) for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize(("alike", "size", "windows"), [(0.0, 200, 30), (0.9, 2500, 20)])
def test_the_budget_is_kept_over_pairs_of_reference_and_stream(alike: float, size: int, windows: int) -> None:
    """The mean of 200 months is within three standard errors of the budget, or below, and no fifth of it."""
    found = np.array([alarms(alike, size, windows, seed) for seed in range(PAIRS)])
    error = found.std(ddof=1) / math.sqrt(PAIRS)
    assert found.mean() - 3 * error <= FALSE_ALARMS
    assert found.mean() > 0.5 * FALSE_ALARMS


def test_p_values_that_count_requests_break_where_requests_are_alike() -> None:
    """What blocks are for: as blocks of one request, the same stream alarms at most looks."""
    chance = np.random.default_rng(0)
    values = series(6_000, 1, 0.9, chance)
    reference = Window(points=values[:3_000])
    measure = Shapes("", "points", reference.fact("points"), floor=0.0)
    naive = Detector(measure, reference, Blocks(1, 1, 50), 0.01)
    parts = [Window(points=values[start : start + 50]) for start in range(3_000, 6_000, 100)]
    assert sum(naive.update(part).alarm for part in parts) > 10


@pytest.mark.parametrize(("alike", "time"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_dependence_is_that_of_the_process(alike: float, time: float) -> None:
    values = series(100_000, 2, alike, np.random.default_rng(0))
    assert dependence(Window(points=values)) == pytest.approx(time, rel=0.15)


def test_dependence_of_sizes_counts_and_constants_do_not() -> None:
    chance = np.random.default_rng(0)
    loudness = np.exp(series(50_000, 1, 0.9, chance))
    values = loudness * chance.standard_normal((50_000, 1))
    assert dependence(Window(points=values)) > 5
    assert dependence(Window(points=np.full((500, 1), 0.1))) == 1


def test_a_reference_that_is_too_short_is_refused_with_the_length_that_is_enough() -> None:
    chance = np.random.default_rng(0)
    stream, budget = Stream(), Budget(2, 720)
    short = stream.draw(20_000, chance)
    with pytest.raises(TooFewError, match=r"certifies .* false alarms in 720 looks of 400 requests") as refused:
        Watch(short, budget, 400)
    needed = int(re.search(r"give ([\d,]+) requests", str(refused.value))[1].replace(",", ""))  # type: ignore[index]
    assert needed > 20_000
    watch = Watch(stream.draw(round(1.1 * needed), chance), budget, 400)
    assert watch.certificate.holds
    assert "at most 2 false alarms in 720 looks of 400 requests a month" in str(watch.certificate)
    with pytest.raises(TooFewError, match=r"1,000 requests certifies 720 false alarms .* give [\d]{2},"):
        Watch(short.select(slice(1000)), budget, 400)
    least = float(re.search(r"certifies ([\d.]+)", str(refused.value))[1])  # type: ignore[index]
    assert Watch(short, Budget(1.3 * least, 720), 400).certificate.holds


def test_a_longer_month_or_a_smaller_budget_needs_more() -> None:
    blocks, noise = Blocks(1, 50, 16), [(np.full(64, 0.02), np.zeros(64))]
    needed = [
        certify(budget, blocks, 800, 10**6, noise).needed for budget in (Budget(5, 100), Budget(5, 720), Budget(1, 720))
    ]
    assert needed == sorted(needed)
    assert needed[0] < needed[-1]
    floored = [(np.full(64, 0.02), np.full(64, 0.2))]
    assert certify(Budget(1, 720), blocks, 800, 10**6, floored).needed < needed[-1]


def test_windows_are_refused_where_requests_are_alike_for_longer() -> None:
    reference = Stream(alike=0.9).draw(20_000, np.random.default_rng(0))
    with pytest.raises(TooFewError, match="a window of 500 requests is too short"):
        Watch(reference, Budget(2, 720), 500)
    with pytest.raises(TooFewError, match="do not show how long"):
        Watch(reference.select(slice(100)), Budget(2, 720), 50)


def test_a_single_extreme_request_is_no_drift() -> None:
    """However large: as many requests like it are expected from the pool as from the window."""
    chance = np.random.default_rng(0)
    reference = Window(rates=np.exp(chance.standard_normal((20_000, 2))), errors=np.exp(chance.standard_normal(20_000)))
    watch = Watch(reference, Budget(2, 100), 500)
    rates = np.exp(chance.standard_normal((500, 2)))
    rates[7] = 1e6
    assert not watch.update(Window(rates=rates, errors=np.exp(chance.standard_normal(500)))).alarm


def test_budgets_are_checked_and_counted() -> None:
    assert Budget.by_hours(2).level == pytest.approx(2 / 720)
    assert Budget.by_requests(2, 1000, 500_000).level == pytest.approx(2 / 500)
    with pytest.raises(UsageError, match="no budget"):
        Budget(0, 720)
    with pytest.raises(UsageError, match="no budget"):
        Budget(720, 720)


def test_holm() -> None:
    """Holm 1979: 0.01 of three counts three times, the next twice, and none less than one before."""
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])


def test_tails_count_only_above_a_binomial_limit() -> None:
    errors = np.random.default_rng(0).exponential(size=100_000)
    tails = Tails(errors, 1000, 0.001)
    assert tails.limits[1] == pytest.approx(math.log(100), rel=0.03)
    assert tails.floors[0] == pytest.approx(0.013, abs=0.002)  # 23 of 1,000, of which ten are expected

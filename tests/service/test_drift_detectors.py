"""Each detector finds the drift that it is for, and says what drifted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drift_streams import UNITS, Stream

from lowerbound.errors import DataError, TooFewError, UsageError
from lowerbound.service.monitoring.drift.aggregate import Aggregate
from lowerbound.service.monitoring.drift.budget import Budget
from lowerbound.service.monitoring.drift.model import ModelDrift
from lowerbound.service.monitoring.drift.pairs import Pairs
from lowerbound.service.monitoring.drift.rolling import Rule, averages, sigmas_for
from lowerbound.service.monitoring.drift.shapes import LEVELS, Shapes, active
from lowerbound.service.monitoring.drift.usage import Usage
from lowerbound.service.monitoring.drift.watch import Look, Watch
from lowerbound.service.monitoring.drift.window import Window

LOOKS = 30
BUDGET = Budget(false_alarms=2, looks=60)
SHIFTS = {
    "latent, unit by unit": (Stream(mean=0.5), "unit 0"),
    "aggregate posterior": (Stream(scale=1.3), "log variance of unit 0"),
    "latent, together": (Stream(together=0.3), "unit "),
    "rate": (Stream(rate=1.2), "rate of unit 0"),
    "reconstruction error": (Stream(bad=0.05), "errors above the limit"),
    "codebook usage": (Stream(codes=0.4), "usage of codes"),
}


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch(Stream().draw(60_000, np.random.default_rng(0)), BUDGET, 1000)


def of(look: Look, name: str) -> bool:
    return any(verdict.detector == name for verdict in look.alarms)


@pytest.mark.parametrize("name", SHIFTS)
def test_power(watch: Watch, name: str) -> None:
    """At least nine of ten windows with the stated shift alarm, by the detector that it is for."""
    stream, label = SHIFTS[name]
    chance = np.random.default_rng(1)
    looks = [watch.update(stream.draw(1000, chance)) for _ in range(LOOKS)]
    assert np.mean([of(look, name) for look in looks]) >= 0.9
    first = next(verdict for verdict in looks[-1].verdicts if verdict.detector == name)
    assert first.findings[0].label.startswith(label)
    assert abs(first.findings[0].effect) >= first.findings[0].floor


def test_units_that_only_move_together_are_not_seen_one_by_one(watch: Watch) -> None:
    chance = np.random.default_rng(2)
    looks = [watch.update(Stream(together=0.3).draw(1000, chance)) for _ in range(LOOKS)]
    assert np.mean([of(look, "latent, together") for look in looks]) >= 0.9
    assert np.mean([of(look, "latent, unit by unit") for look in looks]) <= 0.1


def test_inputs_that_move_are_found_and_named(watch: Watch) -> None:
    moved = Stream().draw(1000, np.random.default_rng(3))
    inputs = moved.fact("inputs") + np.array([0.0, 0.6])
    look = watch.update(Window(**(moved.facts | {"inputs": inputs})))
    assert [verdict.detector for verdict in look.alarms] == ["inputs"]
    assert [finding.label for finding in look.alarms[0].findings] == ["inputs 1"]


def test_what_is_sure_but_small_is_no_drift() -> None:
    """A shift of 0.05 deviations in 20,000 requests is sure at any level; the floor says that it does not matter."""
    chance = np.random.default_rng(4)
    reference = Window(points=chance.standard_normal((200_000, 2)))
    watch = Watch(reference, BUDGET, 20_000)
    look = watch.update(Window(points=chance.standard_normal((20_000, 2)) + 0.05))
    assert not look.alarm


def test_distances_are_those_of_distribution_functions() -> None:
    chance = np.random.default_rng(0)
    known, seen = chance.standard_normal((5000, 2)), chance.standard_normal((1000, 2)) + 0.3
    measure = Shapes("", "points", known)
    sums = [measure.sums(Window(points=rows), len(rows)) for rows in (seen, known)]
    found = measure.effects(sums[0], 1000, sums[0][0] + sums[1][0], 6000)[0]
    for column in range(2):
        edges = np.quantile(known[:, column], np.linspace(0, 1, LEVELS + 1)[1:-1])
        exact = np.abs(np.mean(seen[:, column, None] < edges, axis=0) - np.linspace(0, 1, LEVELS + 1)[1:-1]).max()
        assert found[column] == pytest.approx(exact, abs=1e-3)


def test_aggregate_counts_both_variances_and_looks_both_ways() -> None:
    """Var(mu) + E[sigma^2], Hoffman & Johnson's aggregate: half the posterior variance is a fifth of the whole here."""
    chance = np.random.default_rng(0)
    points = math.sqrt(0.6) * chance.standard_normal((4000, 1))
    known = Window(points=points, variances=np.full((4000, 1), 0.4))
    seen = Window(points=points + 0.5, variances=np.full((4000, 1), 0.1))
    measure = Aggregate(1)
    sums = [measure.sums(window, 4000) for window in (seen, known)]
    mean, variance = measure.effects(sums[0], 4000, sums[0][0] + sums[1][0], 8000)[0]
    assert mean == pytest.approx(0.5 / math.sqrt(0.85 + 0.0625), rel=0.03)
    assert variance == pytest.approx(math.log(0.7), rel=0.05)
    assert abs(variance) > measure.floors[1] == pytest.approx(math.log(1.25))


def test_correlations_are_numpys() -> None:
    chance = np.random.default_rng(0)
    known, seen = chance.standard_normal((500, 3)), chance.standard_normal((100, 3)) @ chance.standard_normal((3, 3))
    measure = Pairs(known, np.arange(3))
    sums = [measure.sums(Window(points=rows), len(rows)) for rows in (seen, known)]
    found = measure.effects(sums[0], 100, sums[0][0] + sums[1][0], 600)[0]
    change = (np.corrcoef(seen.T) - np.corrcoef(known.T))[np.triu_indices(3, 1)]
    assert found.tolist() == pytest.approx([*change, math.sqrt(np.mean(change**2))])


def test_wide_codes_are_looked_at_by_their_components() -> None:
    chance = np.random.default_rng(0)
    known = chance.standard_normal((4000, 80))
    known[:, 1] = known[:, 0] + 0.1 * known[:, 1]
    measure = Pairs(known, np.arange(80))
    assert len(measure.labels) == 64 * 63 / 2 + 1
    sums = measure.sums(Window(points=known), 4000)
    first, rest = known.copy(), known[::-1]
    first[:, 1] = -first[:, 1]
    parts = [measure.sums(Window(points=rows), 4000) for rows in (first, rest)]
    assert np.abs(measure.effects(parts[0], 4000, parts[0][0] + parts[1][0], 8000)).max() > 0.2
    assert sums.shape == (1, 2 * 64 + 64 * 63 // 2)


def test_usage_is_the_g_test() -> None:
    """Against scipy's: its statistic is twice the sum over both rows, ours is of one use of the window."""
    from scipy.stats import chi2_contingency

    chance = np.random.default_rng(0)
    known, seen = chance.integers(0, 8, (4000, 2)), chance.integers(0, 7, (500, 2))
    measure = Usage(known, 9)
    sums = [measure.sums(Window(indices=rows), len(rows)) for rows in (seen, known)]
    found = measure.effects(sums[0], 500, sums[0][0] + sums[1][0], 4500)[0, 0]
    counts = np.stack([np.bincount(rows.reshape(-1), minlength=8) for rows in (seen, known)])
    statistic = chi2_contingency(counts, lambda_="log-likelihood", correction=False).statistic
    assert found == pytest.approx(statistic / 2 / 1000)


def test_rare_codes_are_counted_as_one() -> None:
    """Codes that are used once each say nothing, one by one: a window of other rare codes is no drift."""
    known = np.concatenate([np.zeros(9_000, dtype=int), np.arange(1, 1001)])[:, None]
    measure = Usage(known, 1500)
    seen = np.concatenate([np.zeros(900, dtype=int), np.arange(1100, 1200)])[:, None]
    sums = [measure.sums(Window(indices=rows), len(rows)) for rows in (seen, known)]
    assert measure.effects(sums[0], 1000, sums[0][0] + sums[1][0], 11_000)[0, 0] == pytest.approx(0, abs=1e-3)


def test_codes_that_the_reference_does_not_know_are_drift() -> None:
    chance = np.random.default_rng(0)
    watch = Watch(Window(indices=chance.integers(0, 8, (40_000, 4))), BUDGET, 500)
    assert not watch.update(Window(indices=chance.integers(0, 8, (500, 4)))).alarm
    assert watch.update(Window(indices=chance.integers(0, 9, (500, 4)))).alarm


def test_dead_units_are_not_asked() -> None:
    chance = np.random.default_rng(0)
    points = chance.standard_normal((5000, 3)) * np.array([1, 0.01, 1])
    assert active(points).tolist() == [0, 2]
    watch = Watch(Window(points=points), Budget(2, 20), 200)
    assert watch.detectors["latent, unit by unit"].measure.labels == ("unit 0", "unit 2")


def test_windows_are_checked(watch: Watch) -> None:
    with pytest.raises(DataError, match="without facts"):
        Window()
    with pytest.raises(DataError, match="needs 2 axes"):
        Window(points=np.zeros(3))
    with pytest.raises(DataError, match="as many requests"):
        Window(points=np.zeros((3, 1)), errors=np.zeros(4))
    with pytest.raises(DataError, match="NaN or an infinity"):
        Window(errors=np.array([1.0, np.nan]))
    with pytest.raises(TooFewError, match="too short; give at least"):
        watch.update(Stream().draw(100, np.random.default_rng(0)))
    with pytest.raises(DataError, match="without `inputs`"):
        watch.update(Window(points=np.zeros((1000, UNITS))))
    with pytest.raises(DataError, match="allow no detector"):
        Watch(Window(points=np.zeros((1000, 2))), BUDGET, 100)


def test_a_window_of_another_size_is_looked_at_too(watch: Watch) -> None:
    chance = np.random.default_rng(5)
    assert not watch.update(Stream().draw(700, chance)).alarm
    assert watch.update(Stream(mean=0.8).draw(700, chance)).alarm


def test_model_drift_needs_more_than_five_points_and_as_many_rows() -> None:
    chance = torch.Generator().manual_seed(0)
    real, shipped, same, worse = (torch.randn(1000, 8, generator=chance) for _ in range(4))
    drift = ModelDrift(real, shipped, "a hash", rows=1000)
    assert not drift.update(same, "a hash").alarm
    slight = drift.update(worse + 0.5, "a hash")
    assert not slight.alarm
    assert slight.growth == pytest.approx(8 * 0.25, rel=0.2)
    found = drift.update(worse + 1, "a hash")
    assert found.alarm
    assert found.growth == pytest.approx(8.0, rel=0.2)
    assert found.low < found.growth < found.high
    assert found.kernel_growth > 0
    with pytest.raises(DataError, match="extractor"):
        drift.update(same, "another")
    with pytest.raises(TooFewError, match="give 1,000"):
        drift.update(same[:999], "a hash")
    with pytest.raises(DataError, match="give as many"):
        drift.update(torch.cat([same, same]), "a hash")
    with pytest.raises(TooFewError, match="give 10,000"):
        ModelDrift(real, shipped, "a hash")


def rule(chance: np.random.Generator) -> Rule:
    return Rule(np.exp(0.1 * chance.standard_normal(288)))


def test_rule_needs_two_of_three_to_one_side_and_enough_requests() -> None:
    watched = rule(np.random.default_rng(0))
    high, low = math.exp(0.6), math.exp(-0.6)
    assert not watched.update(high, 30).alarm
    assert not watched.update(low, 30).alarm
    assert watched.update(high, 30).alarm
    assert not watched.update(1.0, 30).alarm
    assert watched.update(1e9, 29).sigmas is None
    assert not watched.update(1.0, 30).alarm


def test_rule_alarms_rarely_where_nothing_happens_and_an_outlier_in_its_baseline_does_not_blind_it() -> None:
    """0.1 a month by the Gaussian formula; the baseline's own error makes it a little more."""
    chance = np.random.default_rng(1)
    found = []
    for _ in range(20):
        watched = rule(chance)
        found.append(
            sum(watched.update(mean, 50).alarm for mean in np.exp(0.1 * chance.standard_normal(8640)).tolist())
        )
    assert np.mean(found) < 1
    baseline = np.exp(0.1 * chance.standard_normal(288))
    baseline[:20] = 1e6
    watched = Rule(baseline)
    watched.update(math.exp(0.6), 50)
    assert watched.update(math.exp(0.6), 50).alarm


def test_sigmas_grow_with_the_number_of_series() -> None:
    assert sigmas_for(2, 1) == 3
    assert sigmas_for(2, 130) > sigmas_for(2, 40) > 3


def test_averages_and_what_they_refuse() -> None:
    means, counts = averages(np.array([10.0, 20.0, 700.0]), np.array([1.0, 3.0, 5.0]))
    assert counts.tolist() == [2, 0, 1]
    assert means[[0, 2]].tolist() == [2, 5]
    assert math.isnan(means[1])
    with pytest.raises(DataError, match="order of their times"):
        averages(np.array([2.0, 1.0]), np.zeros(2))
    with pytest.raises(TooFewError, match="too few for a baseline"):
        Rule(np.ones(287))
    with pytest.raises(DataError, match="equal"):
        Rule(np.ones(288))
    with pytest.raises(DataError, match="negative"):
        Rule(-np.ones(288))
    with pytest.raises(UsageError, match="cannot be asked for"):
        Rule(np.ones(288), count=4)

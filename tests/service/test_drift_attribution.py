"""An incident with known causes is taken apart, on digits of which a model has seen eight of ten classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import lowerbound
from lowerbound.errors import DataError, TooFewError
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.noise import BatchNoise
from lowerbound.service.monitoring.drift.attribution import Attributor
from lowerbound.service.monitoring.drift.budget import Budget
from lowerbound.service.monitoring.drift.watch import Watch
from lowerbound.service.monitoring.drift.window import Window

WITHHELD, LEVELS = (4, 9), 17
TRAINING, REFERENCE = 600, 420
STATISTICS = ("pixel_mean_0", "pixel_variance_0")


@dataclass(frozen=True)
class Digits:
    """A model of eight classes, and rows that it was not trained on."""

    model: Family
    reference: Tensor
    ordinary: Tensor
    labels: Tensor
    new: Tensor

    @torch.no_grad()
    def facts(self, raw: Tensor) -> Window:
        """What the server will know of rows."""
        evidence = self.model.evidence(self.model.preparation.prepare(raw, None), None, BatchNoise(0, 0, len(raw)))
        latent = evidence.latents["z"]
        point = tree.point(latent.q).reshape(len(raw), -1)
        made = lowerbound.decode(self.model, lowerbound.encode(self.model, raw))
        pixels = raw.double().flatten(1) / (LEVELS - 1)
        return Window(
            points=point.double().numpy(),
            variances=latent.q.variance.reshape(len(raw), -1).double().numpy(),
            rates=latent.closed_per_unit()[0].flatten(1).double().numpy(),
            errors=(made.double() - raw.double()).square().flatten(1).mean(dim=1).numpy(),
            inputs=torch.stack([pixels.mean(dim=1), pixels.var(dim=1)], dim=1).numpy(),
        )


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    found = load_digits()
    images, labels = torch.tensor(found.images, dtype=torch.uint8)[:, None], torch.tensor(found.target)
    chance = np.random.default_rng(0)
    known = chance.permutation(np.flatnonzero(~np.isin(found.target, WITHHELD)))
    train, reference, ordinary = np.split(known, [TRAINING, TRAINING + REFERENCE])
    folder: Path = tmp_path_factory.mktemp("digits")
    np.save(folder / "rows.npy", found.images[train].astype(np.uint8))
    recipe = lowerbound.read_recipe(
        "digits",
        [
            f'data={{kind="arrays", path="{folder / "rows.npy"}", levels={LEVELS}}}',
            "training.epochs=60",
            "objective.beta.steps=100",
        ],
    )
    lowerbound.train(recipe, folder / "run")
    model = lowerbound.load(folder / "run")
    new = chance.permutation(np.flatnonzero(found.target == WITHHELD[0]))
    return Digits(model, images[reference], images[ordinary], labels[ordinary], images[new])


def test_both_causes_of_an_incident_are_named_with_their_shares(digits: Digits) -> None:
    """15 % of a withheld class within 6 points, and 3 % of black images within half a point; the rows are right."""
    count = round(len(digits.ordinary) / 0.82)
    new, black = round(0.15 * count), round(0.03 * count)
    rows = [digits.ordinary, digits.new[:new], torch.zeros(black, 1, 8, 8, dtype=torch.uint8)]
    truth = np.repeat([0, 1, 2], [len(part) for part in rows])
    order = np.random.default_rng(1).permutation(len(truth))
    truth, raw = truth[order], torch.cat(rows)[torch.from_numpy(order)]
    found = Attributor(digits.facts(digits.reference), STATISTICS).attribute(digits.facts(raw))
    first, second = found.causes
    assert first.name == "a kind that the reference lacks"
    assert first.share == pytest.approx(0.15, abs=0.06)
    assert abs(first.share - 0.15) <= 3 * first.stderr
    assert np.mean(truth[first.rows[:20]] == 1) >= 0.8
    assert second.name == "flat dark inputs"
    assert second.share == pytest.approx(0.03, abs=0.005)
    assert set(second.rows.tolist()) == set(np.flatnonzero(truth == 2).tolist())
    assert {sign.name for sign in found.signs if sign.alarm} >= {"flat input", "high error"}


def test_ordinary_requests_have_no_cause(digits: Digits) -> None:
    found = Attributor(digits.facts(digits.reference), STATISTICS).attribute(digits.facts(digits.ordinary))
    assert found.causes == ()


def test_a_silent_regime_is_seen_in_the_codes_and_not_in_the_errors(digits: Digits) -> None:
    """More requests of digits that are reconstructed well: codes move while no error is high."""
    chance = np.random.default_rng(2)
    every = digits.facts(torch.cat([digits.reference, digits.ordinary]))
    labels = np.concatenate([np.full(REFERENCE, -1), digits.labels.numpy()])
    easy = np.flatnonzero(np.isin(labels, (0, 1, 6)) & (every.fact("errors") < np.median(every.fact("errors"))))
    watch = Watch(every.select(chance.integers(0, every.size, 30_000)), Budget(false_alarms=2, looks=60), 500)
    ordinary = watch.update(every.select(chance.integers(0, every.size, 500)))
    assert not ordinary.alarm
    mixed = np.concatenate([chance.choice(easy, 200), chance.integers(0, every.size, 300)])
    look = watch.update(every.select(chance.permutation(mixed)))
    alarms = {verdict.detector for verdict in look.alarms}
    assert {"latent, unit by unit", "latent, together"} & alarms
    assert "reconstruction error" not in alarms


def groups(chance: np.random.Generator, size: int, centres: list[tuple[float, float]]) -> Window:
    """Codes about two centres, and as many about each of some others."""
    parts = [chance.standard_normal((size, 4))]
    for one, other in centres:
        parts.append(0.3 * chance.standard_normal((size // 10, 4)) + np.array([one, other, 0, 0]))
    points = np.concatenate(parts)
    return Window(points=points, errors=np.exp(0.3 * chance.standard_normal(len(points))))


def test_two_new_groups_are_two_causes() -> None:
    chance = np.random.default_rng(0)
    attributor = Attributor(groups(chance, 2000, []))
    found = attributor.attribute(groups(chance, 2000, [(6.0, 0.0), (0.0, -6.0)]))
    assert [cause.name for cause in found.causes] == ["a kind that the reference lacks"] * 2
    for cause in found.causes:
        assert cause.share == pytest.approx(200 / 2400, abs=0.01)
    assert {sign.name for sign in found.signs if sign.alarm} == {
        "norm of the code",
        "outlier factor of the code",
        "density of the code",
    }


def test_a_known_group_that_grows_is_called_so() -> None:
    """From a tenth to a quarter."""
    chance = np.random.default_rng(0)
    attributor = Attributor(groups(chance, 4000, [(6.0, 0.0)]))
    window = groups(chance, 4000, [(6.0, 0.0)] * 3)
    (cause,) = attributor.attribute(window).causes
    assert cause.name == "a kind that became more frequent"
    assert cause.share == pytest.approx(3 / 13 - 10 / 13 / 10, abs=0.03)


def test_false_causes_are_rare() -> None:
    """None in ten ordinary windows; a share must be four standard errors above 0."""
    found = 0
    for seed in range(10):
        chance = np.random.default_rng(seed)
        found += len(Attributor(groups(chance, 400, [])).attribute(groups(chance, 400, [])).causes)
    assert found == 0


def used(chance: np.random.Generator, ordinary: int, new: int = 0) -> Window:
    """Codes of a codebook of 32 at 16 places: three ordinary kinds of rows, and a kind that uses others."""
    kinds = np.concatenate([chance.integers(0, 3, ordinary), np.full(new, 3)])
    often = np.stack([np.roll(0.8 ** np.arange(32), 8 * kind) for kind in range(4)])
    totals = (often / often.sum(axis=1, keepdims=True)).cumsum(axis=1)[kinds]
    indices = np.minimum((chance.random((len(kinds), 16, 1)) > totals[:, None]).sum(axis=2), 31)
    return Window(indices=indices, errors=np.exp(0.3 * chance.standard_normal(len(kinds))))


def test_a_kind_that_uses_other_codes_of_a_codebook_is_named() -> None:
    chance = np.random.default_rng(0)
    attributor = Attributor(used(chance, 2000))
    found = attributor.attribute(used(chance, 850, new=150))
    (cause,) = found.causes
    assert cause.name == "a kind that the reference lacks"
    assert cause.share == pytest.approx(0.15, abs=0.05)
    assert np.mean(cause.rows[:100] >= 850) > 0.9
    assert "density of the code" in {sign.name for sign in found.signs if sign.alarm}


def test_ordinary_uses_of_a_codebook_have_no_cause() -> None:
    for seed in range(3):
        chance = np.random.default_rng(seed)
        found = Attributor(used(chance, 1000)).attribute(used(chance, 500))
        assert found.causes == ()
        assert not any(sign.alarm for sign in found.signs)


def test_what_cannot_be_attributed_is_refused() -> None:
    chance = np.random.default_rng(0)
    with pytest.raises(TooFewError, match="too few to attribute by"):
        Attributor(groups(chance, 100, []))
    with pytest.raises(TooFewError, match="too few to attribute;"):
        Attributor(groups(chance, 400, [])).attribute(groups(chance, 100, []))
    dead = Window(points=np.zeros((400, 2)), errors=np.ones(400))
    with pytest.raises(DataError, match="no unit"):
        Attributor(dead)
    with pytest.raises(DataError, match="same codes equally often"):
        Attributor(Window(indices=np.zeros((400, 4), np.int64), errors=np.ones(400)))

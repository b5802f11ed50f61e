"""The reference: what it says of the rows it is from, and how often its limits are passed by others of the kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from linear import exact_linear_vae
from tables import FAMILIES, raw_rows
from torch import Tensor

from lowerbound.errors import DataError, NotSupportedError, TamperedError, UsageError
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.reference import Reference, input_statistics
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator


@pytest.fixture(scope="module")
def model() -> Family:
    """A linear VAE whose codes are Gaussian."""
    return exact_linear_vae(6, 2, 0.5).float()


def rows(count: int, seed: int, model: Family) -> Tensor:
    """Draws of the model itself."""
    source = generator(seed)
    z = torch.randn(count, 2, generator=source)
    decoder = model.get_submodule("decoder.layers.0")
    with torch.no_grad():
        return decoder(z) + 0.5 * torch.randn(count, 6, generator=source)


@pytest.fixture(scope="module")
def reference(model: Family) -> Reference:
    return Reference.of(model, rows(1000, 0, model))


def test_the_aggregate_of_a_model_that_is_right_is_its_prior(reference: Reference) -> None:
    assert reference.rows == 1000
    assert (reference.mean.abs() < 0.2).all()
    assert ((reference.aggregate_variance - 1).abs() < 0.2).all()  # Var(mu) + E[sigma^2] = 1
    assert (reference.mean_of_variances < 0.2).all()
    torch.testing.assert_close(reference.variance_of_means, reference.covariance.diagonal())
    assert torch.equal(reference.quantiles[0], reference.points.min(dim=0).values.double())
    torch.testing.assert_close(reference.quantiles[50], reference.points.double().quantile(0.5, dim=0))


def test_limits_are_passed_as_often_as_they_say(model: Family) -> None:
    """400 references of 99 rows, each with 50 new rows: mean of the shares within 5 standard errors of the level."""
    facts, passed = Facts(model), {name: [] for name in ("error", "rate", "norm")}
    for seed in range(400):
        known = Reference.of(model, rows(99, 2 * seed, model))
        scores = known.score(facts_of(facts, rows(50, 2 * seed + 1, model)))
        for name, values in scores.items():
            passed[name].append(known.limit(name, 0.1).beyond(values).double().mean())
    for name, shares in passed.items():
        found = torch.stack(shares)
        error = found.std() / len(found) ** 0.5
        assert abs(found.mean() - 0.1) < 5 * error, (name, found.mean(), error)


def test_limits_and_p_values_agree_on_every_side(reference: Reference) -> None:
    values = torch.linspace(float(reference.scores["rate"][0]) - 1, float(reference.scores["rate"][-1]) + 1, 5001)
    for side in ("upper", "lower", "both"):
        beyond = reference.limit("rate", 0.05, side).beyond(values.double())
        assert torch.equal(beyond, reference.p_value("rate", values.double(), side) <= 0.05), side
        assert 0 < beyond.double().mean() < 1


def test_a_level_that_the_rows_are_too_few_for_is_refused_with_the_number_needed(reference: Reference) -> None:
    assert reference.limit("error", 0.001).rows == 1000
    assert "1,000" in reference.limit("error", 0.001).validity
    with pytest.raises(DataError, match="9,999"):
        reference.limit("error", 0.0001)
    with pytest.raises(DataError, match="1,999"):
        reference.limit("rate", 0.001)  # both sides
    reference.limit("rate", reference.smallest_level("rate"))
    with pytest.raises(UsageError, match="has no score"):
        reference.limit("beauty", 0.1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        reference.limit("error", 0.0)


def test_what_is_saved_is_read_to_the_bit(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path)
    again = Reference.load(tmp_path)
    assert torch.equal(again.points, reference.points)
    assert torch.equal(again.precision, reference.precision)
    assert again.scores.keys() == reference.scores.keys()
    assert all(torch.equal(again.scores[name], values) for name, values in reference.scores.items())
    assert again.groups == reference.groups
    numbers = json.loads((tmp_path / "reference.json").read_text())
    (tmp_path / "reference.json").write_text(json.dumps({"rows": numbers["rows"]}))
    with pytest.raises(TamperedError, match="not the reference"):
        Reference.load(tmp_path)
    (tmp_path / "reference.safetensors").write_bytes(b"no")
    with pytest.raises(TamperedError, match="damaged"):
        Reference.load(tmp_path)


def test_a_unit_that_never_changes_harms_nothing(model: Family) -> None:
    with torch.no_grad():
        constant = exact_linear_vae(6, 2, 0.5).float()
        constant.get_submodule("encoder.layers.0").get_parameter("weight")[0] = 0
    for count in (4, 100):  # units known apart, and together
        known = Reference.of(constant, rows(count, 0, model))
        assert torch.isfinite(known.norm(known.points)).all()
        assert torch.isfinite(known.scores["norm"]).all()


def test_discrete_codes_are_kept_as_integers() -> None:
    model = FAMILIES["vq-vae-ema"].make().eval()
    raw = raw_rows(model.data, 12)
    known = Reference.of(model, raw)
    found = facts_of(Facts(model), raw)
    assert torch.equal(known.indices, found["codes"].flatten(1).int())
    assert known.points.shape == (12, 0)
    assert "norm" not in known.scores
    assert "rate" not in known.scores
    assert known.score(found).keys() == {"error"}


def test_every_family_with_codes_has_a_reference(tmp_path: Path) -> None:
    for name, row in FAMILIES.items():
        model = row.make().eval()
        if not row.codes or model.data.context:
            continue
        known = Reference.of(model, raw_rows(model.data, 6))
        known.save(tmp_path)
        assert "error" in Reference.load(tmp_path).scores, name


def test_statistics_of_the_input_are_on_the_unit_interval() -> None:
    raw = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    raw[1, 2, :2] = 255
    found = input_statistics(raw, DataSpec((3, 4, 4), levels=256))
    assert found["pixel_mean_2"].tolist() == [0, 0.5]
    assert found["pixel_variance_2"].tolist() == pytest.approx([0, 0.25])
    assert found["pixel_variance_0"].tolist() == [0, 0]
    assert input_statistics(torch.zeros(2, 5), DataSpec((5,))) == {}


def test_no_reference_without_rows_or_codes(model: Family) -> None:
    with pytest.raises(DataError, match="at least two"):
        Reference.of(model, rows(1, 0, model))
    density = FAMILIES["density-mixture"].make()
    with pytest.raises(NotSupportedError, match="no latents"):
        Reference.of(density, raw_rows(density.data, 6))

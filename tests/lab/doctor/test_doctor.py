"""Every symptom is planted by breaking a model or its data, and found; healthy runs raise none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional

import lowerbound
from lowerbound.errors import DataError, LowerboundError
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.doctor.examine import CHECKS, Examination, doctor, examine
from lowerbound.lab.doctor.patient import Patient
from lowerbound.lab.doctor.samples import LOST
from lowerbound.lab.evaluation.case import Case
from lowerbound.lab.evaluation.modes import lost_rows
from lowerbound.lab.foreign import Foreign
from lowerbound.lab.run import Run
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator
from lowerbound.recipe import Evaluation

QUICK = ["training.epochs=60", 'training.guard.policy="off"']


def train(folder: Path, *overrides: str, recipe: str = "digits", data: Dataset | None = None) -> Run:
    return lowerbound.train(lowerbound.read_recipe(recipe, [*QUICK, *overrides]), folder / "run", data=data)


def symptoms(found: Examination) -> set[str]:
    for diagnosis in found.found:
        assert re.search(r"\d", diagnosis.evidence), diagnosis
        assert "healthy" in diagnosis.evidence, diagnosis
        assert diagnosis.causes
        assert diagnosis.treatment
        assert len({len(rows) for rows in diagnosis.rows.values()}) <= 1
    return {diagnosis.symptom for diagnosis in found.found}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("healthy"))


# ---------------------------------------------------------------------------------------------------- healthy runs


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_run_raises_none(seed: int, tmp_path: Path) -> None:
    assert symptoms(doctor(train(tmp_path, f"seed={seed}"))) == set()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["digits-convolutional", "digits-gaussian-pixel", "digits-free-bits"])
def test_healthy_runs_of_other_kinds_raise_none(recipe: str, tmp_path: Path) -> None:
    assert symptoms(doctor(train(tmp_path, recipe=recipe))) == set()


def test_points_raise_none(tmp_path: Path) -> None:
    found = doctor(lowerbound.train(lowerbound.read_recipe("gmm2d"), tmp_path / "run"))
    assert symptoms(found) == set()
    assert "colour shift" in found.skipped


def test_every_symptom_is_looked_for(healthy: Run) -> None:
    found = doctor(healthy)
    assert {*found.healthy, *found.skipped} == set(CHECKS)


# ------------------------------------------------------------------------------------------------------- modes


def train_points(folder: Path, recipe: str, *overrides: str) -> Run:
    return lowerbound.train(lowerbound.read_recipe(recipe, list(overrides)), folder / "run")


@pytest.mark.parametrize("seed", range(3))
def test_the_collapse_of_a_plain_gan_is_found_and_alarmed_about(seed: int, tmp_path: Path) -> None:
    """A generator that steps faster than its critic runs from mode to mode."""
    with pytest.warns(UserWarning, match="has lost modes"):
        run = train_points(tmp_path, "grid2d-gan", f"seed={seed}", "training.steps=510")
    found = doctor(run)
    assert "mode collapse" in symptoms(found)
    assert "cannot encode" in found.skipped["prior holes"]
    assert read_journal(run.journal_path)[-1]["alarm_made_reach"] == 1


@pytest.mark.parametrize("seed", range(2))
def test_a_critic_whose_slope_is_held_loses_no_modes(seed: int, tmp_path: Path) -> None:
    """Plain networks as above, long before samples are sharp; an alarm would be a warning, which is an error here."""
    critic = 'objective.critic={kind="mlp", widths=[128, 128, 128], activation="leaky_relu"}'
    held = ['objective.game={kind="wasserstein"}', 'objective.penalty={kind="gradient", weight=0.1}', critic]
    rates = ["training.learning_rate=5e-4", "training.learning_rates={critic=1e-3}", "training.betas=[0.0, 0.9]"]
    longer = ["training.steps=250", "objective.turns=3"]
    assert symptoms(doctor(train_points(tmp_path, "grid2d-gan", f"seed={seed}", *held, *rates, *longer))) == set()


@pytest.mark.parametrize(("kept", "collapsed"), [(25, False), (24, False), (20, True), (5, True), (1, True)])
def test_lost_modes_are_found_without_being_known(kept: int, collapsed: bool) -> None:
    """Draws of the data themselves from some of 25 modes only, wide of them: how sharp they are is another matter."""
    data = lowerbound.load_data({"kind": "grid2d"})
    assert data.truth is not None
    rows = data.train.take(torch.arange(1000, 1400)).raw
    home = torch.cdist(rows, data.truth.centres).argmin(dim=1)
    moved = rows + data.truth.centres[home % kept] - data.truth.centres[home] + 0.3 * noise_rows(400, 2, 0)
    known, held = (data.split(split).take(torch.arange(1000)).raw for split in ("train", "test"))
    assert (float(lost_rows(known, held, moved).double().mean()) >= LOST) == collapsed


# ------------------------------------------------------------------------------------------ broken in training


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("objective.beta=30", "posterior collapse"),
        ("objective.beta=30", "identical samples"),
        ("objective.beta=30", "blurry reconstructions"),
        ("objective.beta=0", "rate absent from the loss"),
        ("objective.beta=0.001", "rate too high for the data"),
        ("objective.beta=0.001", "prior holes"),
        ('model.likelihood={kind="gaussian-fixed", sigma=0.6}', "rate too low for the data"),
    ],
)
def test_a_wrong_loss_is_found(override: str, expected: str, tmp_path: Path) -> None:
    assert expected in symptoms(doctor(train(tmp_path, override)))


def noise_rows(rows: int, size: int, seed: int) -> Tensor:
    return torch.randn(rows, size, generator=generator(seed))


def dataset(train_rows: Tensor, held: Tensor) -> Dataset:
    known, asked = InMemory(train_rows), InMemory(held)
    return Dataset("own", DataSpec(tuple(held.shape[1:]), examples=len(train_rows)), known, asked, asked)


PLAIN = ['data={kind="digits"}', 'model.likelihood={kind="gaussian"}', "training.epochs=400"]


def test_overfitting_is_found(tmp_path: Path) -> None:
    data = dataset(noise_rows(60, 64, 0), noise_rows(200, 64, 1))
    assert "overfitting" in symptoms(doctor_of(train(tmp_path, *PLAIN, data=data), data))


def test_inputs_on_a_wrong_scale_are_found(tmp_path: Path) -> None:
    data = dataset(5000 + 1000 * noise_rows(300, 8, 0), 5000 + 1000 * noise_rows(200, 8, 1))
    assert "wrong scaling of inputs" in symptoms(doctor_of(train(tmp_path, *PLAIN, data=data), data))


def test_rows_on_another_scale_than_training_rows_are_found(tmp_path: Path) -> None:
    known, held = noise_rows(300, 8, 0), noise_rows(200, 8, 1)
    run = train(tmp_path, *PLAIN, "training.epochs=60", data=dataset(known, held))
    assert "wrong scaling of inputs" in symptoms(doctor_of(run, dataset(known, held / 255)))


def test_a_good_loss_by_constant_values_is_found(tmp_path: Path) -> None:
    """Most values are all but constant, and the code is priced out: a noise for each value makes the loss good."""

    def rows(seed: int) -> Tensor:
        active = noise_rows(300, 2, seed) @ torch.ones(2, 6)
        return torch.cat([active, 1e-4 * noise_rows(300, 58, seed + 10)], dim=1)

    data = dataset(rows(0), rows(1))
    run = train(tmp_path, *PLAIN, 'model.likelihood={kind="gaussian-pixel"}', "objective.beta=30", data=data)
    assert "good loss, poor reconstructions" in symptoms(doctor_of(run, data))


def test_a_dying_codebook_is_found(tmp_path: Path) -> None:
    """All rows are near one point, so nearly all codes starve."""
    data = dataset(1 + 1e-3 * noise_rows(300, 8, 0), 1 + 1e-3 * noise_rows(300, 8, 1))
    codes = '{kind="ema", size=256, dimension=4, start=false, restart=0.0}'
    model = f'model={{kind="vq-vae", positions=[4], quantizer={codes}}}'
    objective = 'objective={kind="elbo", penalties={commitment=0.25}}'
    run = lowerbound.train(lowerbound.read_recipe("digits", [*QUICK, model, objective]), tmp_path / "run", data=data)
    assert "codebook dying" in symptoms(doctor_of(run, data))


def test_a_critic_that_dominates_is_found(healthy: Run) -> None:
    model = healthy.model()
    rows = [{"step": step, "gradient_norm_model": 1e-4, "gradient_norm_critic": 5.0, "beta": 1.0} for step in range(50)]
    data = lowerbound.load_data({"kind": "digits"})
    case = Case(model, data, Evaluation(examples=100))
    assert symptoms(examine(Patient(case, rows))) == {"one network dominating"}
    fair = [{**row, "gradient_norm_model": 1.0} for row in rows]
    assert symptoms(examine(Patient(case, fair))) == set()


# --------------------------------------------------------------------------------------------- broken afterwards


def doctor_of(run: Run, data: Dataset) -> Examination:
    case = Case(run.model(), data, Evaluation(examples=300))
    return examine(Patient(case))


def broken(run: Run, break_it: Callable[[Family], None]) -> Examination:
    model = run.model()
    with torch.no_grad():
        break_it(model)
    return examine(Patient(Case(model, lowerbound.load_data({"kind": "digits"}), Evaluation(examples=300))))


def test_a_decoder_that_does_not_see_the_code_is_found(healthy: Run) -> None:
    def cut(model: Family) -> None:
        model.get_submodule("decoder.layers.0").get_parameter("weight").zero_()

    assert {"encoder without gradient", "identical samples"} <= symptoms(broken(healthy, cut))


def test_a_code_that_drifted_is_found(healthy: Run) -> None:
    """The encoder moves one unit by 4, and the decoder takes it back: the same reconstructions."""

    def shift(model: Family) -> None:
        last = list(model.get_submodule("encoder").parameters())[-1]
        last[0] += 4
        first = model.get_submodule("decoder.layers.0")
        first.get_parameter("bias").sub_(4 * first.get_parameter("weight")[:, 0])

    found = broken(healthy, shift)
    assert symptoms(found) >= {"latent mean drifting"}
    assert "rate too low for the data" in found.healthy


def test_rare_rows_that_are_not_reconstructed_are_found(healthy: Run) -> None:
    data = lowerbound.load_data({"kind": "digits"})
    raw = data.test.take(torch.arange(300)).raw.clone()
    raw[::25] = 16 - raw[::25]
    spoiled = Dataset("spoiled", data.spec, data.train, data.validation, InMemory(raw))
    assert "rare events not reconstructed" in symptoms(examine(Patient(Case(healthy.model(), spoiled, Evaluation()))))


class Copier(Foreign):
    """An autoencoder that gives back what it takes, spoiled by a function."""

    def __init__(self, data: DataSpec, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__(data, "raw")
        self.spoil = spoil
        self.latents = {"z": data.event}

    def posteriors(self, x: Tensor) -> dict[str, Distribution]:
        return {"z": Delta(x, len(self.data.event))}

    def restored(self, latents: Latents) -> Tensor:
        return self.spoil(latents["z"])


def pictures(rows: int = 120, side: int = 32) -> Tensor:
    """Smooth colour pictures with some grain, (N, 3, side, side), 256 levels."""
    source = generator(4)
    coarse = torch.rand(rows, 3, 6, 6, generator=source)
    smooth = functional.interpolate(coarse, (side, side), mode="bicubic")
    return (40 + 170 * smooth + 6 * torch.randn(smooth.shape, generator=source)).clamp(0, 255).round()


def blurred(x: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), 5, stride=1)


def redder(x: Tensor) -> Tensor:
    return x + torch.tensor([15.0, 0.0, 0.0])[:, None, None]


def chequered(x: Tensor) -> Tensor:
    sign = torch.ones(x.shape[-2:])
    sign[::2, ::2] = sign[1::2, 1::2] = -1
    return x + 6 * sign


def ringing(x: Tensor) -> Tensor:
    return x + 3 * (x - blurred(x))


def tiled(x: Tensor) -> Tensor:
    """Each half of a picture has its own offset, as tiles that were normalised alone."""
    offsets = 12 * torch.randn(len(x), 1, 1, 1, generator=generator(len(x)))
    return torch.cat([x[..., :16], x[..., 16:] + offsets], dim=-1)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda x: x, set()),
        (blurred, {"blurry reconstructions"}),
        (redder, {"colour shift"}),
        (chequered, {"ringing or checkerboard"}),
        (ringing, {"ringing or checkerboard"}),
        (tiled, {"seams"}),
        (lambda x: 128 + (x - 128) / 4, {"wrong scaling of inputs"}),
    ],
    ids=["healthy", "blurred", "redder", "chequered", "ringing", "tiled", "weaker"],
)
def test_spoiled_pictures_are_found(spoil: Callable[[Tensor], Tensor], expected: set[str]) -> None:
    rows = InMemory(pictures().to(torch.uint8))
    spec = DataSpec((3, 32, 32), levels=256, examples=120)
    case = Case(Copier(spec, spoil), Dataset("pictures", spec, rows, rows, rows), Evaluation())
    found = symptoms(examine(Patient(case)))
    assert found == expected if not expected else expected <= found


def test_weights_that_are_no_numbers_are_named() -> None:
    rows = InMemory(pictures().to(torch.uint8))
    spec = DataSpec((3, 32, 32), levels=256, examples=120)
    case = Case(Copier(spec, lambda x: x * float("nan")), Dataset("pictures", spec, rows, rows, rows), Evaluation())
    with pytest.raises(DataError, match="weights are broken"):
        examine(Patient(case))


# ------------------------------------------------------------------------------------------------------- treatments


def test_settings_in_treatments_exist() -> None:
    """Each `--set` of a treatment can be set on some shipped recipe."""
    source = "".join(path.read_text() for path in Path(lowerbound.__file__).parent.glob("lab/doctor/*.py"))
    settings = [*re.findall(r"--set '([^']+)'", source), *re.findall(r"--set ([\w.]+=[\w.-]+)", source)]
    assert len(settings) > 8
    for setting in settings:
        refused = []
        recipes = ("digits", "digits-convolutional", "digits-autoencoder", "grid2d-gan")
        for recipe in recipes:
            overrides = [setting.replace('\\"', '"')]
            overrides += ["training.validate_every=100"] if "patience" in setting else []
            overrides += (
                ['model={kind="vq-vae", quantizer={kind="ema"}}'] if setting.startswith("model.quantizer") else []
            )
            chosen = lowerbound.read_recipe(recipe, overrides)
            try:
                lowerbound.make_loop(chosen, lowerbound.load_data(chosen.data))
            except LowerboundError as error:
                refused.append(str(error))
        assert len(refused) < len(recipes), refused

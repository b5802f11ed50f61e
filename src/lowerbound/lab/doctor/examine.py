"""All checks of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lowerbound.errors import NotSupportedError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Dataset
from lowerbound.lab.device import find_device
from lowerbound.lab.doctor import latents, learning, pictures, samples
from lowerbound.lab.doctor.patient import ROWS, Diagnosis, Patient
from lowerbound.lab.evaluation.case import Case
from lowerbound.lab.foreign import Scale, open_autoencoder
from lowerbound.lab.run import Run
from lowerbound.lab.training.journal import read_journal
from lowerbound.recipe import Evaluation

Check = Callable[[Patient], Diagnosis | None]

# By the symptom that each looks for; causes of others come first.
CHECKS: dict[str, Check] = {
    "wrong scaling of inputs": learning.wrong_scale,
    "encoder without gradient": learning.encoder_without_gradient,
    "posterior collapse": latents.collapse,
    "rate absent from the loss": latents.rate_absent,
    "rate too low for the data": latents.rate_too_low,
    "rate too high for the data": latents.rate_too_high,
    "prior holes": latents.prior_holes,
    "latent mean drifting": latents.mean_drift,
    "codebook dying": latents.codebook,
    "overfitting": learning.overfitting,
    "one network dominating": learning.one_sided_players,
    "good loss, poor reconstructions": learning.poor_reconstructions,
    "blurry reconstructions": pictures.blur,
    "mode collapse": samples.mode_collapse,
    "identical samples": pictures.identical_samples,
    "colour shift": pictures.colour_shift,
    "ringing or checkerboard": pictures.checkerboard,
    "seams": pictures.seams,
    "rare events not reconstructed": pictures.rare_rows,
}


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        found: symptoms, causes of others first.
        healthy: symptoms that were looked for and are not there.
        skipped: symptoms that cannot be looked for, and why.
    """

    found: list[Diagnosis]
    healthy: list[str]
    skipped: dict[str, str]


def examine(patient: Patient, watch: Callable[[int, int], None] | None = None) -> Examination:
    """Look for every symptom.

    Args:
        patient: the model with its data.
        watch: told how many checks of how many are done.
    """
    found: list[Diagnosis] = []
    healthy: list[str] = []
    skipped: dict[str, str] = {}
    for number, (symptom, check) in enumerate(CHECKS.items(), 1):
        try:
            diagnosis = check(patient)
        except NotSupportedError as error:
            skipped[symptom] = str(error)
        else:
            found += [diagnosis] if diagnosis else []
            healthy += [] if diagnosis else [symptom]
        if watch is not None:
            watch(number, len(CHECKS))
    return Examination(found, healthy, skipped)


def doctor(
    run: Run | Path | str,
    *,
    data: Dataset | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    watch: Callable[[int, int], None] | None = None,
) -> Examination:
    """Examine a finished run.

    Args:
        run: the run or its folder.
        data: other rows than those of its recipe; training rows stay the recipe's.
        data_dir: where the recipe's data lie.
        device: a torch device.
        watch: told how many checks of how many are done.

    Raises:
        RunError, TamperedError, DataError: as for loading a run and data.
    """
    run = run if isinstance(run, Run) else Run(run)
    recipe = run.recipe()
    model = run.model().to(find_device(device))
    own = load_data(recipe.data, data_dir, run.quarantine_path)
    rows = own if data is None else Dataset(data.name, own.spec, own.train, data.validation, data.test)
    settings = recipe.evaluation.model_copy(update={"examples": ROWS})
    patient = Patient(Case(model, rows, settings), read_journal(run.journal_path), recipe, str(run.path))
    return examine(patient, watch)


def doctor_foreign(
    path: Path,
    data: Dataset,
    *,
    scale: Scale = "raw",
    device: str = "cpu",
    watch: Callable[[int, int], None] | None = None,
) -> Examination:
    """Examine an autoencoder of others on rows of one's own.

    Args:
        path: of its folder, see `open_autoencoder`.
        data: the rows.
        scale: of the values that a pair in ONNX takes and gives.
        device: a torch device; a pair in ONNX runs on the processor.
        watch: told how many checks of how many are done.

    Raises:
        UsageError, DataError: as for opening it.
    """
    model = open_autoencoder(path, data.spec, scale).to(find_device(device))
    case = Case(model, data, Evaluation(batch_size=16, examples=ROWS))
    return examine(Patient(case, path=str(path)), watch)

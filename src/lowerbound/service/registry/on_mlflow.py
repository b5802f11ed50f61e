"""Versions to and from MLflow's registry of models: the same files, so the same hash."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

from lowerbound.errors import NotSavedError, RegistryError
from lowerbound.extras import need
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version

EXPERIMENT, FOLDER = "lowerbound", "version"
HASH, REFERENCE = "lowerbound.hash", "lowerbound.version"  # tags
PLACE = "MLFLOW_TRACKING_URI"
WHAT = "Exchange with MLflow"


def to_mlflow(version: Version, place: str | None = None) -> int:
    """Register a version with MLflow, its files as artifacts and its evaluation as metrics of a run; its number there.

    A version that is there already is not sent again.

    Args:
        version: of our registry; its files are verified first.
        place: of MLflow's tracking server or store; by default $MLFLOW_TRACKING_URI.

    Raises:
        TamperedError: a file of the version is not what was registered.
        UsageError: MLflow is not installed.
        RegistryError: no place is given.
        NotSavedError: MLflow could not be reached, or refused.
    """
    version.verify()
    client, exceptions = _client(place)
    try:
        client.create_registered_model(version.name)
    except exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise _failed(error) from None
    try:
        for there in client.search_model_versions(f"name='{version.name}'"):
            if there.tags.get(HASH) == version.hash:
                return int(there.version)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
        run = client.create_run(experiment, run_name=version.reference).info
        client.log_artifacts(run.run_id, str(version.path), FOLDER)
        for name, value in _numbers(version).items():
            client.log_metric(run.run_id, name, value)
        client.set_terminated(run.run_id)
        tags = {HASH: version.hash, REFERENCE: version.reference}
        source = f"{run.artifact_uri.rstrip('/')}/{FOLDER}"
        return int(client.create_model_version(version.name, source, run.run_id, tags=tags).version)
    except exceptions.MlflowException as error:
        raise _failed(error) from None


def from_mlflow(
    registry: Registry, name: str, number: int, place: str | None = None, *, as_name: str | None = None, why: str = ""
) -> Version:
    """Register a version that MLflow keeps; it has the hash that it had where it was made.

    Args:
        registry: that takes it.
        name, number: in MLflow.
        place: as in `to_mlflow`.
        as_name: in our registry; by default the same.
        why: for the history.

    Raises:
        TamperedError: a file is not what was registered.
        UsageError: MLflow is not installed.
        RegistryError: no place is given, or what MLflow keeps is no version of ours.
        NotSavedError: MLflow could not be reached, or has no such version.
    """
    client, exceptions = _client(place)
    artifacts = need("mlflow.artifacts", "mlflow", WHAT)
    with tempfile.TemporaryDirectory(prefix="lowerbound-mlflow-") as folder:
        try:
            tags = client.get_model_version(name, str(number)).tags
            uri = client.get_model_version_download_uri(name, str(number))
            path = artifacts.download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=client.tracking_uri)
        except exceptions.MlflowException as error:
            raise _failed(error) from None
        if HASH not in tags:
            raise RegistryError(
                f"version {number} of {name} in MLflow has no tag `{HASH}`, so it is no version of ours."
            )
        return registry.adopt(
            Path(path), as_name or name, expected=tags[HASH], why=why or f"from MLflow, {name} {number}"
        )


def _client(place: str | None) -> tuple[Any, Any]:
    """A client, and the module of its exceptions. MLflow's own usage reports are switched off."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    where = place or os.environ.get(PLACE)
    tracking, exceptions = need("mlflow.tracking", "mlflow", WHAT), need("mlflow.exceptions", "mlflow", WHAT)
    if not where:
        raise RegistryError(f"no place of MLflow was given; give its address with --mlflow, or set ${PLACE}.")
    return tracking.MlflowClient(tracking_uri=where), exceptions


def _numbers(version: Version) -> dict[str, float]:
    """What its evaluation found, where it is a finite number."""
    results = version.evaluation()["results"]
    found = {name: result.get("value") for name, result in results.items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and math.isfinite(value)}


def _failed(error: Exception) -> NotSavedError:
    return NotSavedError(f"MLflow said: {str(error).splitlines()[0]}.")

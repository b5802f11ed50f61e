"""Probes: rows whose answers are known, sent to a live server: other answers with the same weights are its fault."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.lab.checkpoint import read_tensors, write_tensors
from lowerbound.lab.data.load import load_data
from lowerbound.lab.run import Run
from lowerbound.service.client import Client, ServerError
from lowerbound.service.monitoring.drift.window import Array
from lowerbound.service.monitoring.incidents import Incident, Incidents
from lowerbound.service.monitoring.looking.stretch import PROBE
from lowerbound.service.monitoring.looking.through import facts_through
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.deployment import deploy

FOLDER = "probes"
COUNT = 16
TOLERANCE = 1e-3  # of the size of a number: an export is proven to less
NUMBERS = ("error", "rate", "norm")


@dataclass(frozen=True)
class Probed:
    """What a server made of probes.

    Attributes:
        version: NAME:NUMBER that it said it serves; its hash if that is not registered.
        probes: that were sent.
        largest: difference of an answer, over the size of what was expected.
        fault: what is wrong, empty if nothing is.
    """

    version: str
    probes: int
    largest: float
    fault: str

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Probes:
    """Held-out rows of a version that its gate lets through, and what its weights make of them.

    Attributes:
        rows: raw, (N, *event).
        expected: error, rate and norm, those that there are, (N,).
    """

    rows: Array
    expected: dict[str, Array]

    @staticmethod
    def of(version: Version, telemetry: Path, data_dir: Path | None = None, count: int = COUNT) -> Probes:
        """Those of a version; made of its data once, and kept in the telemetry's folder.

        Raises:
            NotSupportedError: the model is conditional.
            DataError: its gate refuses all held-out rows, or there are none.
        """
        path = telemetry / FOLDER / version.name / f"{version.hash[:16]}.safetensors"
        if path.is_file():
            found = {name: values.numpy() for name, values in read_tensors(path).items()}
            return Probes(found.pop("rows"), found)
        made = Probes._made(version, data_dir, count)
        arrays = {"rows": made.rows, **made.expected}
        write_tensors(path, {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})
        return made

    @staticmethod
    def _made(version: Version, data_dir: Path | None, count: int) -> Probes:
        run = Run(version.path)
        deployment = deploy(version.name, version, "", "torch", 0.05, 1)
        if deployment.contract.needs_label:
            raise NotSupportedError(f"{version.reference} needs labels, and probes have none; probe another model.")
        data = load_data(run.recipe().data, data_dir, run.quarantine_path).test
        rows = data.take(torch.arange(min(len(data), 8 * count))).raw.numpy()
        facts = facts_through(deployment, rows, [0.0] * len(rows), [""] * len(rows))
        passed = [place for place, fact in enumerate(facts) if fact.gate == "passed"][:count]
        if not passed:
            raise DataError(
                f"the gate of {version.reference} refuses all of {len(rows)} held-out rows; look at its data."
            )
        known = [name for name in NUMBERS if getattr(facts[passed[0]], name) is not None]
        expected = {name: np.array([getattr(facts[place], name) for place in passed]) for name in known}
        return Probes(rows[passed], expected)


def probe(
    url: str, name: str, registry: Registry, telemetry: Path, *, key: str | None = None, data_dir: Path | None = None
) -> Probed:
    """Send the probes of the version that a server says it serves, and compare its answers with the weights' own.

    Args:
        url: of the server.
        name: that it serves.
        registry: that its versions are in.
        telemetry: folder of the store, where probes are kept.
        key: where the server needs one.
        data_dir: where the run's data lie, for the first time.

    Raises:
        RegistryError: there is no such model.
        DataError: the server does not serve it.
    """
    with Client(url, key, ids=PROBE) as client:
        served = {one["name"]: one for one in client.models()}.get(name)
        if served is None:
            raise DataError(f"the server does not serve {name}; probe what it serves.")
        versions = registry.versions(name.partition("@")[0].partition(":")[0])
        version = next((one for one in versions if one.hash == served["hash"]), None)
        if version is None:
            return Probed(served["hash"], 0, 0.0, f"the server serves {served['hash']}, which is not in this registry.")
        probes = Probes.of(version, telemetry, data_dir)
        return _compared(client, name, version, probes)


def _compared(client: Client, name: str, version: Version, probes: Probes) -> Probed:
    largest = 0.0
    for place, row in enumerate(probes.rows):
        try:
            answer = client.score(name, row[None])
        except ServerError as error:
            return Probed(version.reference, place + 1, largest, f"probe {place} was refused: {error}")
        for fact, values in probes.expected.items():
            if fact not in answer:
                return Probed(version.reference, place + 1, largest, f"the answer to probe {place} has no `{fact}`.")
            apart = abs(float(answer[fact][0]) - float(values[place])) / max(1e-6, float(np.abs(values).max()))
            largest = max(largest, apart)
    if largest <= TOLERANCE:
        return Probed(version.reference, len(probes.rows), largest, "")
    fault = (
        f"answers differ from those of the weights of {version.reference} by {largest:.2g} of their size; at most "
        f"{TOLERANCE:g} is explained by another engine."
    )
    return Probed(version.reference, len(probes.rows), largest, fault)


def raise_fault(found: Probed, name: str, telemetry: Path, at: float) -> Incident | None:
    """Put a fault into an incident; None where there is none."""
    if not found.fault:
        return None
    incidents = Incidents(telemetry)
    incident, new = incidents.raise_alerts(name, found.version, ("serving-fault",), at, found.fault)
    if new:
        text = "Start the server anew, or with `--engine torch`; if that mends it, export and register the run again."
        incident = incidents.note(incident.id, "mitigate", text, at)
    return incident

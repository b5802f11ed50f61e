"""One version in service: its contract, its engine, and what its reference says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from lowerbound.errors import UsageError
from lowerbound.files import read_json, sha256
from lowerbound.lab.facts import Facts
from lowerbound.lab.run import load
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.contract import Contract
from lowerbound.service.serving.engine import Engine, OnnxEngine, TorchEngine
from lowerbound.service.serving.judge import Judge
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.settings import NONE, VERBS, Settings

Choice = Literal["auto", "onnx", "torch"]


@dataclass(frozen=True, eq=False)
class Deployment:
    """A version that requests are answered by; it is never changed, only replaced.

    Attributes:
        name: that requests give.
        version: of the registry.
        alias: that it is reached by; empty where a number was given.
        contract, engine, judge: what it takes, what computes, what it is compared with.
        since: when it was loaded, seconds since 1970.
    """

    name: str
    version: Version
    alias: str
    contract: Contract
    engine: Engine
    judge: Judge
    since: float

    @cached_property
    def label(self) -> str:
        """The version for headers and facts: its number and the beginning of its hash."""
        return f"{self.version.number}-{self.version.hash[:12]}"

    def compute(self, operation: str, arrays: Arrays, settings: Settings) -> Arrays:
        """The outputs of an operation, with what the reference says of them; called in the engine's thread."""
        outputs = self.engine.run(operation, arrays, settings)
        if operation in ("encode", "facts"):
            self.judge.observe(outputs)
        return outputs

    def describe(self) -> dict[str, Any]:
        """As JSON, for people and clients."""
        contract = self.contract
        return {
            "name": self.name,
            "version": self.version.number,
            "hash": self.version.hash,
            "engine": self.engine.name,
            "serving_since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since)),
            "rows": {"shape": list(contract.event), "levels": contract.levels, "pictures": contract.pictures},
            "codes": {name: list(shape) for name, shape in contract.latents.items()},
            "values": contract.values,
            "labels": contract.classes,
            "needs_label": contract.needs_label,
            "verbs": list(VERBS),
            "gate": [check.describe() for check in self.judge.checks],
        }

    def warm(self, sizes: tuple[int, ...]) -> None:
        """Compute once at some sizes, so that the first requests do not pay for it."""
        label = self.contract.label(0, 1) if self.contract.needs_label else None
        for size in sizes:
            arrays = {"rows": np.zeros((size, *self.contract.event), np.float32)}
            if label is not None:
                arrays["label"] = np.repeat(label, size)
            for operation in ("encode", "facts"):
                found = self.engine.run(operation, arrays, NONE)
            codes = {name: found[name] for name in self.contract.latents}
            self.engine.run("decode", codes if label is None else {**codes, "label": arrays["label"]}, NONE)


def deploy(name: str, version: Version, alias: str, engine: Choice, level: float, threads: int) -> Deployment:
    """Load a version, verify its files, and warm it.

    Args:
        name: that requests give.
        version: to load.
        alias: that it is reached by; empty where a number was given.
        engine: "auto" takes onnxruntime where the version has exported files that were proven.
        level: share of ordinary rows that each check of the gate may refuse.
        threads: of one computation.

    Raises:
        TamperedError: a file is not what was registered.
        UsageError: onnxruntime was asked for, and the version has no proven files.
    """
    version.verify()
    torch.set_num_threads(threads)
    model = load(version.path)
    reference = TorchEngine(model)
    contract = Contract.of(model, Facts(model).groups)
    judge = Judge(version.calibration(), level, contract.pictures)
    made = Deployment(name, version, alias, contract, _engine(version, reference, engine, threads), judge, time.time())
    made.warm((1, 8))
    return made


def _engine(version: Version, reference: TorchEngine, choice: Choice, threads: int) -> Engine:
    folder = version.path / "export"
    if choice == "torch" or (choice == "auto" and not (folder / "parity.json").is_file()):
        return reference
    if not (folder / "parity.json").is_file():
        raise UsageError(f"{version.name}:{version.number} has no proven export; serve it with --engine torch.")
    proven = read_json(folder / "parity.json").get("onnx", {}).get("files", {})
    for file in ("encode.onnx", "decode.onnx", "facts.onnx"):
        if sha256(folder / file) != proven.get(file):
            raise UsageError(f"{folder / file} is not the file that was proven; export and register the run again.")
    return OnnxEngine(folder, reference, threads)

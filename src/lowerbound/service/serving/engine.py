"""Engines compute operations on arrays: onnxruntime behind the parity record, and torch as the reference.

    encode       rows -> code of each group, rates, rate
    facts        rows -> all of that, reconstruction, error
    decode       codes by group -> reconstruction
    sample       seeds -> reconstruction: rows from the prior
    interpolate  starts and ends -> codes of the way, frames first
    traverse     rows -> codes, frames first
    edit         rows and a direction, or rows with and without an attribute -> codes, frames first

Engines know nothing of HTTP, queues or other versions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from lowerbound.errors import LowerboundError
from lowerbound.extras import need
from lowerbound.lab.facts import Facts
from lowerbound.lab.generation import directions, paths, use
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.spec import Context
from lowerbound.noise import RowNoise
from lowerbound.service.serving.payload import DIRECTION, Arrays
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.settings import MOST_ROWS, Settings

Tensors = dict[str, Tensor]


class Engine(ABC):
    """What computes one version.

    Attributes:
        name: "onnx" or "torch".
    """

    name: str

    @abstractmethod
    def run(self, operation: str, arrays: Arrays, settings: Settings) -> Arrays:
        """The outputs of an operation, one row for every row of the inputs, or one for every frame.

        Raises:
            RefusedError: the model cannot do this.
        """


@final
class TorchEngine(Engine):
    """The reference: the model itself.

    Args:
        model: in evaluation mode, on the processor.
    """

    name = "torch"

    def __init__(self, model: Family) -> None:
        self.model = model
        self._facts = Facts(model)
        self._operations: dict[str, Callable[[Tensors, Context | None, Settings], Tensors]] = {
            "encode": lambda given, context, _: self._facts.encode(given["rows"], context),
            "facts": lambda given, context, _: self._facts(given["rows"], context),
            "decode": self._decode,
            "sample": self._sample,
            "interpolate": self._interpolate,
            "traverse": self._traverse,
            "edit": self._edit,
        }

    @torch.inference_mode()
    def run(self, operation: str, arrays: Arrays, settings: Settings) -> Arrays:
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        labels = given.pop("label", None)
        context = None if labels is None else Context.labels(labels, self.model.data.context)
        try:
            found = self._operations[operation](given, context, settings)
        except LowerboundError as error:
            raise error if isinstance(error, RefusedError) else RefusedError("not-supported", str(error)) from None
        return {name: tensor.numpy() for name, tensor in found.items()}

    def _decode(self, given: Tensors, context: Context | None, _: Settings) -> Tensors:
        codes = {name: given[name] for name in self._facts.groups}
        return {"reconstruction": self.model.preparation.restore(tree.point(self.model.decode(codes, context)))}

    def _sample(self, given: Tensors, context: Context | None, settings: Settings) -> Tensors:
        noise = RowNoise(given["seeds"].tolist())
        return {"reconstruction": use.draw_rows(self.model, noise, context, settings.observe, settings.temperature)}

    def _interpolate(self, given: Tensors, context: Context | None, settings: Settings) -> Tensors:
        start, end = given["rows"][0::2], given["rows"][1::2]
        known = None if context is None else context.select(slice(0, None, 2))
        return _frames(paths.way(self.model, start, end, settings.steps, settings.method, known))

    def _traverse(self, given: Tensors, context: Context | None, settings: Settings) -> Tensors:
        units = self._some_units(len(given["rows"]), settings)
        moved = paths.traversal(
            self.model, given["rows"], units, settings.steps, settings.reach, context, settings.group
        )
        return _frames({name: codes.flatten(0, 1) for name, codes in moved.items()})

    def _edit(self, given: Tensors, context: Context | None, settings: Settings) -> Tensors:
        known = {name.removeprefix(DIRECTION): step for name, step in given.items() if name.startswith(DIRECTION)}
        direction = known or directions.mean_direction(
            self.model, given["having"], given["lacking"], *_alike(context, given["having"], given["lacking"])
        )
        return _frames(directions.moved(self.model, given["rows"], direction, settings.strengths, context))

    def _some_units(self, rows: int, settings: Settings) -> tuple[int, ...] | None:
        """The units to move; all of them only where this is not too much."""
        shape = self.model.latents.get(settings.group or self._facts.groups[0], ())
        asked = len(settings.units) if settings.units else math.prod(shape)
        if rows * asked * settings.steps > MOST_ROWS:
            raise RefusedError(
                "too-many-rows",
                f"{asked} units with {settings.steps} steps are too many for one request; name `units`.",
            )
        return settings.units


def _alike(context: Context | None, *rows: Tensor) -> tuple[Context | None, ...]:
    """The context of a request's first row for other rows."""
    if context is None:
        return tuple(None for _ in rows)
    return tuple(context.select(torch.zeros(len(some), dtype=torch.long)) for some in rows)


def _frames(codes: Latents) -> Tensors:
    """Codes (lines, steps, *units) with the steps first."""
    return {name: code.movedim(1, 0).contiguous() for name, code in codes.items()}


@final
class OnnxEngine(Engine):
    """Exported files by onnxruntime; what was not exported is left to the reference.

    Args:
        folder: of the files.
        reference: of the same version.
        threads: of one computation.
    """

    name = "onnx"

    def __init__(self, folder: Path, reference: TorchEngine, threads: int) -> None:
        runtime = need("onnxruntime", "serve", "The fast engine")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_cpu_mem_arena = False  # with batches of many sizes it grows without end
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the loop needs the cores as well
        options.log_severity_level = 3
        self._reference = reference
        self._sessions: dict[str, tuple[Any, list[str], list[str]]] = {}
        for name in ("encode", "facts", "decode"):
            content = (folder / f"{name}.onnx").read_bytes()
            session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            takes = [given.name for given in session.get_inputs()]
            self._sessions[name] = (session, takes, [made.name for made in session.get_outputs()])

    def run(self, operation: str, arrays: Arrays, settings: Settings) -> Arrays:
        if operation not in self._sessions or "label" in arrays:
            return self._reference.run(operation, arrays, settings)
        session, takes, gives = self._sessions[operation]
        feed = {takes[0]: arrays["rows"]} if "rows" in arrays else {name: arrays[name] for name in takes}
        return dict(zip(gives, session.run(gives, feed), strict=True))

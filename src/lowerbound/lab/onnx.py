"""Networks in ONNX files, on tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lowerbound.errors import DataError, UsageError
from lowerbound.extras import need

TYPES = {"tensor(float)": torch.float32, "tensor(int64)": torch.int64}


class OnnxNetwork:
    """A network of a file, on the processor; needs the extra "export".

    Args:
        path: of the file.

    Attributes:
        path: of the file.
        inputs, outputs: their names, in order.

    Raises:
        UsageError: there is no such file.
        DataError: it is no network.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"there is no file {path}.")
        runtime = need("onnxruntime", "export", str(path))
        try:
            self._session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises kinds of its own, one for each way to be broken
            raise DataError(f"{path} is no network that onnxruntime can read: {_first(error)}") from None
        if wrong := [given for given in self._session.get_inputs() if given.type not in TYPES]:
            raise DataError(
                f"{path} takes `{wrong[0].name}` as {wrong[0].type}; only real numbers (float) and whole ones (int64) "
                "are given to networks."
            )
        self._types = [TYPES[given.type] for given in self._session.get_inputs()]
        self.path = path
        self.inputs = [given.name for given in self._session.get_inputs()]
        self.outputs = [made.name for made in self._session.get_outputs()]

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name.

        Raises:
            DataError: inputs that it does not take.
        """
        if len(inputs) != len(self.inputs):
            raise DataError(f"{self.path} has {len(self.inputs)} inputs, and {len(inputs)} are given.")
        typed = [value.to(kind).cpu().numpy() for value, kind in zip(inputs, self._types, strict=True)]
        given = dict(zip(self.inputs, typed, strict=True))
        try:
            made = self._session.run(None, given)
        except Exception as error:
            shapes = ", ".join(str(list(value.shape[1:])) for value in inputs)
            raise DataError(f"{self.path} refuses rows of shape {shapes}: {_first(error)}") from None
        return dict(zip(self.outputs, map(torch.from_numpy, made), strict=True))


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]

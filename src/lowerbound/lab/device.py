"""Where to compute."""

from __future__ import annotations

import torch

from lowerbound.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device of a name ("cpu", "cuda", "cuda:1", "mps"), tried out.

    Raises:
        UsageError: there is none of this name, or it cannot compute here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        torch.Generator(device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(
            f"device {name!r} was given, and it cannot be used here; there are: {', '.join(_present())}."
        ) from None
    return device


def _present() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]

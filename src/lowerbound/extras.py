"""Packages that are not always there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lowerbound.errors import UsageError


def need(module: str, extra: str, what: str) -> Any:
    """A module of an optional package.

    Args:
        module: to import.
        extra: of this package, that installs it.
        what: what needs it, as the beginning of a sentence.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(
            f'{what} needs {module}, which is not installed; run `pip install "lowerbound[{extra}]"`.'
        ) from None

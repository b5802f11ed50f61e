"""What pages for people are made of: they live above the server, which is told where by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fastapi import APIRouter

from lowerbound.errors import UsageError
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.keys import Keys


@dataclass(frozen=True)
class Site:
    """What pages may show and do.

    Attributes:
        names: references that are served.
        registry: of the versions.
        telemetry: folder of the store; None where none is kept.
        keys: that are known.
    """

    names: tuple[str, ...]
    registry: Registry
    telemetry: Path | None
    keys: Keys


Pages = Callable[[Site], APIRouter]


def pages_of(place: str) -> Pages:
    """The function `module:function` that makes the routes of pages; without a place, there are none.

    Raises:
        UsageError: there is no such function.
    """
    if not place:
        return lambda site: APIRouter()
    module, _, name = place.partition(":")
    try:
        found: Pages = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise UsageError(f"the pages {place} cannot be found; give them as `module:function`.") from None
    return found

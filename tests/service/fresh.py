"""Registries that cost little: versions of a model that cannot be exported, which is where the time goes."""

from __future__ import annotations

from pathlib import Path

from lowerbound.service.registry.registry import Registry

NAME = "digits"


def filled(place: Path | str, runs: list[Path], files: Path | None = None) -> Registry:
    """A registry with one version of each run."""
    registry = Registry(place, files)
    for number, run in enumerate(runs, start=1):
        assert registry.add(run, NAME, why=f"run {number}").number == number
    return registry

"""A version: a folder that never changes, named by what is in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowerbound.errors import TamperedError
from lowerbound.files import read_json, sha256, write_text
from lowerbound.lab.reference import Reference

MANIFEST, CARD, COMPATIBILITY = "manifest.json", "card.md", "compatibility.json"
EXPORT = "export"


@dataclass(frozen=True)
class Version:
    """A registered version. Its folder is laid out as that of a run, so that `lowerbound.load(version.path)` works.

        recipe.json run.json weights.safetensors   as training wrote them
        evaluation.json                            what it was found to be worth
        lineage.json                               what it was retrained from, if it was
        reference.safetensors reference.json       what ordinary rows look like to it
        export/                                    the model for other engines, proven, where it can be exported
        compatibility.json                         how its codes relate to those of its parent
        card.md                                    for people
        manifest.json                              lineage, and the hash of every other file

    Attributes:
        name: in the registry.
        number: 1, 2, ... within the name.
        hash: SHA-256 of the manifest, so of everything.
        path: of the folder.
        parent: number of the version that it was compared with, if any.
        created: when it was added, UTC, ISO 8601.
        new: whether the call that gave it made it.
    """

    name: str
    number: int
    hash: str
    path: Path
    parent: int | None
    created: str
    new: bool = field(default=False, compare=False)

    @property
    def reference(self) -> str:
        """How it is asked for: NAME:NUMBER."""
        return f"{self.name}:{self.number}"

    def manifest(self) -> dict[str, Any]:
        """The manifest, if it is the one that was registered.

        Raises:
            TamperedError: it is not.
        """
        path = self.path / MANIFEST
        if not path.is_file():
            raise TamperedError(f"{self.reference} has lost its files: {path} does not exist; restore it from a copy.")
        if sha256(path) != self.hash:
            raise TamperedError(_changed(self.reference, MANIFEST, path))
        found: dict[str, Any] = read_json(path)
        return found

    def verify(self) -> Version:
        """Check the hash of every file; returns itself.

        Raises:
            TamperedError: a file is missing, is more than there should be, or is not what was registered.
        """
        expected = self.manifest()["files"]
        there = {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()} - {MANIFEST}
        for name in sorted(expected.keys() | there):
            path = self.path / name
            if name not in there:
                raise TamperedError(
                    f"{self.reference} has lost `{name}`: {path} does not exist; restore it from a copy."
                )
            if name not in expected:
                raise TamperedError(f"{self.reference} has a file that was not registered, {path}; take it away.")
            if sha256(path) != expected[name]:
                raise TamperedError(_changed(self.reference, name, path))
        return self

    def calibration(self) -> Reference:
        """The latent reference."""
        return Reference.load(self.path)

    def evaluation(self) -> dict[str, Any]:
        """The content of its evaluation.json."""
        found: dict[str, Any] = read_json(self.path / "evaluation.json")
        return found

    def compatibility(self) -> dict[str, Any] | None:
        """How its codes relate to those of its parent; None for a first version."""
        path = self.path / COMPATIBILITY
        return read_json(path) if path.exists() else None

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **{"name": self.name, "number": self.number, "hash": self.hash, "path": str(self.path)},
            **{"parent": self.parent, "created": self.created},
        }


def write_manifest(folder: Path, facts: dict[str, Any]) -> str:
    """Write the manifest of a folder, with the hash of every file in it; returns the manifest's own hash."""
    files = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    text = json.dumps({**facts, "files": files}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text(folder / MANIFEST, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(reference: str, name: str, path: Path) -> str:
    return f"`{name}` of {reference} is not what was registered ({path} has another hash); restore it from a copy."

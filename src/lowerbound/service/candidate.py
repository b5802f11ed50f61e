"""A version that is compared with the stable one: what serving says of it, and monitoring judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["canary", "shadow"]


@dataclass(frozen=True)
class Candidate:
    """A version that is compared with the stable one.

    Attributes:
        name: of the model.
        place: "canary", which answers some clients, or "shadow", which answers none.
        number, hash: of the version.
        since: row of the registry's history that made it a candidate.
        stable, stable_hash: number and hash of the version that it is compared with.
    """

    name: str
    place: Place
    number: int
    hash: str
    since: int
    stable: int
    stable_hash: str

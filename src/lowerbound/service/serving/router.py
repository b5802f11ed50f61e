"""The router: which version answers. It follows the registry, and swaps versions while they are in use."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lowerbound.errors import LowerboundError, UsageError
from lowerbound.service.candidate import Candidate, Place
from lowerbound.service.registry.ledger import Entry, standing
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.asides import FAILED, Asides, Served
from lowerbound.service.serving.deployment import Deployment
from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.problems import RefusedError

Load = Callable[[str, Version, str], Deployment]
Belongs = Callable[[str, str], bool]  # whether a client is one of a canary's, by its key and the canary's salt
CANDIDATES: tuple[Place, ...] = ("canary", "shadow")
AGAIN_S = 5.0  # between two attempts at a version that cannot be loaded
logger = logging.getLogger("lowerbound.serving")


class Router:
    """A link that gives each request to one version, and keeps to it.

    A request has its version from its first moment to its last. A swap is one assignment in the loop, so requests
    before it are answered by the old version and those after it by the new one; the old one goes when its last request
    is answered.

    Args:
        rest: computes with the deployment that a request was assigned.
        belongs: whether a client is answered by the canary.
        asides: lets other versions score what was answered; None where this is not wanted.
    """

    def __init__(self, rest: Link, belongs: Belongs, asides: Asides | None) -> None:
        self._rest, self._belongs, self._asides = rest, belongs, asides
        self._served: dict[str, Served] = {}
        self.troubles: dict[str, str] = {}

    async def __call__(self, request: Request) -> Response:
        """The answer of the assigned version.

        Raises:
            RefusedError: it has none.
        """
        try:
            response = await self._rest(request)
        except RefusedError as refused:
            if refused.code in FAILED:  # which counts against a candidate, unless the others fail as well
                self._aside(request, Response())
            raise
        self._aside(request, response)
        return response

    def _aside(self, request: Request, response: Response) -> None:
        served = self._served[request.model]
        if self._asides is not None:
            self._asides.take(request, response.outputs, served)

    def assign(self, request: Request) -> Deployment:
        """The deployment that answers a request: the one place where a version is chosen.

        Raises:
            RefusedError: no model of this name is served.
        """
        found = self._served.get(request.model)
        if found is None:
            raise RefusedError(
                "no-such-model", f"No such model is served; there are {', '.join(self._served) or 'none'}."
            )
        canary = found.canary
        if canary is not None and self._belongs(request.sticky, canary.version.reference):
            return canary
        return found.stable

    def swap(self, name: str, served: Served) -> None:
        """Serve a name by these versions from now on."""
        before = self._served.get(name)
        self._served[name] = served
        old = {} if before is None else {place: found.label for place, found in before.lanes.items()}
        new = {place: found.label for place, found in served.lanes.items()}
        for place in sorted(old.keys() | new.keys()):
            if old.get(place) != new.get(place):
                logger.info(
                    "%s: the %s version is %s instead of %s",
                    *(name, place, new.get(place, "none"), old.get(place, "none")),
                )

    @property
    def served(self) -> Mapping[str, Served]:
        """What is served, by name."""
        return self._served


class Watcher:
    """Follows the registry in a thread, and loads what its references come to mean.

    Args:
        registry: to follow.
        names: references that are served, as they were given; a name alone has its canary and its shadow, too.
        load: a deployment of a version; called in the thread.
        router: is given it, in the loop.
        every_s: between two looks.
    """

    def __init__(
        self, registry: Registry, names: tuple[str, ...], load: Load, router: Router, every_s: float = 0.25
    ) -> None:
        self._registry, self._names, self._load, self._router = registry, names, load, router
        self._every_s, self._position = every_s, -1
        self._found: dict[str, Served] = {}
        self._since: dict[tuple[str, str], int] = {}
        self._again = 0.0
        self._loop = asyncio.get_running_loop()
        self._ended, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)

    def first(self) -> None:
        """Load all names, before anything is served.

        Raises:
            LowerboundError: a name is unknown, or its version cannot be served.
        """
        self._position = self._registry.position()
        for name in self._names:
            self._found[name] = self._resolved(name)
            self._router.swap(name, self._found[name])

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self._wake.set()

    def nudge(self) -> None:
        """Look now: somebody in this process knows that the registry changed."""
        self._wake.set()

    def candidates(self) -> list[Candidate]:
        """The versions that are compared with stable ones, as far as they are served."""
        return [
            Candidate(
                *(name, place, found.version.number, found.version.hash, self._since.get((name, place), 0)),
                *(served.stable.version.number, served.stable.version.hash),
            )
            for name, served in list(self._found.items())
            for place, found in served.lanes.items()
            if place in CANDIDATES
        ]

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            try:
                position = self._registry.position()
                if position != self._position or (self._router.troubles and time.monotonic() > self._again):
                    self._look()
                    self._position, self._again = position, time.monotonic() + AGAIN_S
            except Exception as error:  # it must go on: a registry that is away for a while comes back
                logger.error("the registry cannot be read: %s", error)
                self._ended.wait(20 * self._every_s)

    def _look(self) -> None:
        for name in self._names:
            try:
                served = self._resolved(name)
            except LowerboundError as error:
                self._trouble(name, error)
                continue
            self._router.troubles.pop(name, None)
            if served.lanes != self._found[name].lanes:
                self._found[name] = served
                self._loop.call_soon_threadsafe(self._router.swap, name, served)

    def _resolved(self, name: str) -> Served:
        """The versions behind a name now; a candidate that cannot be served is left out, and said."""
        known = list(self._found[name].lanes.values()) if name in self._found else []
        stable = self._deployed(known, name, self._registry.resolve(name), alias_of(name))
        if any(mark in name for mark in ":@"):
            return Served(stable)
        aliases = self._registry.aliases(name)
        rows = standing(self._registry.history(name))
        found: dict[str, Deployment] = {}
        for place in CANDIDATES:
            self._since[name, place] = _row(rows.get((name, place)))
            try:
                if place in aliases:
                    found[place] = _alike(stable, self._deployed(known, name, aliases[place], place))
                self._router.troubles.pop(f"{name}@{place}", None)
            except LowerboundError as error:
                self._trouble(f"{name}@{place}", error)
        return Served(stable, **found)

    def _deployed(self, known: list[Deployment], name: str, version: Version, alias: str) -> Deployment:
        """The deployment of a version in its place, loaded unless it was."""
        same = [each for each in known if (each.version.number, each.version.hash) == (version.number, version.hash)]
        for each in same:
            if each.alias == alias:
                return each
        return replace(same[0], alias=alias) if same else self._load(name, version, alias)

    def _trouble(self, name: str, error: LowerboundError) -> None:
        if self._router.troubles.get(name) != str(error):
            logger.error("%s stays as it was: %s", name, error)
        self._router.troubles[name] = str(error)


def alias_of(reference: str) -> str:
    """The alias that a reference means: `NAME` is stable, `NAME@canary` a canary; empty for `NAME:3`."""
    return "" if ":" in reference else reference.partition("@")[2] or "stable"


def state_of(router: Router) -> list[dict[str, Any]]:
    """What is served, with its candidates, and with what stands in the way of newer versions."""
    return [
        {
            **served.stable.describe(),
            "candidates": {
                place: {"version": found.version.number, "hash": found.version.hash, "engine": found.engine.name}
                for place, found in served.lanes.items()
                if place in CANDIDATES
            },
            "trouble": router.troubles.get(name),
        }
        for name, served in router.served.items()
    ]


def _row(entry: Entry | None) -> int:
    return 0 if entry is None else entry.id


def _alike(stable: Deployment, candidate: Deployment) -> Deployment:
    """A candidate, if it takes the same rows.

    Raises:
        UsageError: it does not.
    """
    ours, theirs = stable.contract, candidate.contract
    for name in ("event", "levels", "classes", "needs_label", "gaps"):
        if getattr(ours, name) != getattr(theirs, name):
            raise UsageError(
                f"{candidate.version.reference} cannot be compared with {stable.version.reference}: its rows have "
                f"{name} {getattr(theirs, name)}, and those of the stable version {getattr(ours, name)}."
            )
    return candidate

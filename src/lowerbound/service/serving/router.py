"""The router: which version answers. It follows the registry, and swaps versions while they are in use."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from lowerbound.errors import LowerboundError
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.deployment import Deployment
from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.problems import RefusedError

Load = Callable[[str, Version, str], Deployment]
logger = logging.getLogger("lowerbound.serving")


class Router:
    """A link that gives each request to one version, and keeps to it.

    A request has its version from its first moment to its last. A swap is one assignment in the loop, so requests
    before it are answered by the old version and those after it by the new one; the old one goes when its last request
    is answered.

    Args:
        rest: computes with the deployment that a request was assigned.
    """

    def __init__(self, rest: Link) -> None:
        self._rest = rest
        self._stable: dict[str, Deployment] = {}
        self.troubles: dict[str, str] = {}

    async def __call__(self, request: Request) -> Response:
        """The answer of the assigned version."""
        return await self._rest(request)

    def assign(self, request: Request) -> Deployment:
        """The deployment that answers a request: the one place where a version is chosen.

        Raises:
            RefusedError: no model of this name is served.
        """
        found = self._stable.get(request.model)
        if found is None:
            raise RefusedError(
                "no-such-model", f"No such model is served; there are {', '.join(self._stable) or 'none'}."
            )
        return found

    def swap(self, deployment: Deployment) -> None:
        """Answer by this deployment from now on."""
        before = self._stable.get(deployment.name)
        self._stable[deployment.name] = deployment
        self.troubles.pop(deployment.name, None)
        old = "nothing" if before is None else before.label
        logger.info("%s is served by version %s instead of %s", deployment.name, deployment.label, old)

    @property
    def deployments(self) -> Mapping[str, Deployment]:
        """What is served, by name."""
        return self._stable


class Watcher:
    """Follows the registry in a thread, and loads what its references come to mean.

    Args:
        registry: to follow.
        names: references that are served, as they were given.
        load: a deployment of a version; called in the thread.
        router: is given it, in the loop.
        every_s: between two looks.
    """

    def __init__(
        self, registry: Registry, names: tuple[str, ...], load: Load, router: Router, every_s: float = 0.5
    ) -> None:
        self._registry, self._names, self._load, self._router = registry, names, load, router
        self._every_s, self._position = every_s, -1
        self._loop = asyncio.get_running_loop()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)

    def first(self) -> None:
        """Load all names, before anything is served.

        Raises:
            LowerboundError: a name is unknown, or its version cannot be served.
        """
        self._position = self._registry.position()
        for name in self._names:
            self._router.swap(self._load(name, self._registry.resolve(name), alias_of(name)))

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._ended.set()

    def _follow(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                position = self._registry.position()
                if position != self._position or self._router.troubles:
                    self._look()
                    self._position = position
            except Exception as error:  # it must go on: a registry that is away for a while comes back
                logger.error("the registry cannot be read: %s", error)
                self._ended.wait(5 * self._every_s)

    def _look(self) -> None:
        served = self._router.deployments
        for name in self._names:
            try:
                version = self._registry.resolve(name)
                if version.hash != served[name].version.hash or version.number != served[name].version.number:
                    deployment = self._load(name, version, alias_of(name))
                    self._loop.call_soon_threadsafe(self._router.swap, deployment)
                else:
                    self._router.troubles.pop(name, None)
            except LowerboundError as error:
                if self._router.troubles.get(name) != str(error):
                    logger.error("%s stays with version %s: %s", name, served[name].label, error)
                self._router.troubles[name] = str(error)


def alias_of(reference: str) -> str:
    """The alias that a reference means: `NAME` is stable, `NAME@canary` a canary; empty for `NAME:3`."""
    return "" if ":" in reference else reference.partition("@")[2] or "stable"


def state_of(router: Router) -> list[dict[str, Any]]:
    """What is served, with what stands in the way of newer versions."""
    return [
        {**deployment.describe(), "trouble": router.troubles.get(name)}
        for name, deployment in router.deployments.items()
    ]

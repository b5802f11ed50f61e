"""A deployment on Ray Serve: `serve run lowerbound.service.serving.on_ray:application names=digits registry=FOLDER`"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lowerbound.errors import UsageError
from lowerbound.extras import need
from lowerbound.service.registry.registry import PLACE
from lowerbound.service.serving.hosted import Hosted
from lowerbound.service.serving.options import Options

OF_THE_HOST = frozenset({"host", "port", "workers", "drain_s"})  # what Ray says instead
PATHS = ("registry", "telemetry", "keys")
MOST_ONGOING = 512  # requests at a replica, so that its batcher has something to put together


class Replica:
    """What Ray starts as often as it is told to; it answers by `app`.

    Attributes:
        app: set by Ray.
    """

    app: Hosted

    async def check_health(self) -> None:
        """Asked by Ray now and then.

        Raises:
            RuntimeError: the engine is dead or stuck, so that another replica should be started instead.
        """
        if not self.app.alive:
            raise RuntimeError("the engine is dead or stuck")


def application(settings: Mapping[str, Any]) -> Any:
    """An application of Ray Serve that answers as `lowerbound serve` does, with the same deployments and engines.

    Args:
        settings: attributes of `Options`; `names` may be separated by commas. Folders are made absolute, and must be
            there on every machine.

    Raises:
        UsageError: Ray is not installed, or a setting is none.
    """
    serve = need("ray.serve", "ray", "A deployment on Ray Serve")
    options = options_of(settings)

    def hosted() -> Hosted:
        return Hosted(options)

    made = serve.deployment(name="lowerbound", max_ongoing_requests=MOST_ONGOING)
    return made(serve.ingress(hosted)(Replica)).bind()


def options_of(settings: Mapping[str, Any]) -> Options:
    """The options that settings say.

    Raises:
        UsageError: a setting is none.
    """
    known = [field.name for field in fields(Options) if field.name not in OF_THE_HOST]
    if unknown := sorted(set(settings) - set(known)):
        raise UsageError(f"{', '.join(unknown)} was given for a deployment on Ray Serve; it takes {', '.join(known)}.")
    given = {"threads": 1, "registry": os.environ.get(PLACE) or "registry", **settings}
    if isinstance(given.get("names"), str):
        given["names"] = given["names"].split(",")
    given |= {name: _absolute(given[name]) for name in PATHS if given.get(name)}
    try:
        return TypeAdapter(Options).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(f"`{name}` was given wrongly for a deployment on Ray Serve: {first['msg']}.") from None


def _absolute(place: object) -> str:
    """A folder as a replica sees it, whose working folder is another one; an address stays."""
    return str(place) if "://" in str(place) else str(Path(str(place)).absolute())

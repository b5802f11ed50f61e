"""The gate: bytes and pixels on the way in, facts of the code on the way out; each refusal has a reason."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowerbound.service.monitoring.alerts import ALERTS
from lowerbound.service.monitoring.incidents import Incidents as KeptIncidents
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.deployment import Deployment
from lowerbound.service.serving.exchange import Link, Request, Response
from lowerbound.service.serving.payload import CODE, DIRECTION, Array, Arrays
from lowerbound.service.serving.problems import RefusedError
from lowerbound.service.serving.reading import check_digest, read_inputs
from lowerbound.service.serving.settings import VERBS
from lowerbound.service.serving.writing import chosen

LARGE_BODY = 256 * 1024  # bytes, from which reading it would hold up the loop
LARGE_EVENT = 128 * 128 * 3  # values of a picture, likewise
WINDOW = 1000  # pictures
SHARE = 0.01  # of them that may be flat
logger = logging.getLogger("lowerbound.serving")


@dataclass
class Incident:
    """More flat pictures than there should be, from its opening until it is closed."""

    model: str
    opened: float
    flat: int
    closed: float | None = None

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "incident": "flat-inputs",
            "model": self.model,
            "opened": self.opened,
            "closed": self.closed,
            "flat": self.flat,
            "window": WINDOW,
            "advice": "look at the camera or the pipeline before this server; good pictures are still served",
        }


def log(incident: Incident) -> None:
    """Say in the log that an incident opened or closed."""
    if incident.closed is None:
        logger.warning(
            "flat-inputs: %d flat pictures among the last %d of %s; see %s",
            *(incident.flat, WINDOW, incident.model, ALERTS["flat-inputs"].page),
        )
    else:
        logger.info("incident of %s closed: few of its last %d pictures are flat", incident.model, WINDOW)


def keep(incident: Incident, version: Version, folder: Path) -> None:
    """Put it into the open incident of the requests in the telemetry's folder, or open one; close only one's own.

    Args:
        incident: that opened or closed.
        version: that answers the requests.
        folder: of the telemetry.
    """
    kept = KeptIncidents(folder)
    if incident.closed is None:
        text = f"{incident.flat} of the last {WINDOW} pictures show nothing."
        found, new = kept.raise_alerts(version.name, version.hash, ("flat-inputs",), incident.opened, text)
        if new:
            text = "The gate refuses such inputs, and good ones are still answered: look at what sends them."
            kept.note(found.id, "mitigate", text, incident.opened)
        return
    for one in kept.all(version.name):
        if one.open and one.alerts == ("flat-inputs",):
            kept.close(one.id, f"Few of the last {WINDOW} pictures show nothing.", incident.closed)


class Incidents:
    """Watches the share of flat pictures among the last 1,000 of each model.

    Args:
        tell: is given each incident when it opens and when it closes.
    """

    def __init__(self, tell: Callable[[Incident], None]) -> None:
        self._tell = tell
        self._windows: dict[str, tuple[deque[bool], list[int]]] = {}
        self.open: dict[str, Incident] = {}
        self.past: deque[Incident] = deque(maxlen=100)

    def note(self, model: str, flat: bool) -> None:
        """Count one picture."""
        window, count = self._windows.setdefault(model, (deque(maxlen=WINDOW), [0]))
        if len(window) == WINDOW:
            count[0] -= window[0]
        window.append(flat)
        count[0] += flat
        found = self.open.get(model)
        if count[0] > SHARE * WINDOW:
            if found is None:
                self.open[model] = found = Incident(model, time.time(), count[0])
                self._tell(found)
            found.flat = max(found.flat, count[0])
        elif found is not None:
            found.closed = time.time()
            self.past.append(self.open.pop(model))
            self._tell(found)


class Gate:
    """A link that lets through what the model was made for.

    Args:
        rest: the links behind it.
        assign: the router's choice of a deployment for a request.
        incidents: is told of flat pictures.
    """

    def __init__(self, rest: Link, assign: Callable[[Request], Deployment], incidents: Incidents) -> None:
        self._rest, self._assign, self._incidents = rest, assign, incidents
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reading")

    async def __call__(self, request: Request) -> Response:
        """The answer of the rest.

        Raises:
            RefusedError: with the reason.
        """
        if request.verb not in VERBS:
            raise RefusedError("no-such-verb", f"Models have no such verb; they have {', '.join(VERBS)}.")
        request.deployment = deployment = self._assign(request)
        request.form = chosen(request.accept, request.verb, deployment.contract)
        body = await request.read()
        start = time.perf_counter()
        size = math.prod(deployment.contract.event)
        if len(body) > LARGE_BODY or (size > LARGE_EVENT and request.content_type.startswith("image/")):
            await asyncio.get_running_loop().run_in_executor(self._pool, self._read, request, body)
        else:
            self._read(request, body)
        request.decode_s = time.perf_counter() - start
        request.gate = "passed"
        response = await self._rest(request)
        limit, norms = deployment.judge.norm_limit, response.outputs.get("norm")
        if limit is not None and norms is not None and request.verb != "score" and norms.max() > limit:
            row = int(norms.argmax())
            _blame(request, request.arrays["rows"], row)
            request.found = {name: values[row : row + 1] for name, values in response.outputs.items()}
            request.gate = "latent-norm"
            raise RefusedError(
                "latent-norm",
                f"The code of row {row} has the norm {norms[row]:.3g}; those of ordinary rows stay within {limit:.3g}.",
            )
        return response

    def _read(self, request: Request, body: bytes) -> None:
        """Fill in the inputs of a request and check them."""
        try:
            self._check(request, body)
        except RefusedError as refused:
            request.gate = refused.code
            raise

    def _check(self, request: Request, body: bytes) -> None:
        if request.digest:
            check_digest(body, request.digest)
        deployment = request.assigned
        contract = deployment.contract
        read_inputs(request, body, contract)
        arrays: Arrays = {}
        for name, array in request.arrays.items():
            if name.startswith(CODE):
                arrays[name.removeprefix(CODE)] = contract.codes(array, name.removeprefix(CODE))
            elif name.startswith(DIRECTION):
                step = contract.codes(array, name.removeprefix(DIRECTION))
                arrays[name] = step[0] if len(step) == 1 else step
            else:
                arrays[name] = rows = contract.rows(array, name)
                self._look(request, rows, main=name == "rows")
        _complete(request, arrays, contract.latents)
        count = len(next(iter(arrays.values()))) if arrays else request.settings.count
        label = contract.label(request.settings.label, count)
        if label is not None:
            arrays["label"] = label
        request.arrays = arrays

    def _look(self, request: Request, rows: Array, main: bool) -> None:
        """Refuse pictures that show nothing, or colours that the model does not know."""
        judge = request.assigned.judge
        if judge.flat < 0:
            return
        for index, row in enumerate(rows):
            means, variances = judge.statistics(row)
            if main:
                request.pixels.append([*means, *variances])
            flat = max(variances) < judge.flat
            self._incidents.note(request.assigned.name, flat)
            if flat:
                black = not any(means)
                if main:
                    _blame(request, rows, index)
                raise RefusedError(
                    "black" if black else "flat",
                    f"Row {index} is {'black' if black else 'flat'}: the variance of its values is "
                    f"{max(variances):.2g}, and at least {judge.flat:g} is needed.",
                )
            if (found := judge.unlike(means, variances)) is not None:
                if main:
                    _blame(request, rows, index)
                raise RefusedError("colour", f"Row {index} is unlike the reference: its {found} is beyond the limit.")


def _blame(request: Request, rows: Array, row: int) -> None:
    """Leave in a request the row that it is refused for, and nothing of the others."""
    request.blamed, request.row = True, row
    request.arrays = {"rows": rows[row : row + 1]}
    request.pixels = request.pixels[row : row + 1]


def _complete(request: Request, arrays: Arrays, groups: dict[str, tuple[int, ...]]) -> None:
    """Refuse inputs that do not go together."""
    if request.verb == "decode":
        missing = [name for name in groups if name not in arrays]
        if missing or len({len(array) for array in arrays.values()}) != 1:
            raise RefusedError("wrong-shape", f"decode needs the groups of codes {', '.join(groups)}, with a row each.")
    if request.verb == "interpolate" and len(arrays["rows"]) % 2:
        raise RefusedError("wrong-shape", "interpolate needs pairs of rows: a start and an end, one after the other.")
    if request.verb == "edit":
        direction = any(name.startswith(DIRECTION) for name in arrays)
        if direction == ("having" in arrays) or ("having" in arrays) != ("lacking" in arrays):
            raise RefusedError("bad-json", "edit needs a `direction` of codes, or both `having` and `lacking` rows.")

"""Traffic to a live server: the facts that it answers with, on a drill's own clock."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowerbound.service.client import Client, ServerError
from lowerbound.service.monitoring.looking.stretch import PROBE
from lowerbound.service.monitoring.telemetry.fact import Array, Fact
from lowerbound.service.registry.version import Version
from lowerbound.service.serving.deployment import deploy
from lowerbound.service.serving.facts import NUMBERS, VECTORS

AT_ONCE = 32  # rows of one request


class Remote:
    """Plays rows to a server, and gives the facts of its answers. Its ids are those of probes: they are no traffic.

    Args:
        url: of the server.
        version: that it serves.
        key: where it needs one.
    """

    def __init__(self, url: str, version: Version, key: str | None = None) -> None:
        self._client, self._version = Client(url, key, ids=PROBE), version
        self._judge = deploy(version.name, version, "", "torch", 0.001, 1).judge

    def __call__(self, rows: Array, times: list[float], requests: list[str]) -> list[Fact]:
        found: list[Fact] = []
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found += self._some(rows[part], times[part], requests[part])
        return found

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _some(self, rows: Array, times: list[float], requests: list[str]) -> list[Fact]:
        """All rows in one request; each alone where one of them is refused."""
        try:
            codes, scores = self._client.facts(self._version.name, rows), self._client.score(self._version.name, rows)
        except ServerError as error:
            if len(rows) > 1:
                alone = zip(rows, times, requests, strict=True)
                return [self._some(row[None], [at], [name])[0] for row, at, name in alone]
            return [self._fact(rows[0], times[0], requests[0], {}, error.code)]
        points = np.concatenate([values.reshape(len(rows), -1) for values in codes["codes"].values()], axis=1)
        known: dict[str, Array] = {name: scores[name] for name in NUMBERS if name in scores}
        known |= {"code": points, **{name: codes[name] for name in VECTORS if name in codes}}
        return [
            self._fact(rows[place], times[place], requests[place], {name: known[name][place] for name in known}, "")
            for place in range(len(rows))
        ]

    def _fact(self, row: Array, at: float, request: str, known: dict[str, Array], reason: str) -> Fact:
        means, variances = self._judge.statistics(np.ascontiguousarray(row, np.float32))
        found: dict[str, Any] = {name: float(known[name]) if name in NUMBERS else known[name] for name in known}
        return Fact(
            time=at,
            request=request,
            model=self._version.name,
            version=self._version.hash,
            alias="stable",
            verb="score",
            status=422 if reason else 200,
            reason=reason,
            gate=reason or "passed",
            pixels=np.array([*means, *variances], np.float32) if self._judge.flat >= 0 else None,
            input=row,
            **found,
        )

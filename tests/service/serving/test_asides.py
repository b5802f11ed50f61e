"""Rows that are scored aside: by whom, in which pieces, and what becomes of failures."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lowerbound.service.monitoring.telemetry.fact import Fact
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.asides import Asides, Served, Shares
from lowerbound.service.serving.batcher import Batcher
from lowerbound.service.serving.deployment import Deployment, deploy
from lowerbound.service.serving.exchange import Request
from lowerbound.service.serving.payload import Arrays


@pytest.fixture(scope="module")
def versions(registry: Path) -> dict[str, Deployment]:
    """`digits:1` as stable, `digits:2` as candidates, and one that fails at rows with a planted pixel as a canary."""
    place = Registry(registry)
    one, two, broken = (
        deploy("digits", place.resolve(reference), "stable", "torch", 0.02, 1)
        for reference in ("digits:1", "digits:2", "broken:1")
    )
    return {
        "stable": one,
        "canary": replace(two, alias="canary"),
        "shadow": replace(two, alias="shadow"),
        "broken": replace(broken, alias="canary"),
    }


def scored(request: Request, served: Served, outputs: Arrays | None = None, shares: Shares | None = None) -> list[Fact]:
    """The facts that are made aside of a request that was answered with these outputs."""
    kept: list[Fact] = []

    async def main() -> None:
        def compute(asked: Request, arrays: Arrays) -> Arrays:
            return asked.assigned.compute(asked.operation, arrays, asked.settings)

        batcher = Batcher(compute)
        Asides(batcher.aside, kept.append, shares or Shares()).take(request, outputs or {}, served)
        while batcher.aside_rows:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        batcher.close()

    asyncio.run(main())
    return kept


def asked(rows: np.ndarray, by: Deployment, verb: str = "encode") -> Request:
    return Request("digits", verb, "r1", arrays={"rows": rows.astype(np.float32)}, deployment=by)


def places(facts: list[Fact]) -> list[tuple[str, int]]:
    return sorted((fact.alias, fact.row) for fact in facts)


def test_versions_that_are_compared_score_what_the_answer_lacks(
    versions: dict[str, Deployment], digits: np.ndarray
) -> None:
    stable, canary, shadow = (versions[name] for name in ("stable", "canary", "shadow"))
    both = Served(stable, canary, shadow)
    known = {"error": np.zeros(1)}
    row = digits[:1]
    found = scored(asked(row, stable), both)
    assert places(found) == [("shadow", 0), ("stable", 0)]
    assert {(fact.request, fact.verb, fact.status, fact.gate, fact.total_s) for fact in found} == {
        ("r1", "idle", 200, "", None)
    }
    wanted = stable.compute("facts", {"rows": row.astype(np.float32)}, asked(row, stable).settings)["error"]
    np.testing.assert_allclose([fact.error for fact in found if fact.alias == "stable"], wanted, rtol=1e-5)
    assert {fact.version for fact in found} == {stable.version.hash, shadow.version.hash}
    assert places(scored(asked(row, stable, "score"), both, known)) == [("shadow", 0)]
    assert places(scored(asked(row, canary, "score"), both, known)) == [("shadow", 0), ("stable", 0)]
    assert places(scored(asked(row, canary), Served(stable, canary))) == [("canary", 0), ("stable", 0)]
    assert scored(asked(row, stable), Served(stable, canary)) == [], "one of the other clients"
    assert scored(asked(row, stable, "decode"), both) == []
    assert scored(asked(row, stable), both, shares=Shares(shadow=0.0)) == []
    assert places(scored(asked(row, stable), Served(stable), shares=Shares(encode=1.0))) == [("stable", 0)]


def test_many_rows_are_scored_in_pieces_and_keep_their_numbers(
    versions: dict[str, Deployment], digits: np.ndarray
) -> None:
    found = scored(
        asked(digits[:40], versions["stable"], "score"), Served(versions["stable"], None, versions["shadow"])
    )
    assert places(found) == [(alias, row) for alias in ("shadow", "stable") for row in range(40)]


def test_a_row_that_a_version_fails_at_fails_alone(versions: dict[str, Deployment], digits: np.ndarray) -> None:
    rows = digits[:20].copy()
    rows[7, 0, 0, 0] = 1
    found = scored(asked(rows, versions["broken"]), Served(versions["stable"], versions["broken"]))
    failed = [fact for fact in found if fact.status != 200]
    assert [(fact.alias, fact.row, fact.reason, fact.error) for fact in failed] == [
        ("canary", 7, "engine-not-finite", None)
    ]
    assert places(found) == [(alias, row) for alias in ("canary", "stable") for row in range(20)]

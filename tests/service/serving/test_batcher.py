"""The batcher: who is computed together, who waits, who fails, and that nobody suffers from another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from lowerbound.service.serving.batcher import Batcher
from lowerbound.service.serving.exchange import Request, Response
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.problems import RefusedError

POISON = 13.0


class Engine:
    """Doubles rows; fails at poison; gives NaN for negative rows; computes only while it is let."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, request: Request, arrays: Arrays) -> Arrays:
        self.free.wait(20)
        rows = arrays["rows"]
        self.sizes.append(len(rows))
        if (rows == POISON).any():
            raise ValueError("poison")
        return {"twice": np.where(rows < 0, np.nan, 2 * rows)}


def asked(value: float, rows: int = 1, **settings: object) -> Request:
    made = Request("m", "encode", operation="encode", arrays={"rows": np.full((rows, 1), value)})
    for name, setting in settings.items():
        setattr(made, name, setting)
    return made


def run(play: Callable[[Batcher, Engine], Awaitable[None]], **settings: int) -> None:
    async def main() -> None:
        engine = Engine()
        batcher = Batcher(engine, **settings)
        try:
            await play(batcher, engine)
        finally:
            engine.free.set()
            batcher.close()

    asyncio.run(main())


async def answers(batcher: Batcher, requests: list[Request]) -> list[Response | BaseException]:
    return await asyncio.gather(*(batcher(request) for request in requests), return_exceptions=True)


def test_what_waits_is_computed_together_and_nothing_waits_for_more() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        assert (await batcher(asked(1.0))).outputs["twice"].tolist() == [[2.0]]
        found = await answers(batcher, [asked(float(value)) for value in range(100, 300)])
        assert [float(one.outputs["twice"][0, 0]) for one in found] == [2.0 * value for value in range(100, 300)]
        assert engine.sizes[0] == 1
        assert max(engine.sizes) <= 64
        assert len(engine.sizes) < 20
        assert batcher.waiting == 0

    run(play)


def test_batches_hold_whole_requests_and_large_ones_are_cut() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        found = await answers(batcher, [asked(1.0, rows) for rows in (5, 5, 1, 20)])
        assert [len(one.outputs["twice"]) for one in found] == [5, 5, 1, 20]
        assert sum(engine.sizes) == 31
        assert max(engine.sizes) <= 8

    run(play, most_rows=8)


@pytest.mark.parametrize("place", [0, 9, 31])
def test_a_poisoned_request_fails_alone(place: int) -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        values = [float(value + 100) for value in range(32)]
        values[place] = POISON
        found = await answers(batcher, [asked(value) for value in values])
        for index, one in enumerate(found):
            if index == place:
                assert isinstance(one, RefusedError)
                assert (one.code, one.status) == ("engine-failed", 500)
            else:
                assert isinstance(one, Response)
                assert one.outputs["twice"].tolist() == [[2 * values[index]]]

    run(play)


def test_a_row_without_a_finite_answer_fails_alone() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        chosen = asked(-1.0, operation="decode")
        own, codes, good = await answers(batcher, [asked(-1.0), chosen, asked(3.0)])
        assert isinstance(own, RefusedError)
        assert own.code == "engine-not-finite"
        assert isinstance(codes, RefusedError)
        assert codes.code == "not-finite-answer", "codes of a client's own choice are no fault of the server"
        assert isinstance(good, Response)

    run(play)


def test_versions_operations_and_shapes_are_never_mixed() -> None:
    seen: list[set[object]] = []

    class Watching(Engine):
        def __call__(self, request: Request, arrays: Arrays) -> Arrays:
            seen.append({float(value) for value in arrays["rows"].flatten()})
            return super().__call__(request, arrays)

    async def main() -> None:
        batcher = Batcher(Watching())
        versions = [object(), object()]
        requests = [asked(float(index % 2), deployment=versions[index % 2]) for index in range(64)]
        await answers(batcher, requests)
        assert all(len(values) == 1 for values in seen)
        batches: dict[int, set[int]] = {}
        for index, request in enumerate(requests):
            batches.setdefault(request.batch, set()).add(index % 2)
        assert all(len(kinds) == 1 for kinds in batches.values())
        batcher.close()

    asyncio.run(main())


def test_too_much_work_is_refused_at_once_with_a_time_to_come_back() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        engine.free.clear()
        waiting = [asyncio.ensure_future(batcher(asked(1.0))) for _ in range(100)]
        await asyncio.sleep(0.05)
        with pytest.raises(RefusedError) as refused:
            await batcher(asked(1.0))
        assert refused.value.code == "overloaded"
        assert int(refused.value.headers["retry-after"]) >= 1
        engine.free.set()
        assert len(await asyncio.gather(*waiting)) == 100

    run(play, most_waiting=100)


def test_work_that_would_miss_its_deadline_is_refused_or_dropped() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        engine.free.clear()
        first = asyncio.ensure_future(batcher(asked(1.0)))
        await asyncio.sleep(0.05)
        late = asyncio.ensure_future(batcher(asked(1.0, deadline=time.monotonic() + 0.1)))
        await asyncio.sleep(0.3)
        engine.free.set()
        await first
        with pytest.raises(RefusedError) as refused:
            await late
        assert refused.value.code == "deadline-passed"
        assert sum(engine.sizes) == 1, "nobody computes what nobody waits for"
        batcher.pace_s, batcher.waiting = 1.0, 10
        with pytest.raises(RefusedError) as predicted:
            await batcher(asked(1.0, deadline=time.monotonic() + 5))
        assert predicted.value.code == "overloaded"
        assert int(predicted.value.headers["retry-after"]) == 10

    run(play)


def test_nobody_computes_for_a_client_that_is_gone() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        engine.free.clear()
        first = asyncio.ensure_future(batcher(asked(1.0)))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(batcher(asked(2.0, gone=lambda: True)))
        cancelled = asyncio.ensure_future(batcher(asked(2.0)))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        engine.free.set()
        await first
        with pytest.raises(RefusedError) as refused:
            await gone
        assert refused.value.code == "client-gone"
        await asyncio.sleep(0.05)
        assert sum(engine.sizes) == 1
        assert batcher.waiting == 0

    run(play)


def test_a_stuck_engine_is_noticed() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        assert batcher.alive
        batcher.stuck_s = 0.1
        engine.free.clear()
        waiting = asyncio.ensure_future(batcher(asked(1.0)))
        await asyncio.sleep(0.3)
        assert not batcher.alive
        engine.free.set()
        await waiting
        assert batcher.alive

    run(play)


def test_what_nobody_waits_for_comes_last_in_small_batches_and_is_bounded() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        engine.free.clear()
        first = asyncio.ensure_future(batcher(asked(1.0)))
        await asyncio.sleep(0.05)
        aside = [batcher.aside(asked(float(value), rows=8)) for value in range(20, 30)]
        assert [future is None for future in aside] == [False] * 8 + [True] * 2
        assert (batcher.aside_rows, batcher.aside_dropped) == (64, 16)
        asked_for = [asyncio.ensure_future(batcher(asked(float(value), rows=8))) for value in range(40, 48)]
        await asyncio.sleep(0.05)
        engine.free.set()
        await asyncio.gather(first, *asked_for)
        found = await asyncio.gather(*(future for future in aside if future is not None))
        assert [float(one.outputs["twice"][0, 0]) for one in found] == [2.0 * value for value in range(20, 28)]
        assert engine.sizes == [1, 64, 16, 16, 16, 16], "those who wait come first"
        assert (batcher.waiting, batcher.aside_rows) == (0, 0)

    run(play, most_aside=64)


def test_a_failure_of_what_nobody_waits_for_is_its_own() -> None:
    async def play(batcher: Batcher, engine: Engine) -> None:
        bad, good = batcher.aside(asked(POISON)), batcher.aside(asked(2.0))
        assert bad is not None
        assert good is not None
        assert (await good).outputs["twice"].tolist() == [[4.0]]
        with pytest.raises(RefusedError):
            await bad

    run(play)

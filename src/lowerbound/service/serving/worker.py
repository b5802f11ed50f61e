"""One process of the server: one event loop and one engine thread. `python -m lowerbound.service.serving.worker`"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import TypeAdapter

from lowerbound.errors import LowerboundError
from lowerbound.service.monitoring.telemetry.fact import Privacy
from lowerbound.service.monitoring.telemetry.housekeeping import keep_house
from lowerbound.service.monitoring.telemetry.periodic import Periodic
from lowerbound.service.monitoring.telemetry.prometheus import prometheus_text
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.monitoring.verdicts.assignment import assigned
from lowerbound.service.monitoring.verdicts.court import Court
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.admission import Admission
from lowerbound.service.serving.asides import Asides, Shares
from lowerbound.service.serving.batcher import Batcher
from lowerbound.service.serving.control import application
from lowerbound.service.serving.deployment import Deployment, deploy
from lowerbound.service.serving.door import Door, Limits
from lowerbound.service.serving.exchange import Request
from lowerbound.service.serving.exporting import Export
from lowerbound.service.serving.gate import Gate, Incident, Incidents, keep, log
from lowerbound.service.serving.keys import Keys
from lowerbound.service.serving.logs import log_lines
from lowerbound.service.serving.metrics import Metrics, leave, merged
from lowerbound.service.serving.options import Options, Order, Place
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.protocol import Protocol
from lowerbound.service.serving.recorder import LatencyWatch, Recorder
from lowerbound.service.serving.router import Router, Watcher, state_of
from lowerbound.service.serving.site import Site, pages_of
from lowerbound.service.serving.verbs import Verbs

WRONG_USE, ENGINE_DEAD = 2, 70  # exit codes: do not start me again; do
SIT_S = 0.1  # between two looks at candidates
QUIET_S = 0.5  # without a new request, after which a connection may be closed while draining
SWITCH_S = 0.0005  # between two threads that both want to run: the engine must not wait 5 ms for the loop
logger = logging.getLogger("lowerbound.serving")


def compute(request: Request, arrays: Arrays) -> Arrays:
    """What the batcher runs."""
    return request.assigned.compute(request.operation, arrays, request.settings)


def _not_kept(written: asyncio.Future[None]) -> None:
    if (error := written.exception()) is not None:
        logger.error("an incident could not be written down: %s", error)


class Worker:
    """All parts of one process, put together; made in its loop.

    Args:
        options: of the server.
        place: of this process.
    """

    def __init__(self, options: Options, place: Place) -> None:
        self.options, self.place = options, place
        self.keys = Keys(Path(options.keys) if options.keys else None, share=1 / options.workers)
        self.numbers = Metrics()
        privacy = Privacy(options.privacy, options.sample_share)
        self.telemetry = Telemetry(options.telemetry, privacy=privacy) if options.telemetry else None
        self.house = keep_house(options.telemetry) if options.telemetry and place.slot == 0 else None
        self.export = Export(options) if options.otlp and place.slot == 0 else None
        self.watch = LatencyWatch(limit_s=options.p99_s)
        self.incident = Incidents(self._tell)
        self.batcher = Batcher(compute, options.batch_rows, options.waiting_rows)
        shares = Shares(options.shadow_share, options.encode_share)
        asides = None if self.telemetry is None else Asides(self.batcher.aside, self.telemetry, shares)
        self.router = Router(Verbs(self.batcher), partial(assigned, share=options.rules.share), asides)
        gate = Gate(self.router, self.router.assign, self.incident)
        chain = Recorder(Admission(gate, self.keys), self.telemetry, privacy.digests, self.numbers, self.watch)
        limits = Limits(body_bytes=options.body_bytes, body_s=options.body_s, deadline_s=options.deadline_s)
        registry = Registry(options.registry)
        folder = Path(options.telemetry) if options.telemetry else None
        pages = pages_of(options.pages)(Site(options.names, registry, folder, self.keys))
        self.door = Door(chain, application(self, self.keys, pages), limits)
        threads = options.threads or max(1, (os.cpu_count() or 1) // options.workers)
        load: Callable[..., Deployment] = partial(
            deploy, engine=options.engine, level=options.gate_level, threads=threads
        )
        self.watcher = Watcher(registry, options.names, load, self.router)
        self.court: Court | None = None
        self.sitting: Periodic | None = None
        if self.telemetry is not None:  # each process has one; one of them sits
            self.court = Court(
                self.telemetry.folder, registry, self.watcher.candidates, options.rules, self.watcher.nudge
            )
        self.started = time.time()

    def _tell(self, incident: Incident) -> None:
        """Say it in the log, and keep it with what the monitor finds; writing must not hold up the loop."""
        log(incident)
        if self.telemetry is not None:
            version = self.router.served[incident.model].stable.version
            written = asyncio.get_running_loop().run_in_executor(
                None, keep, replace(incident), version, self.telemetry.folder
            )
            written.add_done_callback(_not_kept)

    # ---------------------------------------------------------------------------------- what the control page shows

    def models(self) -> list[dict[str, Any]]:
        """What is served."""
        return state_of(self.router)

    def health(self) -> dict[str, Any]:
        """Whether this process and its engine live."""
        return {"ok": self.batcher.alive, "engine": self.batcher.alive, "worker": self.place.slot, "pid": os.getpid()}

    def ready(self) -> dict[str, Any]:
        """Whether requests should come here."""
        served = set(self.router.served) == set(self.options.names)
        ok = served and self.batcher.alive and not self.door.draining
        return {
            "ok": ok,
            "models": served,
            "engine": self.batcher.alive,
            "draining": self.door.draining,
            "alert": self.watch.alerting,
            "troubles": dict(self.router.troubles),
        }

    def incidents(self) -> list[dict[str, Any]]:
        """Those that are open, and the last that were closed."""
        return [found.describe() for found in (*self.incident.open.values(), *self.incident.past)]

    def own_metrics(self) -> bytes:
        """Of this process."""
        sizes = self.batcher.sizes
        self.numbers.batches(sizes.popleft() for _ in range(len(sizes)))
        self.numbers.set("waiting_rows", self.batcher.waiting)
        self.numbers.set("aside_rows", self.batcher.aside_rows)
        self.numbers.set("aside_dropped", self.batcher.aside_dropped)
        self.numbers.set("engines_alive", self.batcher.alive)
        self.numbers.set("incidents_open", len(self.incident.open))
        if self.telemetry is not None:
            self.numbers.set("facts_dropped", sum(self.telemetry.counts.lost.values()))
        self.numbers.set("workers", 1)
        return self.numbers.text()

    def metrics(self) -> bytes:
        """Of all processes."""
        others = [path for path in Path(self.place.folder).glob("*.prom") if path.stem != str(self.place.slot)]
        return merged(self.own_metrics(), others)

    def telemetry_metrics(self) -> bytes:
        """Of what telemetry keeps, across restarts."""
        return prometheus_text(self.options.telemetry) if self.options.telemetry else b""

    # ------------------------------------------------------------------------------------------------- its life

    async def live(self, listener: socket.socket) -> int:
        """Load, serve until told to end, and finish what was begun; returns the exit code."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        self.watcher.first()
        config = uvicorn.Config(
            self.door,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            backlog=2048,
        )
        config.load()
        server = _Server(config)
        await server.open(listener)
        self.start()
        self._beat("ready")
        logger.info("ready after %.2f s", time.time() - self.started)
        code = await self._beats(ended)
        self.rest()
        await server.drain(self.door, self.options.drain_s)
        self.close()
        logger.info("ended")
        return code

    def start(self) -> None:
        """Follow the registry, and judge candidates."""
        self.watcher.start()
        if self.court is not None:
            self.sitting = Periodic("court", self.court.sit, SIT_S)

    def tend(self) -> None:
        """What is to be done every second."""
        self.watch.look()
        try:
            self.keys.refresh()
        except LowerboundError as error:
            logger.error("the keys stay as they were: %s", error)

    def rest(self) -> None:
        """Follow and judge no more."""
        self.watcher.stop()
        if self.court is not None and self.sitting is not None:
            self.sitting.close()
            self.court.rise()

    def close(self) -> None:
        """End what runs beside the loop; nothing is being answered any more."""
        self.batcher.close()
        for work in (self.house, self.telemetry, self.export):
            if work is not None:
                work.close()

    async def _beats(self, ended: asyncio.Event) -> int:
        """A sign of life to the supervisor every second, as long as there is life."""
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), timeout=1.0)
            except TimeoutError:
                self.tend()
                leave(Path(self.place.folder) / f"{self.place.slot}.prom", self.own_metrics())
                if not self.batcher.alive:
                    logger.error("the engine is dead or stuck; this process ends")
                    os._exit(ENGINE_DEAD)  # what waits for the engine would wait for ever
                if not self._beat("beat"):
                    logger.warning("the supervisor is gone; this process ends")
                    return 0
        return 0

    def _beat(self, word: str) -> bool:
        try:
            os.write(self.place.pulse, word.encode() + b"\n")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class _Server(uvicorn.Server):
    """uvicorn's server, opened on a socket that is there and closed in our way."""

    async def open(self, listener: socket.socket) -> None:
        """Serve from now on."""
        from uvicorn.lifespan.off import LifespanOff

        self.lifespan = LifespanOff(self.config)
        await self.startup(sockets=[listener])

    async def drain(self, door: Door, most_s: float) -> None:
        """Take no new connections, answer all that was asked, and close what is quiet."""
        door.draining = True
        for _ in range(5):  # turns of the loop, in which it accepts whoever is in the queue
            await asyncio.sleep(0.02)
        for server in self.servers:
            server.close()
        end = time.monotonic() + most_s
        quiet = time.monotonic()
        while time.monotonic() < end and self.server_state.connections:
            await asyncio.sleep(0.02)
            if door.inside:
                quiet = time.monotonic()
            elif time.monotonic() - quiet > QUIET_S:
                break
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while time.monotonic() < end and (door.inside or self.server_state.connections):
            await asyncio.sleep(0.02)


def run(order: Order) -> int:
    """Be a worker; returns the exit code."""
    sys.setswitchinterval(SWITCH_S)
    log_lines(f"worker {order.place.slot}")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    os.set_blocking(order.place.pulse, False)
    listener = socket.socket(fileno=order.place.listener)
    config = uvicorn.Config("", loop="auto")
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            return runner.run(_live(order, listener))
    except LowerboundError as error:
        sys.stderr.write(f"error: {error}\n")
        return WRONG_USE


async def _live(order: Order, listener: socket.socket) -> int:
    return await Worker(order.options, order.place).live(listener)


def main() -> None:
    """Read the order from the command line."""
    order = TypeAdapter(Order).validate_json(sys.argv[1])
    raise SystemExit(run(order))


if __name__ == "__main__":
    main()

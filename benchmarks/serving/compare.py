"""Our server beside LitServe: the same exported encoder, the same payload, the same 16 clients, in turns.

    python benchmarks/serving/compare.py PYTHON_OF_LITSERVE --out DIR [--seconds 5] [--rounds 3] [--only NAME ...]

Ours is the whole chain: gate, batcher, fact rows in telemetry. LitServe reads the body, computes and answers; of its
settings with and without batches, the better one counts. wrk (of Debian) makes the load, of both in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from load import Measured, ours, paced, running, wrk
from models import MODELS, payloads, pictures, register

from lowerbound.files import write_json
from lowerbound.lab.run import load
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.engine import Engine, OnnxEngine, TorchEngine
from lowerbound.service.serving.settings import NONE

HERE = Path(__file__).parent
PORT, PEER = 8760, 8770
SETTINGS = ((1, 0.0), (16, 0.002))  # of LitServe: rows of a batch, seconds that it waits for one


def beside_litserve(python: str, out: Path, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """Requests per second and latencies of both, for a raw array and a PNG."""
    registry = register(out, "small")
    file = Registry(registry).resolve("small").path / "export" / "encode.onnx"
    found: dict[tuple[str, str], list[Measured]] = {}
    one = ours(registry, "small", PORT)
    two = ours(registry, "small", PORT + 1, "--workers", 2)
    with (
        running(one, _ready(PORT), out / "ours.log") as (process, _),
        running(two, _ready(PORT + 1), out / "ours2.log") as (processes, _),
    ):
        servers = {"ours": (PORT, process), "ours, 2 workers": (PORT + 1, processes)}
        for batch, wait_s in SETTINGS:
            size = MODELS["small"][0]
            command = [python, HERE / "peer.py", file, PEER, size, batch, wait_s]
            with running(command, f"http://127.0.0.1:{PEER}/health", out / "peer.log") as (peer, _):
                for _ in range(rounds):
                    for payload, (body, kind) in payloads(out, "small").items():
                        url = f"http://127.0.0.1:{PEER}/predict"
                        theirs = wrk(url, body, kind, seconds, peer)
                        found.setdefault((payload, f"LitServe, batches of {batch}"), []).append(theirs)
                        print(payload, batch, theirs, flush=True)
                        for server, (port, owner) in servers.items():
                            url = f"http://127.0.0.1:{port}/v1/models/small/encode"
                            found.setdefault((payload, server), []).append(wrk(url, body, kind, seconds, owner))
                            print(payload, server, found[payload, server][-1], flush=True)
    return [_row(payload, server, runs) for (payload, server), runs in found.items()]


def compute_bound(out: Path, seconds: int, rounds: int) -> dict[str, Any]:
    """The share of the engine's own batch throughput that clients get of a model whose computing takes longest."""
    registry, (body, kind) = register(out, "heavy"), payloads(out, "heavy")["array"]
    engine = _engine(registry, "heavy")
    rows = np.repeat(pictures(1, MODELS["heavy"][0]), 16, axis=0).astype(np.float32)
    shares, alone, served = [], [], []
    with running(ours(registry, "heavy", PORT), _ready(PORT), out / "heavy.log") as (process, _):
        for _ in range(rounds):
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                engine.run("encode", {"rows": rows}, NONE)
                count += len(rows)
            alone.append(count / (time.perf_counter() - start))
            url = f"http://127.0.0.1:{PORT}/v1/models/heavy/encode"
            served.append(wrk(url, body, kind, seconds, process).rate)
            shares.append(served[-1] / alone[-1])
            print("compute-bound", alone[-1], served[-1], flush=True)
    return {"engine": statistics.median(alone), "served": statistics.median(served), "share": statistics.median(shares)}


def half_load(out: Path, seconds: int) -> dict[str, Any]:
    """The 99th percentile of reconstructing a picture of 64 x 64 at half of what the server can do."""
    registry, (body, kind) = register(out, "vae64"), payloads(out, "vae64")["PNG"]
    path = "/v1/models/vae64/reconstruct"
    with running(ours(registry, "vae64", PORT), _ready(PORT), out / "vae64.log") as (process, _):
        full = wrk(f"http://127.0.0.1:{PORT}{path}", body, kind, seconds, process)
        times = paced(PORT, path, body.read_bytes(), kind, full.rate / 2, 2 * seconds)
    return {"full": full.rate, "p50_ms": float(np.quantile(times, 0.5)), "p99_ms": float(np.quantile(times, 0.99))}


def cold_start(out: Path, rounds: int) -> dict[str, Any]:
    """Seconds from the command to the first answer that says ready, and the processor seconds in them."""
    registry = register(out, "small")
    walls, processors = [], []
    for _ in range(rounds):
        with running(ours(registry, "small", PORT), _ready(PORT), out / "cold.log") as (process, seconds):
            walls.append(seconds)
            used = [member.cpu_times() for member in (process, *process.children(recursive=True))]
            processors.append(sum(times.user + times.system for times in used))
    return {"wall_s": min(walls), "cpu_s": min(processors)}


def _ready(port: int) -> str:
    return f"http://127.0.0.1:{port}/readyz"


def _engine(registry: Path, name: str) -> Engine:
    version = Registry(registry).resolve(name)
    return OnnxEngine(version.path / "export", TorchEngine(load(version.path)), 1)


def _row(payload: str, server: str, runs: list[Measured]) -> dict[str, Any]:
    return {
        "payload": payload,
        "server": server,
        "rate": statistics.median(run.rate for run in runs),
        "p99_ms": statistics.median(run.p99_ms for run in runs),
        "cpu_us": statistics.median(run.cpu_us for run in runs),
        "failed": sum(run.failed for run in runs),
    }


def main() -> None:
    """Print the table for this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["beside", "compute_bound", "half_load", "cold_start"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    every: dict[str, Callable[[], Any]] = {
        "beside": lambda: beside_litserve(given.python, given.out, given.seconds, given.rounds),
        "compute_bound": lambda: compute_bound(given.out, given.seconds, given.rounds),
        "half_load": lambda: half_load(given.out, given.seconds),
        "cold_start": lambda: cold_start(given.out, given.rounds),
    }
    found: dict[str, Any] = {}
    for name in given.only:
        found[name] = every[name]()
        print(name, json.dumps(found[name]), flush=True)
    rows = found.get("beside", [])
    print("| payload | server | requests/s | p99, ms | processor, us/request | failed |\n" + "| --- " * 6 + "|")
    for row in sorted(rows, key=lambda row: (row["payload"], row["server"])):
        print(
            f"| {row['payload']} | {row['server']} | {row['rate']:,.0f} | {row['p99_ms']:.1f} | {row['cpu_us']:.0f} "
            f"| {row['failed']} |"
        )
    write_json(given.out / "compare.json", found)


if __name__ == "__main__":
    main()

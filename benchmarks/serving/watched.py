"""What telemetry and a shadow cost a server, and how fast a bad canary goes.

    python benchmarks/serving/watched.py --out FOLDER [--seconds 4] [--rounds 6] [--write]

Servers with and without telemetry are asked in turns. Of a rollback, the time is from the answer of the decisive
request (the one whose row made the evidence enough, found by judging all rows again one by one) to the last answer of
the canary. --write puts both tables into docs/telemetry.md and docs/canary.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import statistics
import threading
import time
from pathlib import Path
from urllib.request import urlopen

from load import Measured, ours, paced, running, wrk
from models import UNJUDGED, make, payloads, register

import lowerbound
from lowerbound.files import write_json
from lowerbound.lab.run import Run
from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.verdicts.halves import Halves, Side
from lowerbound.service.monitoring.verdicts.judge import Judge
from lowerbound.service.monitoring.verdicts.rules import Rules
from lowerbound.service.registry.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"
PORT = 8780
CLIENTS = 4


def costs(out: Path, seconds: int, rounds: int) -> list[list[str]]:
    """Processor time per request, requests per second, and latencies at a steady rate, of servers in turns."""
    registry = register(out, "small")
    body, kind = payloads(out, "small")["array"]
    options = {"none": ("--no-telemetry",), "facts": (), "facts and inputs": ("--privacy", "sample")}
    commands = {
        what: ours(registry, "small", PORT + place, *given) for place, (what, given) in enumerate(options.items())
    }
    found: dict[str, list[Measured]] = {what: [] for what in options}
    latencies: dict[str, list[float]] = {what: [] for what in options}
    with (
        running(commands["none"], _ready(0), out / "none.log") as (none, _),
        running(commands["facts"], _ready(1), out / "facts.log") as (facts, _),
        running(commands["facts and inputs"], _ready(2), out / "inputs.log") as (inputs, _),
    ):
        for _ in range(rounds):
            for place, (what, process) in enumerate(zip(options, (none, facts, inputs), strict=True)):
                url = f"http://127.0.0.1:{PORT + place}/v1/models/small/encode"
                found[what].append(wrk(url, body, kind, seconds, process))
                latencies[what] += paced(PORT + place, "/v1/models/small/encode", body.read_bytes(), kind, 100, seconds)
    return [
        [
            what,
            f"{statistics.median(run.cpu_us for run in runs):.0f}",
            f"{statistics.median(run.rate for run in runs):,.0f}",
            f"{statistics.median(latencies[what]):.2f}",
        ]
        for what, runs in found.items()
    ]


def rollbacks(out: Path, times: int) -> list[list[str]]:
    """Seconds from the decisive request to the last answer of a canary that is worse, and how many rows it took."""
    registry = Registry(register(out, "small"))
    bad = _bad(out, registry)
    body, kind = payloads(out, "small")["array"]
    found, needed = [], []
    for index in range(times):
        folder = out / f"rollback-{index}"
        shutil.rmtree(folder, ignore_errors=True)
        options = ("--workers", 2, "--canary-share", 1, "--telemetry", folder)
        command = ours(out / "registry", "small", PORT + 3, *options)
        with running(command, _ready(3), out / f"rollback-{index}.log"):
            _wait_for_both()
            last = _until_it_goes(registry, bad, body, kind)
        decisive, count = _decisive(folder, registry, bad)
        found.append(last - decisive)
        needed.append(count)
    return [
        [
            "seconds from the decisive request to the last answer of the canary",
            ", ".join(f"{one:.2f}" for one in found),
        ],
        ["rows until then", ", ".join(map(str, needed))],
    ]


def _wait_for_both() -> None:
    """Until both workers answer."""
    seen: set[int] = set()
    while seen != {0, 1}:
        with urlopen(f"http://127.0.0.1:{PORT + 3}/healthz") as answer:
            seen.add(json.load(answer)["worker"])


def _until_it_goes(registry: Registry, bad: int, body: Path, kind: str) -> float:
    """Make it a canary and ask until it is none; when its last answer came."""
    registry.promote("small", bad, "canary")
    gone, last = threading.Event(), [0.0]

    def ask(name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT + 3, timeout=30)
        while not gone.is_set():
            head = {"content-type": kind, "x-sticky-key": name}
            connection.request("POST", "/v1/models/small/score", body.read_bytes(), head)
            answer = connection.getresponse()
            answer.read()
            if answer.headers["x-model-version"].startswith(f"{bad}-"):
                last[0] = max(last[0], time.time())
        connection.close()

    threads = [threading.Thread(target=ask, args=(f"client-{index}",)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while "canary" in registry.aliases("small"):
        time.sleep(0.05)
    time.sleep(1.5)
    gone.set()
    for thread in threads:
        thread.join()
    return last[0]


def _decisive(folder: Path, registry: Registry, bad: int) -> tuple[float, int]:
    """When the request was answered that made the evidence enough, and its number."""
    versions = [registry.resolve(f"small:{number}").hash for number in (bad, 1)]
    halves, judge = Halves(Side("canary", versions[0]), Side("stable", versions[1])), Judge(Rules(), 0.0)
    answered: dict[str, float] = {}
    count = 0
    for fact in History(folder).after(0, 10**6):
        answered.setdefault(fact["request"], fact["time"])
        candidate, stable = halves.add([fact])
        if len(candidate):
            judge.score(candidate, stable, 0.0)
            count += 1
            if judge.verdict(0.0).action == "roll_back":
                return answered[fact["request"]], count
    raise SystemExit("the evidence was never enough")


def _bad(out: Path, registry: Registry) -> int:
    """A version whose decoder is off by a little."""
    source, run = make(out, "small"), out / "runs" / "bad"
    if not run.exists():
        shutil.copytree(source, run)
        weights = {name: tensor.clone() for name, tensor in lowerbound.load(source).state_dict().items()}
        last = [name for name, tensor in weights.items() if name.startswith("decoder") and tensor.ndim == 1][-1]
        weights[last] += 0.2
        Run(run).finish(weights, 20)
        write_json(run / "evaluation.json", UNJUDGED)
    return registry.add(run, "small").number


def _ready(place: int) -> str:
    return f"http://127.0.0.1:{PORT + place}/readyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--rollbacks", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    heads = (
        ["telemetry", "processor, us/request", "requests/s", "median latency at 100 requests/s, ms"],
        ["what", "measured"],
    )
    tables = (costs(given.out, given.seconds, given.rounds), rollbacks(given.out, given.rollbacks))
    for page, mark, head, rows in zip(("telemetry", "canary"), ("cost", "rollback"), heads, tables, strict=True):
        table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
        print(f"{table}\n")
        if given.write:
            path = DOCS / f"{page}.md"
            pattern = rf"(<!-- {mark} -->\n).*?(<!-- end -->)"
            path.write_text(re.sub(pattern, rf"\g<1>{table}\n\g<2>", path.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main()

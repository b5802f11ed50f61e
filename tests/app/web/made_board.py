"""A registry, telemetry and what others leave beside it, for the dashboard to show."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import lowerbound
from lowerbound.files import write_bytes, write_json
from lowerbound.service.candidate import Candidate
from lowerbound.service.monitoring.telemetry.fact import Fact
from lowerbound.service.monitoring.telemetry.history import History
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.monitoring.verdicts.rules import Rules
from lowerbound.service.monitoring.verdicts.trial import Trial
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version

SMALL = (
    *("training.checkpoint_every=200", "training.batch_size=64", "evaluation.samples=2"),
    *("model.encoder.widths=[32]", "model.decoder.widths=[32]"),
)
UNJUDGED = {"protocol": {"examples": 0, "split": "test", "samples": 0}, "results": {}}  # judging takes longest
DAY_S = 86400.0
REFUSED = (("flat", 422), ("wrong-size", 422), ("rate-limited", 429), ("latent-norm", 422), ("engine-failed", 500))


def registry(folder: Path, steps: int = 200) -> Registry:
    """Versions 1 to 3 of `digits`: 2 is stable, after 1, and 3 a canary; conditional, so that none is exported."""
    found = Registry(folder / "registry")
    for seed in (1, 2, 3):
        run = folder / f"run{seed}"
        lowerbound.train(
            lowerbound.read_recipe("digits", [*SMALL, "data.context=label", f"training.steps={steps}", f"seed={seed}"]),
            run,
        )
        write_json(run / "evaluation.json", UNJUDGED)
        found.add(run, "digits", why=f"seed {seed}")
    found.promote("digits", 1, why="the first one")
    found.promote("digits", 2, why="1.2 % less error on the benchmark")
    found.promote("digits", 3, "canary", why="trained on newer rows")
    return found


def facts(version: Version, now: float, days: float, count: int, seed: int = 0, shifted: bool = True) -> list[Fact]:
    """Rows of a version over some days, codes as its reference's; in the last two hours some things went wrong."""
    rng, reference = np.random.default_rng(seed), version.calibration()
    points = reference.points.numpy()
    share = np.sort(rng.random(count))
    times = now - days * DAY_S * (1 - share)
    late = (times > now - 7200) & shifted
    code = points[rng.integers(0, len(points), count)].astype(np.float32)
    code[late, 2] += 1.5 * points[:, 2].std()
    code[late, 5] *= 1.6
    error = np.exp(rng.normal(-4.3, 0.3, count) + 0.35 * late)
    rate = rng.normal(18, 2, count)
    queue, compute = rng.gamma(2, 0.0008, count), rng.gamma(6, 0.0005, count)
    spread = reference.mean_of_variances.float().numpy()
    refused = rng.random(count) < 0.02 + 0.05 * late
    made = []
    for index in range(count):
        labels: dict[str, Any] = {
            "time": times[index],
            "request": f"r{index}",
            "model": version.name,
            "version": version.hash,
            "alias": "stable",
            "verb": "encode",
            "queue_s": queue[index],
            "compute_s": compute[index],
            "total_s": 0.001 + queue[index] + compute[index],
        }
        if refused[index]:
            reason, status = REFUSED[int(rng.integers(0, 100) ** 2 / 2200)]
            made.append(Fact(**labels, status=status, reason=reason, gate=reason if status == 422 else ""))
            continue
        found = {"error": error[index], "rate": rate[index], "norm": 3.0, "p_value": 0.4}
        vectors = {
            "code": code[index],
            "rates": np.abs(code[index]),
            "variances": spread,
        }
        made.append(Fact(**labels, gate="passed", **found, **vectors))
    return made


def write_facts(folder: Path, rows: list[Fact]) -> None:
    """Into the store of a folder."""
    with Telemetry(folder, most_rows=1_000_000) as store:
        for fact in rows:
            assert store(fact)
        assert store.flush(60)


def write_verdict(folder: Path, place: Registry, now: float, worse: float = 0.01) -> None:
    """What the trial of the canary leaves after 600 requests."""
    rng, aliases = np.random.default_rng(1), place.aliases("digits")
    canary, stable = aliases["canary"], aliases["stable"]
    since = next(entry.id for entry in reversed(place.history("digits")) if entry.alias == "canary")
    candidate = Candidate("digits", "canary", canary.number, canary.hash, since, stable.number, stable.hash)
    trial = Trial.open(folder, candidate, Rules(), History(folder).newest(), now - 5 * 3600)
    for step in range(120):
        known = np.exp(rng.normal(-4.3, 0.3, 5))
        trial.judge.score(known * np.exp(rng.normal(worse, 0.08, 5)), known, now - 5 * 3600 + 150 * step)
    trial.save(now)


def write_looks(folder: Path, now: float) -> None:
    """Looks for drift, the last two of which alarm, with a decoded direction."""
    detectors = ("latent, unit by unit", "latent, together", "aggregate posterior", "rate", "reconstruction error")
    for index in range(20):
        alarms = {0, 2} if index >= 18 else set()
        verdicts = [
            {"detector": name, "alarm": place in alarms, "p_value": 1e-5 if place in alarms else 0.4, "level": 1e-4}
            | {"effect": 0.31, "label": "unit 2", "findings": []}
            for place, name in enumerate(detectors)
        ]
        known = {"id": f"look-{index:02}", "model": "digits", "time": now - 3600 * (20 - index), "requests": 2000}
        more = {"verdicts": verdicts, "drift": bool(alarms), "alerts": ["drift-latent"] if alarms else []}
        signs = [{"name": "flat input", "share": 0.002, "expected": 0.001, "alarm": False}]
        ways = [{"label": "unit 2", "moved": 1.4, "spread": 1.1, "picture": "look-19-0.png"}] if index == 19 else []
        causes = [{"name": "a kind that the reference lacks", "share": 0.14, "stderr": 0.01}] if ways else []
        write_json(
            folder / "drift" / "digits" / f"look-{index:02}.json",
            known
            | more
            | {
                "signs": signs,
                "directions": ways,
                "causes": causes,
                "certificate": "At most 2 false alarms a month.",
                "baseline": "10,000 rows",
            },
        )
    picture = Image.fromarray(np.tile(np.linspace(0, 255, 128, dtype=np.uint8), (32, 1)))
    buffer = io.BytesIO()
    picture.resize((512, 64)).save(buffer, format="PNG")
    write_bytes(folder / "drift" / "digits" / "look-19-0.png", buffer.getvalue())


def write_incidents(folder: Path, now: float) -> None:
    """An open incident and a closed one."""
    opened = {
        "id": "one",
        "model": "digits",
        "version": "abc",
        "kind": "drift-latent",
        "alerts": ["drift-latent", "high-error"],
        "opened": now - 5400,
        "closed": None,
        "seen": now - 60,
        "timeline": [
            {"time": now - 5400, "step": "opened", "text": "drift-latent: unit 2 moved by 1.4 deviations."},
            {
                "time": now - 5000,
                "step": "investigate",
                "text": "Of 10,000 requests 14.2 % are of a kind that the reference lacks.",
            },
            {"time": now - 3000, "step": "mitigate", "text": "Camera 3 was taken off."},
        ],
        "causes": [
            {"name": "a kind that the reference lacks", "share": 0.142, "stderr": 0.006, "requests": []},
            {"name": "flat input", "share": 0.03, "stderr": 0.002, "requests": []},
        ],
        "reports": ["drift/digits/look-19.html"],
    }
    write_json(folder / "incidents" / "one.json", opened)
    closed = {
        "id": "two",
        "kind": "flat-inputs",
        "opened": now - 4 * DAY_S,
        "closed": now - 4 * DAY_S + 3000,
        "causes": [],
    }
    write_json(folder / "incidents" / "two.json", {**opened, **closed, "reports": []})


def copied(shown: Path, folder: Path) -> Path:
    """A copy of a registry and its telemetry, to be changed at will."""
    for name in ("registry", "telemetry"):
        shutil.copytree(shown / name, folder / name)
    return folder


def picture_of(data: str) -> Image.Image:
    """The picture within a data address."""
    return Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))

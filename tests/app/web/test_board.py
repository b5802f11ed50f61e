"""The data of the dashboard, against the facts that it is of."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from pathlib import Path

import made_board
import numpy as np
import pytest
from harness import Cli

from lowerbound.app.web import codes, files
from lowerbound.app.web.board import Sources, board
from lowerbound.app.web.pages import CONFIRM, Rollback
from lowerbound.app.web.plain import numbers, text
from lowerbound.app.web.shared import Shared
from lowerbound.app.web.snapshot import write_snapshot
from lowerbound.errors import UsageError
from lowerbound.service.monitoring.telemetry.fact import IDLE, Fact
from lowerbound.service.monitoring.telemetry.history import Choice, History
from lowerbound.service.monitoring.telemetry.store import Telemetry
from lowerbound.service.registry.registry import Registry

NOW = 1_750_000_000.0 // 3600 * 3600 + 1800


def _sources(place: Path) -> Sources:
    return Sources(Registry(place / "registry"), place / "telemetry")


def _day(shown) -> dict:
    folder, now = shown
    return board(_sources(folder), "digits", 24, now)


def test_traffic_and_reasons_are_those_of_the_facts(shown) -> None:
    found = _day(shown)["telemetry"]
    window = History(shown[0] / "telemetry").window(Choice(since=found["traffic"]["time"][0]))
    bad = window.status >= 400
    assert sum(found["traffic"]["answered"]["stable"]) == (~bad).sum()
    assert sum(found["traffic"]["refused"]) == (bad & (window.status < 500)).sum()
    assert sum(found["traffic"]["failed"]) == (window.status >= 500).sum() == found["answers"]["failed"]
    assert (found["answers"]["asked"], found["answers"]["lost"]) == (len(window), bad.sum())
    reasons, counts = np.unique(window.reason[bad], return_counts=True)
    assert {each["reason"]: each["rows"] for each in found["answers"]["reasons"]} == dict(
        zip(reasons.tolist(), counts.tolist(), strict=True)
    )
    steps = np.diff(found["traffic"]["time"])
    assert (steps == 900).all()


def test_latencies_are_percentiles_of_the_requests_of_each_span(shown) -> None:
    found = _day(shown)["telemetry"]["latency"]
    window = History(shown[0] / "telemetry").window()
    start = found["time"][-3]
    total = window.total_s[(window.time >= start) & (window.time < start + 900) & (window.status < 400)]
    assert 10 <= len(total) <= 256
    assert found["p50"][-3] == pytest.approx(1e3 * np.percentile(total, 50), rel=1e-4)
    assert found["p99"][-3] == pytest.approx(1e3 * np.percentile(total, 99), rel=1e-4)
    assert found["queue"][-3] < found["p50"][-3] < found["p99"][-3]


def test_averages_leave_their_band_where_the_error_does(shown) -> None:
    found = _day(shown)["telemetry"]["rolling"]
    error, rate = found["error"], found["rate"]
    assert (error["state"], rate["state"]) == ("alarm", "inside")
    late = np.array(error["time"]) > shown[1] - 6600
    alarms = np.array(error["alarms"])
    assert alarms[late].mean() > 0.8
    assert alarms[~late].mean() < 0.02
    assert error["low"] < np.nanmedian(np.array(error["mean"], float)) < error["high"]


def test_without_a_day_of_averages_there_is_no_band_and_the_page_says_what_is_missing(tmp_path: Path, shown) -> None:
    registry = Registry(shown[0] / "registry")
    rows = made_board.facts(registry.resolve("digits"), NOW, 0.2, 3000, shifted=False)
    made_board.write_facts(tmp_path, rows)
    found = board(Sources(registry, tmp_path), "digits", 6, NOW)["telemetry"]["rolling"]["error"]
    assert found["state"] == "unknown"
    assert found["low"] is None
    assert "288" in found["says"]
    assert len(found["mean"]) > 20


def test_units_that_moved_are_seen_beside_the_reference(shown) -> None:
    found = _day(shown)["telemetry"]["codes"]
    latent = found["latent"]
    reference = Registry(shown[0] / "registry").resolve("digits").calibration()
    assert latent["units"] == len(latent["shift"]) == 16
    moved = np.array(latent["shift"], float)
    active = reference.variance_of_means.numpy() > 0.01
    assert latent["reference_active"] == active.sum()
    assert np.isnan(moved[~active]).all()
    window = History(shown[0] / "telemetry").window(Choice(coded=True, newest=2000))
    wanted = (window.code.mean(axis=0) - reference.mean.numpy()) / reference.variance_of_means.sqrt().numpy()
    np.testing.assert_allclose(moved[active], wanted[active], rtol=1e-3, atol=1e-4)
    variance = window.code.var(axis=0) + reference.mean_of_variances.numpy()
    ratio = variance / reference.aggregate_variance.numpy()
    np.testing.assert_allclose(np.array(latent["ratio"], float)[active], ratio[active], rtol=0.02)


def test_codebooks_are_compared_by_use() -> None:
    rng = np.random.default_rng(0)
    found = codes.codebook(rng.integers(0, 4, (100, 9)), rng.integers(0, 8, (500, 9)))
    assert (found["codes"], found["used"], found["reference_used"]) == (8, 4, 8)
    assert found["perplexity"] == pytest.approx(4, abs=0.05)
    assert found["reference_perplexity"] == pytest.approx(8, abs=0.05)
    assert sum(found["share"]) == pytest.approx(1, abs=1e-3)


def test_indices_are_shown_as_the_use_of_a_codebook(shown, tmp_path: Path) -> None:
    version = Registry(shown[0] / "registry").resolve("digits")
    head = (NOW - 60, "r", "digits", version.hash, "stable", "encode")
    made_board.write_facts(tmp_path, [Fact(*head, code=np.array([index % 3, 5])) for index in range(60)])
    found = codes.codes(History(tmp_path), Choice(version=version.hash), version)
    assert found["latent"] is None
    assert found["codebook"]["share"] == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0, 0, 0.5], abs=1e-4)


def test_what_others_left_is_shown(shown) -> None:
    found = _day(shown)
    assert found["canary"]["number"] == 3
    assert found["canary"]["now"]
    assert found["canary"]["verdict"]["action"] == "hold"
    curve = found["canary"]["curves"]["error"]
    assert curve["n"] == sorted(curve["n"])
    assert curve["n"][-1] == 600
    assert curve["margin"][0] == pytest.approx(2)
    assert all(
        low <= mean <= high for low, mean, high in zip(*(curve[k] for k in ("lower", "mean", "upper")), strict=True)
    )
    assert [look["drift"] for look in found["drift"]["looks"]] == [False] * 18 + [True] * 2
    assert made_board.picture_of(found["drift"]["drawn"]["directions"][0]["picture"]).size == (512, 64)
    assert [one["closed"] is None for one in found["incidents"]] == [True, False]
    assert found["incidents"][0]["causes"][0]["share"] == 0.142
    assert found["versions"]["aliases"] == {"stable": 2, "canary": 3}
    assert found["versions"]["back"] == 1
    assert json.loads(text(found))["model"] == "digits"


def test_damaged_and_foreign_files_are_passed_over(place: Path) -> None:
    store = place / "telemetry"
    (store / "incidents" / "torn.json").write_text('{"id": "to')
    (store / "incidents" / "list.json").write_text("[1, 2]")
    (store / "incidents" / "odd.json").write_text('{"model": "digits", "timeline": 3, "causes": [4], "opened": "then"}')
    (store / "drift" / "digits" / "zz.json").write_text(
        '{"verdicts": null, "directions": [{"picture": "../../x.png"}]}'
    )
    (store / "verdicts" / "digits" / "3.json").write_text('{"curves": {"error": {"points": [null, {}]}}, "verdict": 1}')
    found = board(_sources(place), "digits", 24, time.time())
    assert len(found["incidents"]) == 3
    assert found["drift"]["drawn"]["directions"][0]["picture"] is None
    assert found["canary"]["curves"] == {}
    text(found)


def test_without_telemetry_or_requests_the_board_says_so(tmp_path: Path, shown) -> None:
    registry = Registry(shown[0] / "registry")
    none = board(Sources(registry, None), "digits", 24, NOW)
    assert "--no-telemetry" in none["telemetry"]["why"]
    assert (none["canary"], none["drift"], none["incidents"]) == (None, None, None)
    missing = board(Sources(registry, tmp_path / "nowhere"), "digits", 24, NOW)
    assert not missing["telemetry"]["here"]
    with Telemetry(tmp_path / "store"):
        pass
    empty = board(Sources(registry, tmp_path / "store"), "digits", 24, NOW)
    assert empty["telemetry"]["newest"] is None
    assert empty["telemetry"]["answers"]["asked"] == 0
    assert empty["canary"] is None
    assert empty["drift"] == {"looks": [], "drawn": None}
    text(empty)
    with pytest.raises(UsageError, match="5 hours"):
        board(Sources(registry, None), "digits", 5, NOW)


def test_what_is_scored_in_idle_moments_is_no_traffic(tmp_path: Path, shown) -> None:
    registry = Registry(shown[0] / "registry")
    version = registry.resolve("digits")
    rows = [Fact(NOW - 60, f"r{i}", "digits", version.hash, "stable", "encode", total_s=0.01) for i in range(20)]
    rows += [Fact(NOW - 60, f"r{i}", "digits", version.hash, "shadow", IDLE, error=0.1) for i in range(20)]
    made_board.write_facts(tmp_path, rows)
    found = board(Sources(registry, tmp_path), "digits", 1, NOW)["telemetry"]
    assert found["answers"]["asked"] == 20
    assert set(found["traffic"]["answered"]) == {"stable"}
    assert sum(found["traffic"]["aside"]) == 20
    assert found["latency"]["recent_p99"] == pytest.approx(10)
    assert found["newest"] == pytest.approx(NOW - 60)


def test_numbers_are_plain_json() -> None:
    assert numbers(np.array([1.0, np.nan, np.inf, 0.123456789])) == [1.0, None, None, 0.12346]
    assert text({"a": [float("nan"), (1, 2.5)]}) == '{"a":[null,[1,2.5]]}'


def test_answers_are_shared_for_a_while_and_failures_are_not_kept() -> None:
    made: list[object] = []

    def make(question: object) -> bytes:
        made.append(question)
        if question == "bad":
            raise UsageError("no.")
        return str(question).encode()

    async def ask() -> None:
        shared = Shared(make, 0.2)
        assert await asyncio.gather(*(shared.get("a") for _ in range(20))) == [b"a"] * 20
        assert made == ["a"]
        await asyncio.sleep(0.25)
        assert await shared.get("a") == b"a"
        assert made == ["a", "a"]
        for _ in range(2):
            with pytest.raises(UsageError):
                await shared.get("bad")
        assert made.count("bad") == 2

    asyncio.run(ask())


def test_a_snapshot_is_one_file(shown, tmp_path: Path) -> None:
    path = write_snapshot(shown[0] / "telemetry", Registry(shown[0] / "registry"), tmp_path / "deep" / "board.html")
    page = path.read_text()
    own = page.replace(files.charts().decode(), "")
    assert "<script src" not in own
    assert '<link rel="stylesheet"' not in own
    assert "http" not in own.replace("http-equiv", "")
    assert 'id="rollback"' not in own
    inside = own.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(inside)["canary"]["number"] == 3


def test_a_page_without_the_library_of_charts_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget() -> None:
        for known in (files.charts, files.stamp, files.names):
            known.cache_clear()

    forget()
    with monkeypatch.context() as patched:
        patched.setattr("lowerbound.app.web.files.find_spec", lambda name: None)
        page = files.page("dashboard.html", title="lowerbound", inline=False)
        assert 'pip install "lowerbound[dashboard]"' in page
        assert "plotly.min.js" not in page
        assert "plotly.min.js" not in files.names()
    forget()
    assert files.names() == {"charts.js", "dashboard.js", "explore.js", "plotly.min.js", "style.css"}


def test_the_documentation_says_what_runs(place: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "dashboard.md").read_text()
    body = re.search(r"-d '(.*?)'", page)
    assert body is not None
    assert Rollback.model_validate(json.loads(body[1])).expected == 2
    assert f'-H "{CONFIRM}: rollback"' in page
    monkeypatch.chdir(place)
    (command,) = [line for line in page.splitlines() if line.startswith("lowerbound ")]
    assert cli(*shlex.split(command)[1:]).code == 0
    assert (place / "dashboard.html").stat().st_size > 4_000_000

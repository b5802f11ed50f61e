"""The pages of a real server in a real browser, on a desktop and on a phone."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made_board
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from servers import Server, serving, until
from sklearn.datasets import load_digits

from lowerbound.app.web.snapshot import write_snapshot
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.keys import make_key

pytestmark = pytest.mark.slow
SIZES = pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
CHARTS = {"traffic", "latency", "error", "rate", "units", "evidence-error", "evidence-far_worse"}
POINTS = """() => Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(
    (chart) => [chart.dataset.chart, chart.data.reduce((sum, trace) => sum + (trace.x || []).length, 0)]))"""

UNNAMED = """() => [...document.querySelectorAll('button, select, input')].filter(
    (one) => one.offsetParent && !(one.ariaLabel || one.labels?.length || one.textContent.trim())).length"""
PIXELS = """(id) => {
    const brush = new OffscreenCanvas(8, 8).getContext("2d");
    brush.drawImage(document.getElementById(id), 0, 0);
    return [...brush.getImageData(0, 0, 8, 8).data];
}"""


@dataclass
class Watched:
    """A page, and what it asked for and complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.fixture
def watched(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens pages: `watched(size, key)`."""
    contexts = []

    def open_(size: tuple[int, int] = (1280, 800), key: str = "", **options: Any) -> Watched:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        if key:
            context.add_init_script(f"sessionStorage.setItem('lowerbound-key', {json.dumps(key)})")
        found = Watched(context.new_page())
        found.page.on("request", lambda asked: found.asked.append(asked.url))
        found.page.on("console", lambda said: found.complaints.append(said.text) if said.type == "error" else None)
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        return found

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def keyed(shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str], Registry]]:
    """A server with keys, its keys by role, and its registry."""
    folder = tmp_path_factory.mktemp("keyed")
    place = made_board.copied(shown[0], folder)
    keys = {role: make_key(folder / "keys.jsonl", f"my{role}", role, 0) for role in ("use", "operate")}
    options = ("--telemetry", place / "telemetry", "--keys", folder / "keys.jsonl")
    with serving(place / "registry", "digits", *options) as server:
        yield server, keys, Registry(place / "registry")


@SIZES
def test_the_dashboard_shows_what_there_is(size, keyed, watched) -> None:
    server, keys, _ = keyed
    found = watched(size, keys["operate"])
    found.page.goto(server.url)
    expect(found.page.locator("#live")).to_contain_text("live")
    expect(found.page.locator("#tiles .tile")).to_have_count(9)
    points = found.page.evaluate(POINTS)
    assert set(points) == CHARTS
    assert min(points.values()) >= 10
    assert found.fits()
    for name, words in {
        "reasons": "wrong-size",
        "drift": "unit 2",
        "canary": "soaks",
        "incidents": "Camera 3 was taken off.",
        "versions": "1.2 % less error",
    }.items():
        expect(found.page.locator(f"#{name}")).to_contain_text(words)
    assert found.page.locator("#drift img").evaluate("image => image.naturalWidth") == 512
    assert found.page.evaluate(UNNAMED) == 0
    assert found.complaints == []
    assert all(url.startswith((server.url, "data:")) for url in found.asked)


def test_it_is_used_by_keyboard_and_remembers_the_theme(keyed, watched) -> None:
    server, keys, _ = keyed
    page = watched((1280, 800), keys["operate"], color_scheme="light").page
    page.goto(server.url)
    expect(page.locator("#live")).to_contain_text("live")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("[data-hours='6']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-hours='6']")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#l-traffic")).to_contain_text("6 hours")
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert "hours=6" in page.url


def test_a_key_is_asked_for_and_kept_in_the_tab_only(keyed, watched) -> None:
    server, keys, _ = keyed
    page = watched((390, 844)).page
    page.goto(server.url)
    expect(page.locator("#login")).to_be_visible()
    expect(page.locator("#board")).to_be_hidden()
    page.fill("#key", "lb_nobody_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#wrong")).to_have_text("The server does not know this key.")
    page.fill("#key", keys["use"])
    page.keyboard.press("Enter")
    expect(page.locator("#board")).to_be_visible()
    expect(page.locator("#login")).to_be_hidden()
    expect(page.locator("#incidents")).to_contain_text("keys that may operate")
    expect(page.locator("#rollback")).to_have_count(0)
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
    page.click("#forget")
    expect(page.locator("#login")).to_be_visible()


def _post(server: Server, path: str, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{server.url}{path}", json.dumps(body).encode(), method="POST")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_rollback_is_for_operators_who_mean_it_and_know_what_is_stable(keyed, watched) -> None:
    server, keys, registry = keyed
    path, asked = "/v1/models/digits/rollback", {"expected": 2, "why": "it blurs"}
    head = {"authorization": f"Bearer {keys['operate']}", "x_lowerbound_confirm": "rollback"}
    for want, body, headers in (
        ("no-key", asked, {"x_lowerbound_confirm": "rollback"}),
        ("wrong-role", asked, {**head, "authorization": f"Bearer {keys['use']}"}),
        ("not-confirmed", asked, {"authorization": head["authorization"]}),
        ("moved", {**asked, "expected": 3}, head),
        ("bad-json", {"expected": 2}, head),
        ("bad-json", {**asked, "why": "x" * 501}, head),
        ("body-too-large", {**asked, "why": "x" * 9000}, head),
    ):
        assert _post(server, path, body, **headers)[1]["code"] == want
    assert _post(server, "/v1/models/other/rollback", asked, **head)[1]["code"] == "no-such-model"
    assert registry.resolve("digits").number == 2

    page = watched((390, 844), keys["operate"]).page
    page.goto(server.url)
    page.click("#rollback")
    expect(page.locator("#confirm")).to_be_visible()
    page.click("#cancel")
    expect(page.locator("#confirm")).to_be_hidden()
    assert registry.resolve("digits").number == 2
    page.click("#rollback")
    page.fill("#why", "digits are <b>blurred</b>")
    page.click("#do")
    expect(page.locator("[data-banner='action']")).to_contain_text("version 1 is stable")
    expect(page.locator("#versions")).to_contain_text(
        "digits are <b>blurred</b> (by the key myoperate, on the dashboard)"
    )
    assert registry.resolve("digits").number == 1
    assert registry.history("digits")[-1].action == "rollback"
    expect(page.locator("#rollback")).to_have_count(0)
    assert _post(server, path, {**asked, "expected": 1}, **head)[1]["code"] == "no-way-back"


@SIZES
def test_the_explorer_decodes_as_sliders_move(size, keyed, watched, tmp_path: Path) -> None:
    server, keys, _ = keyed
    found = watched(size, keys["use"])
    page = found.page
    page.goto(f"{server.url}/explore")
    Image.fromarray((load_digits().images[0] * 15).astype(np.uint8)).resize((32, 32)).save(tmp_path / "zero.png")
    expect(page.locator(".slider")).to_have_count(16)
    expect(page.locator("#sliders")).to_have_js_property("inert", False)
    with page.expect_response(lambda response: "encode" in response.url):  # Chromium tells the page of a file later
        page.set_input_files("#file", tmp_path / "zero.png")
    expect(page.locator("#sliders")).to_have_js_property("inert", False)
    expect(page.locator("#live")).to_have_text("ready")
    slider = page.locator(".slider input").first
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".slider").first).to_have_class("slider moved")

    def moved() -> bool:
        was, now = (np.array(page.evaluate(PIXELS, name)) for name in ("before", "after"))
        return bool(np.abs(was - now).max() > 5)

    assert until(moved), "the last place of a slider is decoded, whatever came before it"
    page.click("#reset")
    expect(page.locator(".slider.moved")).to_have_count(0)
    assert found.fits()
    assert all(url.startswith((server.url, "data:", "blob:")) for url in found.asked)


@SIZES
def test_a_snapshot_opens_without_a_server(size, shown, watched, tmp_path: Path) -> None:
    path = write_snapshot(shown[0] / "telemetry", Registry(shown[0] / "registry"), tmp_path / "board.html")
    found = watched(size)
    found.page.goto(path.as_uri())
    expect(found.page.locator("#live")).to_contain_text("as of")
    points = found.page.evaluate(POINTS)
    assert set(points) == CHARTS
    assert min(points.values()) >= 10
    assert found.page.locator("#rollback, #model, #login").count() == 0
    assert found.fits()
    assert found.complaints == []
    assert [url for url in found.asked if not url.startswith(("file:", "data:"))] == []


def test_a_server_that_keeps_nothing_says_so_and_one_that_is_gone_is_noticed(shown, watched, tmp_path: Path) -> None:
    place = made_board.copied(shown[0], tmp_path)
    with serving(place / "registry", "digits:2", "--no-telemetry") as server:
        found = watched()
        found.page.goto(server.url)
        expect(found.page.locator("#traffic")).to_contain_text("--no-telemetry")
        expect(found.page.locator("#rollback")).to_be_visible()
        assert found.complaints == []
        elsewhere = {"x_lowerbound_confirm": "rollback", "host": "rebound.example"}
        asked = {"expected": 2, "why": "a page of another site"}
        assert _post(server, "/v1/models/digits/rollback", asked, **elsewhere)[1]["code"] == "wrong-role"
        assert Registry(place / "registry").resolve("digits").number == 2
        assert server.end() == 0
        expect(found.page.locator("[data-banner='gone']")).to_contain_text("does not answer", timeout=15_000)
        expect(found.page.locator("#live")).to_have_text("server gone")
        expect(found.page.locator("main")).to_have_class("old")


def test_the_page_of_requests_lists_them(keyed, watched) -> None:
    server, _, _ = keyed
    found = watched((390, 844))
    found.page.goto(f"{server.url}/docs")
    expect(found.page.locator("main")).to_contain_text("POST /v1/models/{name}/encode")
    expect(found.page.locator("main")).to_contain_text("POST /v1/models/{name}/rollback")
    assert found.fits()
    assert found.complaints == []


def test_files_are_packed_and_kept(keyed) -> None:
    server = keyed[0]
    request = urllib.request.Request(f"{server.url}/static/plotly.min.js?v=1", headers={"accept-encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert "immutable" in answer.headers["cache-control"]
        assert len(answer.read()) < 2_000_000
    with urllib.request.urlopen(server.url, timeout=20) as answer:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert io.BytesIO(answer.read()).read(15) == b"<!doctype html>"

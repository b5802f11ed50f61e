"""The report: one file without any request, readable at a desk and on a phone, in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from harness import Cli
from PIL import Image

import lowerbound
from lowerbound.app.report import figures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """What a page refers to, and what it says of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.alts: list[str | None] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names |= {found["id"] or ""} if "id" in found else set()
        self.references += [found[key] or "" for key in ("src", "href", "srcset", "data", "action") if key in found]
        if tag == "img":
            self.alts.append(found.get("alt"))


@pytest.fixture(scope="module")
def reports(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judged copies of the trained runs with their reports."""
    folder = tmp_path_factory.mktemp("reports")
    for name in ("gmm2d", "digits", "conditional"):
        shutil.copytree(trained / name, folder / name)
        lowerbound.evaluate(folder / name, lowerbound.Evaluation(samples=5, examples=60, generated=50))
        lowerbound.write_report(folder / name)
    return folder


@pytest.mark.parametrize("name", ["gmm2d", "digits", "conditional"])
def test_a_page_refers_to_nothing_outside(reports: Path, name: str) -> None:
    text = (reports / name / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    outside = [link[:60] for link in page.references if not link.startswith(("data:", "#"))]
    assert outside == []
    assert not re.search(r"url\(|@import|<script|https?://", re.sub(r"data:[^\"]*", "", text))
    assert {link[1:] for link in page.references if link.startswith("#")} <= page.names
    assert len(page.alts) > 5
    assert None not in page.alts


@pytest.mark.parametrize("name", ["gmm2d", "digits", "conditional"])
def test_a_page_shows_everything(reports: Path, name: str) -> None:
    text = (reports / name / "report.html").read_text(encoding="utf-8")
    for words in ("ELBO, nats", "active units", "Traversals", "Interpolations", "Samples during training", "Protocol"):
        assert words in text, words
    results = json.loads((reports / name / "evaluation.json").read_text())["results"]
    assert not [result for result in results if f"<code>{result}</code>" not in text]
    drawn = {path.name for path in (reports / name / "figures").iterdir()}
    assert {"training.png", "samples.png", "traversal.png", "interpolation.png", "film.gif", "latents.png"} <= drawn
    with Image.open(reports / name / "figures" / "film.gif") as film:
        assert film.n_frames > 2  # type: ignore[attr-defined]


def test_what_was_not_judged_is_said(cli: Cli, own: Path) -> None:
    assert cli("report", own).code == 0
    text = (own / "report.html").read_text(encoding="utf-8")
    assert "Not judged yet" in text
    assert "Loss terms" in text


@pytest.mark.parametrize(
    "model",
    [
        "model={kind='vq-vae', positions=[2]}",
        "model={kind='top-down'}",
        "model={kind='vae', latent=2}",
        "model={kind='vae', latent=3, posterior={kind='deterministic'}}",
    ],
    ids=["codes", "hierarchy", "plane", "deterministic"],
)
def test_every_family_has_a_report(cli: Cli, tmp_path: Path, model: str) -> None:
    settings = ["training.steps=3", "training.film=2", "evaluation.samples=2", "evaluation.examples=40", model]
    if "deterministic" in model:
        settings.append("objective={kind='adversarial-prior'}")
    options = [word for setting in settings for word in ("--set", setting)]
    assert cli("train", "digits", *options, "--out", tmp_path / "run").code == 0
    assert cli("evaluate", tmp_path / "run").code == 0
    result = cli("report", tmp_path / "run")
    assert result.code == 0, result
    assert "Samples" in (tmp_path / "run" / "report.html").read_text()


def test_names_are_escaped(own: Path, tmp_path: Path) -> None:
    recipe = lowerbound.read_recipe("gmm2d", ["training.steps=2", 'description="<script>alert(1)</script>"'])
    run = lowerbound.train(recipe, tmp_path / "run")
    text = lowerbound.write_report(run).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_schedules_share_the_axis_of_the_loss_terms() -> None:
    rows = [
        {"step": step, "elbo_nats": -step, "rate_nats": 1.0, "beta": 0.1, "gradient_norm_model": 2.0} for step in (1, 2)
    ]
    for narrow in (False, True):
        axes = figures.training(rows, narrow).axes
        assert [axis.get_ylabel() for axis in axes] == ["loss terms, nats", "beta", "gradient norm"]
        assert all(axis.get_xlim() == axes[0].get_xlim() for axis in axes)


PROBE = """<script>addEventListener('load', () => { const root = document.documentElement;
const wide = [...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1
  && !one.closest('.strip, .scroll, pre')).map(one => one.tagName);
const broken = [...document.images].filter(one => !one.complete || !one.naturalWidth).length;
const asked = performance.getEntriesByType('resource').map(one => one.name);
parent.postMessage(JSON.stringify({inner: innerWidth, scroll: root.scrollWidth, wide, broken,
  requests: asked.filter(name => !name.startsWith('data:'))}), '*');
});</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here to open the page with")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["gmm2d", "digits"])
def test_a_browser_shows_it_without_sideways_scrolling(reports: Path, tmp_path: Path, name: str, width: int) -> None:
    page = (reports / name / "report.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    # A window is at least 500 wide, so that the page is shown in a frame, which may be as narrow as a phone.
    (tmp_path / "frame.html").write_text(
        "<script>addEventListener('message', told => { document.title = told.data; "
        "document.body.dataset.told = btoa(told.data); });</script>"
        f"<body><iframe src='page.html' style='width:{width}px;height:2000px;border:0'></iframe></body>"
    )
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [
            *command,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width + 40},2100",
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = re.search(r'data-told="([^"]+)"', done.stdout)
    assert told is not None, done.stdout[:500]
    found = json.loads(base64.b64decode(told[1]))
    assert found["inner"] == width
    assert found["scroll"] <= width, found
    assert found["wide"] == []
    assert found["broken"] == 0
    assert found["requests"] == []


def test_the_rate_of_a_unit_decides_its_colour() -> None:
    labels = figures.health({"z": {"rates": [0.5, 0.05, 0.001]}}, True).axes[0].get_legend_handles_labels()[1]
    assert labels == ["carries information (1)", "weak (1)", "dead (1)"]
    assert torch.isfinite(
        torch.tensor(figures.health({"z": {"means": [0.0, 0.0], "variances": [1.0, 1.0]}}, True).axes[0].get_xlim())
    ).all()

"""A model's life in service, on real processes: the play of `lowerbound lifecycle`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Cli

from lowerbound.app.lifecycle.play import Play
from lowerbound.app.lifecycle.scenes import SCENES
from lowerbound.errors import DataError
from lowerbound.files import read_json
from lowerbound.lab.data.load import load_data
from lowerbound.service.registry.registry import Registry

REAL = os.environ.get("LOWERBOUND_DATA")


def check(figures: dict[str, Any], out: Path, name: str, margin: float) -> None:
    """What a play is about has happened, by its figures and by what it left."""
    assert figures == read_json(out / "lifecycle.json")
    assert figures["false_alarms"] <= 1  # of ten looks, where two of sixty are promised
    assert figures["detected"] <= 2000
    assert {"flat-inputs", "gate-rejects"} & set(figures["alerts"])
    causes = figures["causes"]
    assert causes["a kind that the reference lacks"] == pytest.approx(figures["planted"]["new"], abs=0.06)
    assert causes["black inputs, refused"] == pytest.approx(figures["planted"]["black"], abs=0.015)
    assert figures["refused"]["black"] > 100
    assert figures["guard"]["comparisons"] >= 2
    assert figures["guard"]["largest_change"] < margin
    assert " mends it" in figures["mended"]
    assert figures["silent"] <= 3000
    assert not figures["silent_error"]
    assert {"drift-latent", "drift-aggregate", "drift-together"} & set(figures["silent_alerts"])
    registry = Registry(out / "registry")
    assert {alias: version.number for alias, version in registry.aliases(name).items()} == {"stable": 2}
    history = [(entry.action, entry.alias, entry.number) for entry in registry.history(name)]
    assert ("promote", "stable", 2) in history
    tried = history.index(("promote", "canary", 3))
    assert [alias for _, alias, _ in history[tried + 1 :]] == ["canary"]
    for report in figures["reports"]:
        assert "<img" in (out / "telemetry" / report).read_text()
    assert name in (out / "dashboard.html").read_text()


@pytest.mark.slow
def test_an_incident_is_seen_named_and_mended_a_bad_candidate_goes_and_a_silent_change_is_seen(
    cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "life"
    done = cli("lifecycle", "digits", "--out", str(out), "--json")
    assert done.code == 0, done.err
    check(json.loads(done.out), out, "digits", margin=0.1)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(REAL is None, reason="LOWERBOUND_DATA names no folder")
def test_the_same_on_fashion_mnist_with_no_old_slice_more_than_two_percent_worse(tmp_path: Path) -> None:
    """With a third of the scene's training, which is most of its time."""
    scene = SCENES["fashion-shift"]
    shorter = replace(scene, settings=(*scene.settings[1:], "training.epochs=4"))
    assert REAL is not None
    play = Play(shorter, tmp_path / "life", Path(REAL), tell=lambda _: None)
    check(asdict(play.run()), tmp_path / "life", "fashion", margin=0.02)


def test_a_play_leaves_a_folder_that_is_in_use_alone_and_knows_its_scenes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    taken = cli("lifecycle", "digits", "--out", str(tmp_path))
    taken.refused(2, "not empty")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    cli("lifecycle", "hamlet", "--out", str(tmp_path / "new")).refused(2, "hamlet", "digits")
    assert not (tmp_path / "new").exists()


def test_rows_of_some_labels_can_be_left_out() -> None:
    whole = load_data({"kind": "digits"})
    some = load_data({"kind": "some-labels", "data": {"kind": "digits"}, "without": [0, 6]})
    for split in ("train", "validation", "test"):
        labels, left = whole.split(split).labels, some.split(split).labels
        assert labels is not None
        assert left is not None
        kept = ~torch.isin(labels, torch.tensor([0, 6]))
        assert torch.equal(left, labels[kept])
        every = torch.arange(len(labels))
        assert torch.equal(
            some.split(split).take(torch.arange(len(left))).raw, whole.split(split).take(every[kept]).raw
        )
    assert some.spec.examples == len(some.train)
    with pytest.raises(DataError, match="all rows"):
        load_data({"kind": "some-labels", "data": {"kind": "digits"}, "without": list(range(10))})

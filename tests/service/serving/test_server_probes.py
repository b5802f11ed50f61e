"""Probes of a live server: answers are those of the weights, or the server is at fault; and drills played to one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from servers import Server

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.service.monitoring.drill.remote import Remote
from lowerbound.service.monitoring.incidents import Incidents
from lowerbound.service.monitoring.looking.probes import Probes, probe, raise_fault
from lowerbound.service.monitoring.looking.through import facts_through
from lowerbound.service.registry.registry import Registry
from lowerbound.service.serving.deployment import deploy

NOW = 1_800_000_000.0


def test_a_server_answers_as_its_weights_do(registry: Path, server: Server, tmp_path: Path) -> None:
    known = Registry(registry)
    found = probe(server.url, "digits", known, tmp_path)
    assert (found.version, found.probes, found.fault) == ("digits:1", 16, "")
    assert found.largest < 1e-4
    assert raise_fault(found, "digits", tmp_path, NOW) is None
    assert probe(server.url, "digits", known, tmp_path).largest == pytest.approx(found.largest, abs=1e-6)  # kept ones


def test_other_answers_with_the_same_weights_are_a_fault(registry: Path, server: Server, tmp_path: Path) -> None:
    """The server computes with weights that are not those that it names: here the probes are of another version."""
    known = Registry(registry)
    first, second = known.versions("digits")
    Probes.of(second, tmp_path)
    folder = tmp_path / "probes" / "digits"
    shutil.move(folder / f"{second.hash[:16]}.safetensors", folder / f"{first.hash[:16]}.safetensors")
    found = probe(server.url, "digits", known, tmp_path)
    assert found.largest > 0.01
    assert "differ from those of the weights of digits:1" in found.fault
    incident = raise_fault(found, "digits", tmp_path, NOW)
    assert incident is not None
    assert (incident.kind, incident.open) == ("serving-fault", True)
    assert raise_fault(found, "digits", tmp_path, NOW + 60) is not None
    assert len(Incidents(tmp_path).all()) == 1


def test_what_cannot_be_probed_is_refused(registry: Path, server: Server, tmp_path: Path) -> None:
    known = Registry(registry)
    with pytest.raises(DataError, match="does not serve faces"):
        probe(server.url, "faces", known, tmp_path)
    with pytest.raises(NotSupportedError, match="needs labels"):
        probe(server.url, "labelled", known, tmp_path)
    elsewhere = Registry(tmp_path / "registry")
    elsewhere.add(registry.parent / "labelled", "digits")  # conditional, so not exported
    assert "not in this registry" in probe(server.url, "digits", elsewhere, tmp_path).fault


def test_a_live_server_gives_the_facts_that_its_version_gives(
    registry: Path, server: Server, digits: np.ndarray
) -> None:
    version = Registry(registry).resolve("digits")
    rows = np.concatenate([digits[:40], np.zeros_like(digits[:1])])
    times, names = [float(place) for place in range(len(rows))], [f"r{place}" for place in range(len(rows))]
    remote = Remote(server.url, version)
    played = remote(rows, times, names)
    remote.close()
    here = facts_through(deploy("digits", version, "stable", "torch", 0.02, 1), rows, times, names)
    assert played[-1].gate == here[-1].gate == "black"
    assert [fact.gate for fact in played] == [fact.gate for fact in here]
    for one, other in zip(played, here, strict=True):
        assert one.request == other.request
        if one.code is not None and other.code is not None:
            np.testing.assert_allclose(one.code, other.code, atol=1e-4)
            assert one.error == pytest.approx(other.error, rel=1e-3)
        if one.pixels is not None and other.pixels is not None:
            np.testing.assert_allclose(one.pixels, other.pixels, atol=1e-6)

"""The registry: versions, aliases and history."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.errors import RegistryError, RunError, TamperedError
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.onnx import OnnxNetwork
from lowerbound.lab.reference import Reference
from lowerbound.service.registry.registry import Registry
from lowerbound.service.registry.version import Version


@pytest.fixture(scope="session")
def filled(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with versions 1 and 2 of `points`; not to be changed."""
    place = tmp_path_factory.mktemp("filled") / "registry"
    for number, run in enumerate(runs[:2], start=1):
        assert Registry(place).add(run, "points", why=f"run {number}").number == number
    return place


@pytest.fixture
def place(filled: Path, tmp_path: Path) -> Path:
    """The same of one's own, to be changed at will."""
    return Path(shutil.copytree(filled, tmp_path / "registry"))


def test_a_version_is_a_run_with_all_that_production_needs(filled: Path, runs: list[Path]) -> None:
    version = Registry(filled).resolve("points:1").verify()
    ours, theirs = lowerbound.load(version.path), lowerbound.load(runs[0])
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    assert isinstance(version.calibration(), Reference)
    assert version.evaluation()["results"]["elbo_nats"]
    card = (version.path / "card.md").read_text()
    assert "elbo_nats" in card
    assert "Not written" in card
    raw = torch.randn(5, 2)
    found = OnnxNetwork(version.path / "export" / "facts.onnx")(raw)
    for name, values in facts_of(Facts(ours), raw).items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-4)
    manifest = version.manifest()
    assert manifest["data"]["train"]["rows"] > 0
    assert manifest["parent"] is None


def test_the_same_run_is_registered_once(place: Path, runs: list[Path]) -> None:
    registry, before = Registry(place), Registry(place).position()
    again = registry.add(runs[0], "points", why="once more")
    assert not again.new
    assert again == registry.resolve("points:1")
    assert registry.position() == before
    assert registry.add(runs[0], "points", card="For demonstrations.").number == 3, "another card is another version"
    assert "For demonstrations." in (registry.resolve("points:3").path / "card.md").read_text()


def test_references_resolve_or_say_what_there_is(place: Path) -> None:
    registry = Registry(place)
    with pytest.raises(RegistryError, match="no stable version"):
        registry.resolve("points")
    registry.promote("points", 1)
    registry.promote("points", 2, "canary")
    assert registry.resolve("points").number == registry.resolve("points@stable").number == 1
    assert registry.resolve("points@canary").number == 2
    assert {alias: version.number for alias, version in registry.aliases("points").items()} == {
        "canary": 2,
        "stable": 1,
    }
    for wrong, words in {
        "points:3": "versions 1 to 2",
        "points@gold": "is no alias",
        "lines": "it has points",
        "points@shadow": "no shadow version",
        "points:1@stable": "is no version",
        "": "is no version",
    }.items():
        with pytest.raises(RegistryError, match=words):
            registry.resolve(wrong)


def test_no_registry_and_no_run_are_said(tmp_path: Path, runs: list[Path]) -> None:
    with pytest.raises(RegistryError, match="there is no registry at"):
        Registry(tmp_path / "nothing").names()
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(RunError, match="is no run"):
        Registry(tmp_path / "new").add(tmp_path, "points")
    for name in ("", "Points", "a b", "a@b", "a:1", "../a", "-a", "x" * 65):
        with pytest.raises(RegistryError, match="no name for a model"):
            Registry(tmp_path / "new").add(runs[0], name)


@pytest.mark.parametrize("file", ["weights.safetensors", "reference.json", "export/facts.onnx", "manifest.json"])
def test_a_tampered_truncated_missing_or_strange_file_is_refused(place: Path, file: str) -> None:
    registry = Registry(place)
    version = registry.resolve("points:1")
    path = version.path / file
    path.chmod(0o644)
    content = path.read_bytes()
    for broken in (content[:-1], content + b" ", bytes([content[0] ^ 1]) + content[1:], b""):
        path.write_bytes(broken)
        with pytest.raises(TamperedError, match="is not what was registered"):
            version.verify()
        with pytest.raises(TamperedError):
            registry.promote("points", 1)
        with pytest.raises(TamperedError):
            registry.verify()
    path.unlink()
    with pytest.raises(TamperedError, match="has lost"):
        version.verify()
    path.write_bytes(content)
    assert version.verify() == version
    (version.path / "extra.txt").write_text("hello")
    with pytest.raises(TamperedError, match="was not registered"):
        version.verify()


def test_a_version_is_what_is_in_it(filled: Path) -> None:
    version = Registry(filled).resolve("points:2")
    assert version.path.name == version.hash
    assert isinstance(version, Version)
    assert version.parent == 1
    assert version.manifest()["parent"]["hash"] == Registry(filled).resolve("points:1").hash

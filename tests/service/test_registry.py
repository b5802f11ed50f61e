"""The registry: versions, references and the hashes of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.errors import RegistryError, RunError, TamperedError
from lowerbound.lab.facts import Facts, facts_of
from lowerbound.lab.onnx import OnnxNetwork
from lowerbound.lab.reference import Reference
from lowerbound.service.registry.registry import Registry


def test_a_version_is_a_run_with_all_that_production_needs(run: Path, tmp_path: Path) -> None:
    version = Registry(tmp_path).add(run, "points", card="For demonstrations.").verify()
    ours, theirs = lowerbound.load(version.path), lowerbound.load(run)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    assert isinstance(version.calibration(), Reference)
    assert version.evaluation()["results"]["elbo_nats"]
    card = (version.path / "card.md").read_text()
    assert "elbo_nats" in card
    assert "For demonstrations." in card
    raw = torch.randn(5, 2)
    found = OnnxNetwork(version.path / "export" / "facts.onnx")(raw)
    for name, values in facts_of(Facts(ours), raw).items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-4)
    manifest = version.manifest()
    assert manifest["data"]["train"]["rows"] > 0
    assert manifest["export"]["largest_difference"] <= 1e-4
    assert version.path.name == version.hash


def test_what_cannot_be_exported_is_registered_and_says_so(filled: Path) -> None:
    version = Registry(filled).resolve("digits:1").verify()
    assert "conditional" in version.manifest()["export"]["refused"]
    assert "- No export: this model is conditional" in (version.path / "card.md").read_text()
    assert not (version.path / "export").exists()
    assert "Not written" in (version.path / "card.md").read_text()


def test_the_same_run_is_registered_once(place: Path, runs: list[Path]) -> None:
    registry, before = Registry(place), Registry(place).position()
    again = registry.add(runs[0], "digits", why="once more")
    assert not again.new
    assert again == registry.resolve("digits:1")
    assert registry.position() == before
    other = registry.add(runs[0], "digits", card="Another card.")
    assert other.new
    assert other.number == 4
    elsewhere = registry.add(runs[0], "numbers")
    assert elsewhere.number == 1
    assert registry.names() == ["digits", "numbers"]


def test_a_run_that_was_never_judged_is_judged_for_its_version(place: Path, own_run: Path) -> None:
    (own_run / "evaluation.json").unlink()
    version = Registry(place).add(own_run, "digits")
    assert version.evaluation()["results"]["elbo_nats"]
    assert not (own_run / "evaluation.json").exists()


def test_lineage(filled: Path) -> None:
    registry = Registry(filled)
    first, second, third = registry.versions("digits")
    assert (first.parent, second.parent, third.parent) == (None, 1, 2)
    assert third.manifest()["parent"] == {"number": 2, "hash": second.hash}
    assert first.manifest()["data"] == third.manifest()["data"], "they saw the same data"
    assert first.created < second.created < third.created


def test_references_resolve_or_say_what_there_is(place: Path) -> None:
    registry = Registry(place)
    with pytest.raises(RegistryError, match="no stable version"):
        registry.resolve("digits")
    registry.promote("digits", 1)
    registry.promote("digits", 2, "canary")
    assert registry.resolve("digits").number == registry.resolve("digits@stable").number == 1
    assert registry.resolve("digits@canary").number == 2
    assert {alias: version.number for alias, version in registry.aliases("digits").items()} == {
        "canary": 2,
        "stable": 1,
    }
    for wrong, words in {
        "digits:4": "versions 1 to 3",
        "digits@gold": "is no alias",
        "lines": "it has digits",
        "digits@shadow": "no shadow version",
        "digits:1@stable": "is no version",
        "": "is no version",
    }.items():
        with pytest.raises(RegistryError, match=words):
            registry.resolve(wrong)


def test_no_registry_no_run_and_no_name_are_said(tmp_path: Path, runs: list[Path]) -> None:
    with pytest.raises(RegistryError, match="there is no registry at"):
        Registry(tmp_path / "nothing").names()
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(RunError, match="is no run"):
        Registry(tmp_path / "new").add(tmp_path, "points")
    for name in ("", "Points", "a b", "a@b", "a:1", "../a", "-a", "x" * 65):
        with pytest.raises(RegistryError, match="no name for a model"):
            Registry(tmp_path / "new").add(runs[0], name)
    for wrong in ("mysql://localhost/x", "nonsense://"):
        with pytest.raises(RegistryError):
            Registry(wrong)
    with pytest.raises(RegistryError, match="--files"):
        Registry("postgresql://localhost/x")


@pytest.mark.parametrize("file", ["weights.safetensors", "reference.json", "card.md", "manifest.json"])
def test_a_tampered_truncated_missing_or_strange_file_is_refused(place: Path, file: str) -> None:
    registry = Registry(place)
    version = registry.resolve("digits:1")
    path = version.path / file
    path.chmod(0o644)
    content = path.read_bytes()
    for broken in (content[:-1], content + b" ", bytes([content[0] ^ 1]) + content[1:], b""):
        path.write_bytes(broken)
        with pytest.raises(TamperedError, match="is not what was registered"):
            version.verify()
        with pytest.raises(TamperedError):
            registry.promote("digits", 1)
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


def test_a_database_that_is_none_is_refused(place: Path) -> None:
    for content in (b"hello" * 100, (place / "registry.db").read_bytes()[:5000]):
        (place / "registry.db").write_bytes(content)
        with pytest.raises(TamperedError, match="damaged or no registry"):
            Registry(place).names()

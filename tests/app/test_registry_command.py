"""`lowerbound registry` and `lowerbound export` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Cli

from lowerbound.service.registry.registry import Registry


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the registry is, by the environment."""
    monkeypatch.setenv("LOWERBOUND_REGISTRY", str(tmp_path / "registry"))
    return tmp_path / "registry"


def test_a_version_from_run_to_rollback(cli: Cli, conditional: Path, digits: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("For handwritten digits.")
    added = cli("registry", "add", conditional, "--name", "digits", "--why", "first", "--card", card, "--json")
    found = json.loads(added.out)
    assert (found["number"], found["new"], found["compatibility"]) == (1, True, None)
    again = cli("registry", "add", conditional, "--name", "digits", "--card", card)
    assert "registered already, as digits:1" in again.out
    second = cli("registry", "add", conditional, "--name", "digits")
    assert "registered digits:2" in second.out
    assert "identical against digits:1" in second.out

    assert "digits:1 became stable" in cli("registry", "promote", "digits", 1, "--why", "go").out
    cli("registry", "promote", "digits", 2, "--expect", 2).refused(2, "somebody else was first", "version 1")
    assert "after 1" in cli("registry", "promote", "digits", 2, "--expect", 1).out
    assert "For handwritten digits." in cli("registry", "show", "digits:1").out
    assert json.loads(cli("registry", "show", "digits", "--json").out)["number"] == 2
    listed = json.loads(cli("registry", "list", "--json").out)
    assert listed[0]["aliases"] == {"stable": 2}
    assert "digits: stable 2" in cli("registry", "list").out
    assert "went back to 1" in cli("registry", "rollback", "digits", "--why", "worse").out
    assert "stable: digits:1" in cli("registry", "history", "digits", "--at", "2999-01-01").out
    assert "nothing of digits served then" in cli("registry", "history", "--at", "1999-01-01").out
    rows = json.loads(cli("registry", "history", "--json").out)
    assert [row["action"] for row in rows] == ["add", "add", "promote", "promote", "rollback"]
    assert rows[-1]["why"] == "worse"
    assert "2 versions and 5 rows" in cli("registry", "verify").out
    assert json.loads(cli("registry", "verify", "--json").out)["head"] == rows[-1]["hash"]


def test_refusals_are_one_sentence(cli: Cli, gmm2d: Path, conditional: Path, place: Path, tmp_path: Path) -> None:
    cli("registry", "list").refused(2, "there is no registry at")
    cli("registry", "add", tmp_path, "--name", "digits").refused(2, "is no run")
    cli("registry", "add", conditional, "--name", "A B").refused(2, "no name for a model")
    cli("registry", "add", conditional, "--name", "a", "--card", tmp_path / "none.md").refused(2, "cannot be read")
    assert cli("registry", "add", conditional, "--name", "a", "--stores-latents").code == 0
    cli("registry", "show", "b").refused(2, "it has a")
    cli("registry", "promote", "a", 7).refused(2, "versions 1 to 1")
    cli("registry", "rollback", "a").refused(2, "no stable version")
    cli("registry", "history", "a", "--at", "noon").refused(2, "is no time")
    path = Registry().resolve("a:1").path / "weights.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    cli("registry", "promote", "a", 1).refused(2, "is not what was registered")
    cli("registry", "verify").refused(2, "is not what was registered")
    cli("export", conditional).refused(2, "is conditional")


@pytest.mark.slow
def test_export_writes_proven_files(cli: Cli, own: Path) -> None:
    done = cli("export", own, "--format", "both", "--json")
    found = json.loads(done.out)
    assert done.code == 0, done
    assert set(found) == {"onnx", "torch"}
    names = {f"{part}.{kind}" for part in ("encode", "decode", "facts") for kind in ("onnx", "pt2")}
    assert {path.name for path in (own / "export").iterdir()} == {*names, "parity.json"}
    assert json.loads((own / "export" / "parity.json").read_text()).keys() == found.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the package's own
def test_a_version_is_sent_to_mlflow_and_fetched(
    cli: Cli, conditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    cli("registry", "add", conditional, "--name", "digits")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "digits:1 is version 1 of digits in MLflow" in cli("registry", "send", "digits:1").out
    fetched = json.loads(cli("registry", "fetch", "digits", 1, "--registry", tmp_path / "other", "--json").out)
    sent = json.loads(cli("registry", "show", "digits:1", "--json").out)
    assert fetched["hash"] == sent["hash"]

"""Versions to MLflow and back, with a store in a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import lowerbound
from lowerbound.errors import NotSavedError, RegistryError, TamperedError
from lowerbound.service.registry.on_mlflow import HASH, from_mlflow, to_mlflow
from lowerbound.service.registry.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the package's own


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a store, whose artifacts lie beside it."""
    pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_version_goes_to_mlflow_and_back_with_its_hash(filled: Path, mlflow: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    first, second = Registry(filled).versions("digits")[:2]
    assert [to_mlflow(first, mlflow), to_mlflow(second, mlflow), to_mlflow(first, mlflow)] == [1, 2, 1]
    client = MlflowClient(tracking_uri=mlflow)
    kept = client.get_model_version("digits", "1")
    assert kept.tags[HASH] == first.hash
    metrics = client.get_run(kept.run_id).data.metrics
    assert metrics["elbo_nats"] == pytest.approx(first.evaluation()["results"]["elbo_nats"]["value"])

    ours = Registry(tmp_path / "other")
    found = [from_mlflow(ours, "digits", number, mlflow, why="from over there") for number in (1, 2)]
    assert [each.hash for each in found] == [first.hash, second.hash]
    assert [(each.number, each.parent, each.new) for each in found] == [(1, None, True), (2, 1, True)]
    assert ours.history("digits")[0].why == "from over there"
    ours.verify()
    ours.promote("digits", 2)
    assert lowerbound.load(ours.resolve("digits").path).latents == lowerbound.load(second.path).latents
    again = from_mlflow(ours, "digits", 1, mlflow)
    assert (again.number, again.new) == (1, False)
    assert from_mlflow(ours, "digits", 2, mlflow, as_name="numbers").reference == "numbers:1"


def test_what_was_changed_in_mlflow_is_refused(filled: Path, mlflow: str, tmp_path: Path) -> None:
    version = Registry(filled).resolve("digits:1")
    to_mlflow(version, mlflow)
    (card,) = (tmp_path / "mlruns").rglob("version/card.md")
    card.chmod(0o644)
    card.write_text("Better than it is.")
    ours = Registry(tmp_path / "other")
    with pytest.raises(TamperedError, match=r"card\.md"):
        from_mlflow(ours, "digits", 1, mlflow)
    assert not (tmp_path / "other").exists()


def test_what_is_missing_is_said(filled: Path, mlflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    ours = Registry(tmp_path / "other")
    with pytest.raises(NotSavedError, match="digits"):
        from_mlflow(ours, "digits", 1, mlflow)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RegistryError, match="--mlflow"):
        to_mlflow(Registry(filled).resolve("digits:1"))
    client = MlflowClient(tracking_uri=mlflow)
    (tmp_path / "theirs").mkdir()
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(tmp_path / "theirs"))
    with pytest.raises(RegistryError, match="no version of ours"):
        from_mlflow(ours, "theirs", 1, mlflow)


def test_a_folder_is_adopted_only_if_it_is_what_it_says(filled: Path, tmp_path: Path) -> None:
    version, ours = Registry(filled).resolve("digits:1"), Registry(tmp_path / "other")
    with pytest.raises(TamperedError):
        ours.adopt(version.path, "digits", expected="0" * 64)
    folder = Path(shutil.copytree(version.path, tmp_path / "copy"))
    (folder / "more.json").write_text(json.dumps({}))
    with pytest.raises(TamperedError, match=r"more\.json"):
        ours.adopt(folder, "digits", expected=version.hash)
    with pytest.raises(RegistryError, match="no name"):
        ours.adopt(version.path, "Digits!", expected=version.hash)
    assert ours.adopt(version.path, "digits", expected=version.hash).hash == version.hash


def test_another_version_of_the_same_run_is_not_mixed_up_with_it(
    filled: Path, runs: list[Path], tmp_path: Path
) -> None:
    ours = Registry(tmp_path / "other")
    alone = ours.add(runs[1], "digits")  # without a parent, so with other files than the version 2 of this run
    theirs = Registry(filled).resolve("digits:2")
    assert alone.hash != theirs.hash
    with pytest.raises(RegistryError, match="digits:1 was made of the same run"):
        ours.adopt(theirs.path, "digits", expected=theirs.hash)
    assert ours.verify().unused == ()
    assert ours.adopt(theirs.path, "numbers", expected=theirs.hash).hash == theirs.hash

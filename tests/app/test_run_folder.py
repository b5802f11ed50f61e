"""A run folder that exists, is torn or was tampered with: one sentence, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness import SMALL, Cli
from safetensors.torch import load_file, save_file

import lowerbound
from lowerbound.files import exclusive, sha256
from lowerbound.lab import checkpoint

OVERRIDES = SMALL[1::2]


def stopped(out: Path, step: int) -> Path:
    """A run that was stopped after a step, with the checkpoint that stopping writes."""
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == step

    run = lowerbound.train(lowerbound.read_recipe("gmm2d", OVERRIDES), out, stop=stop)
    assert not run.finished
    return out


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_weights(first: Path, second: Path) -> bool:
    """Whether two runs have the same weights to the bit."""
    before, after = (load_file(path / "weights.safetensors") for path in (first, second))
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


# ----------------------------------------------------------------------------------------------- what is there already


def test_a_folder_that_is_not_empty_is_left_alone(cli: Cli, own: Path) -> None:
    before = content(own)
    cli("train", "gmm2d", *SMALL, "--out", own).refused(2, str(own), "not empty", "--resume")
    assert content(own) == before


def test_a_finished_run_is_not_trained_again(cli: Cli, own: Path) -> None:
    before, times = content(own), {path: path.stat().st_mtime_ns for path in own.glob("[!.]*")}
    result = cli("train", "gmm2d", *SMALL, "--out", own, "--resume", "--json")
    assert result.code == 0, result
    assert json.loads(result.out)["finished"] is True
    assert content(own) == before
    assert times == {path: path.stat().st_mtime_ns for path in own.glob("[!.]*")}, "no file was written again"


def test_another_recipe_is_refused_with_the_difference(cli: Cli, own: Path) -> None:
    before = content(own)
    sets = ("--set", "training.learning_rate=0.5")
    cli("train", "gmm2d", *SMALL, *sets, "--out", own, "--resume").refused(
        2, "another recipe", "training.learning_rate was 0.003 and now is 0.5"
    )
    assert content(own) == before


def test_a_folder_of_something_else_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    cli("train", "gmm2d", *SMALL, "--out", tmp_path, "--resume").refused(2, "holds no run", "another folder")
    assert content(tmp_path) == {"thesis.tex": b"years of work"}


def test_out_that_is_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    cli("train", "gmm2d", *SMALL, "--out", file).refused(2, "is a file", "folder")
    cli("train", "gmm2d", *SMALL, "--out", file / "run").refused(2, "cannot be written", "Not a directory")
    assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_out_without_permission_is_refused(cli: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    cli("train", "gmm2d", *SMALL, "--out", tmp_path / "run").refused(2, "cannot be written", "Permission denied")


def test_an_empty_folder_and_hidden_leftovers_are_no_obstacle(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".recipe.json.x1y2.json").write_text("{")
    result = cli("train", "gmm2d", *SMALL, "--out", tmp_path)
    assert result.code == 0, result
    assert not list(tmp_path.glob(".recipe.json.*")), "what a crash left is cleared"


def test_resume_starts_a_run_that_is_not_there(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    result = cli("train", "gmm2d", *SMALL, "--out", tmp_path / "run", "--resume")
    assert result.code == 0, result
    assert same_weights(gmm2d, tmp_path / "run")


def test_a_run_in_use_is_refused(cli: Cli, tmp_path: Path) -> None:
    with exclusive(tmp_path / "run" / ".lock", "the run"):
        cli("train", "gmm2d", *SMALL, "--out", tmp_path / "run").refused(2, "in use by another process", "wait")
    assert cli("train", "gmm2d", *SMALL, "--out", tmp_path / "run").code == 0, "the lock's file blocks nobody"


# --------------------------------------------------------------------------------------------------- absent, unfinished

VERBS = {
    "evaluate": (),
    "report": (),
    "sample": ("--out", "rows.npy"),
    "encode": ("--out", "codes.npy"),
    "reconstruct": ("--out", "rows.npy"),
    "decode": ("--out", "rows.npy", "--input", "codes.npy"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_needs_a_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in ("absent", "empty"):
        cli(verb, folder, *VERBS[verb]).refused(2, f"{folder} is no run", "recipe.json", "train --out")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_needs_a_finished_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.chdir(tmp_path)
    stopped(tmp_path / "run", 3)
    cli(verb, "run", *VERBS[verb]).refused(2, "run is not a finished run", "--resume")


# ------------------------------------------------------------------------------------------------------------- tampered


def flip(path: Path, position: int = -5) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_shapes(path: Path) -> None:
    """Replace weights by a sound file of others."""
    save_file({name: torch.zeros(3) for name in load_file(path)}, path)


class Attack:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("raise SystemExit(99)",)


def pickled(path: Path) -> None:
    """Replace a file by a pickle that runs code."""
    path.write_bytes(pickle.dumps(Attack()))


@pytest.mark.parametrize("damage", [flip, truncate, other_shapes, pickled, Path.unlink])
def test_weights_that_are_not_what_was_written_are_refused(cli: Cli, own: Path, damage: Callable[[Path], None]) -> None:
    damage(own / "weights.safetensors")
    out = own.parent / "rows.npy"
    cli("sample", own, "--out", out).refused(2, "weights.safetensors", "not what training wrote", "restore it")
    assert not out.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (other_shapes, ["does not fit the model of its recipe", "size mismatch"]),
        (pickled, ["damaged or no safetensors file"]),
    ],
)
def test_weights_are_refused_even_where_their_hash_was_forged(
    cli: Cli, own: Path, damage: Callable[[Path], None], words: list[str]
) -> None:
    damage(own / "weights.safetensors")
    record = json.loads((own / "run.json").read_text())
    record["files"]["weights.safetensors"] = sha256(own / "weights.safetensors")
    (own / "run.json").write_text(json.dumps(record))
    cli("sample", own, "--out", own.parent / "rows.npy").refused(2, "weights.safetensors", *words)


def test_a_recipe_changed_afterwards_is_refused(cli: Cli, own: Path) -> None:
    path = own / "recipe.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    cli("sample", own, "--out", own.parent / "rows.npy").refused(2, "recipe.json", "not what training wrote")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["is not valid JSON", "damaged"]),
        ("[]", ["is not the recipe of a run"]),
        ('{"schema": 1, "name": "x"}', ["is not the recipe of a run"]),
        ('{"schema": 1, "data_spec": {"size": 3}}', ["is not the recipe of a run"]),
        ('{"schema": 9, "data_spec": {"event": [2]}}', ["schema 9", "update lowerbound"]),
        ('{"schema": 1, "data_spec": {"event": [2]}}', ["`name` is missing"]),
        ("\udce4", ["is not valid JSON"]),
    ],
)
def test_a_torn_recipe_is_named(cli: Cli, own: Path, text: str, words: list[str]) -> None:
    (own / "recipe.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    cli("evaluate", own).refused(2, "recipe.json", *words)
    cli("train", "gmm2d", *SMALL, "--out", own, "--resume").refused(2, "recipe.json", *words)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 3}', '{"files": {}}'])
def test_a_torn_record_of_a_run_is_refused(cli: Cli, own: Path, text: str) -> None:
    (own / "run.json").write_text(text)
    cli("sample", own, "--out", own.parent / "rows.npy").refused(2, str(own))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"results": {"elbo_nats": 3}}'])
def test_a_torn_evaluation_is_named_by_the_report(cli: Cli, own: Path, text: str) -> None:
    (own / "evaluation.json").write_text(text)
    cli("report", own).refused(2, "evaluation.json")
    assert not (own / "report.html").exists()


# ---------------------------------------------------------------------------------------------------------- checkpoints


def remove_state(folder: Path) -> None:
    """Lose the record of a checkpoint."""
    (folder / "state.json").unlink()


def garbage_state(folder: Path) -> None:
    """Overwrite the record of a checkpoint."""
    (folder / "state.json").write_text("\0\0\0")


def empty_state(folder: Path) -> None:
    """A record that names no files."""
    (folder / "state.json").write_text('{"step": 15, "files": {}}')


def changed_state(folder: Path) -> None:
    """A record whose step was changed."""
    path = folder / "state.json"
    path.write_text(path.read_text().replace('"step": 15', '"step": 19'))


def truncate_model(folder: Path) -> None:
    """Cut a checkpoint's weights in half."""
    truncate(folder / "model.safetensors")


def flip_optimizer(folder: Path) -> None:
    """Change a bit of an optimiser's state."""
    flip(folder / "optimizer-model.safetensors")


DAMAGES = [remove_state, garbage_state, empty_state, changed_state, truncate_model, flip_optimizer]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_checkpoint_gives_way_to_an_older_whole_one(
    cli: Cli, gmm2d: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run = stopped(tmp_path / "run", 15)  # checkpoints of steps 10 and 15
    damage(run / "checkpoint" / "step-000000015")
    found = checkpoint.newest(run / "checkpoint")
    assert found is not None
    assert found.name == "step-000000010"
    result = cli("train", "gmm2d", *SMALL, "--out", run, "--resume")
    assert result.code == 0, result
    assert same_weights(gmm2d, run)
    assert not (run / "checkpoint" / "step-000000015").exists(), "the torn one does not outlive whole ones"


def test_where_all_checkpoints_are_torn_training_starts_again_and_says_so(
    cli: Cli, gmm2d: Path, tmp_path: Path
) -> None:
    run = stopped(tmp_path / "run", 3)
    for whole in (run / "checkpoint").glob("step-*"):
        remove_state(whole)
    with pytest.warns(UserWarning, match="only damaged checkpoints"):
        lowerbound.train(lowerbound.read_recipe("gmm2d", OVERRIDES), run, resume=True)
    assert same_weights(gmm2d, run)
    steps = [json.loads(line)["step"] for line in (run / "journal.jsonl").read_text().splitlines()]
    assert steps == [1, 10, 20]


def test_a_torn_checkpoint_is_never_kept_instead_of_a_whole_one(tmp_path: Path) -> None:
    tensors = {"model": {"w": torch.ones(3)}}
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, step, tensors, {}, keep=3)
    truncate_model(tmp_path / "step-000000020")
    truncate_model(tmp_path / "step-000000030")
    (tmp_path / ".step-000000030.abc").mkdir()
    checkpoint.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]
    checkpoint.save(tmp_path, 20, tensors, {}, keep=1)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000020"


def test_a_journal_with_a_torn_last_line_is_read(cli: Cli, gmm2d: Path, own: Path, tmp_path: Path) -> None:
    run = stopped(tmp_path / "run", 15)
    with (run / "journal.jsonl").open("a") as file:
        file.write('{"step": 14, "elb')
    result = cli("train", "gmm2d", *SMALL, "--out", run, "--resume")
    assert result.code == 0, result
    steps = [json.loads(line)["step"] for line in (run / "journal.jsonl").read_text().splitlines()]
    assert steps == [1, 10, 20]
    with (own / "journal.jsonl").open("a") as file:
        file.write('{"step": 2')
    assert cli("report", own).code == 0


@pytest.mark.parametrize("row", [b"{", b"7", b"{}", b'{"step": "\xff"}'])
def test_a_journal_changed_in_the_middle_is_refused(cli: Cli, own: Path, row: bytes) -> None:
    lines = (own / "journal.jsonl").read_bytes().splitlines()
    (own / "journal.jsonl").write_bytes(b"\n".join([lines[0], row, *lines[1:]]) + b"\n")
    cli("report", own).refused(2, "journal.jsonl", "line 2")


def test_another_machine_warns_that_bits_may_differ(cli: Cli, tmp_path: Path) -> None:
    run = stopped(tmp_path / "run", 15)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=f"threads {threads} -> {threads + 1}"):
            lowerbound.train(lowerbound.read_recipe("gmm2d", OVERRIDES), run, resume=True)
    finally:
        torch.set_num_threads(threads)


def test_a_run_can_be_moved(cli: Cli, own: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(own, tmp_path / "elsewhere"))
    assert cli("sample", moved, "--out", tmp_path / "rows.npy").code == 0

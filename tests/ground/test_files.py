"""Files are whole or absent, whatever goes wrong while they are written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from lowerbound import files
from lowerbound.errors import DataError, NotSavedError, RunError, TamperedError, UsageError
from lowerbound.lab import checkpoint


def fail_file(path: Path, error: Exception) -> None:
    """Fail in the middle of writing a file."""
    with files.replacing(path) as draft:
        draft.write_text("half")
        raise error


def fail_folder(path: Path, error: Exception) -> None:
    """Fail in the middle of filling a folder."""
    with files.replacing_folder(path) as draft:
        (draft / "part").write_text("half")
        raise error


def test_a_write_that_fails_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(ZeroDivisionError):
        fail_file(path, ZeroDivisionError())
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_folder(tmp_path / "folder", ZeroDivisionError())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_with_the_file_and_the_exit_code_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(NotSavedError, match=r"file could not be written.*No space.*unharmed") as error:
        fail_file(tmp_path / "file", OSError(errno.ENOSPC, "No space left on device"))
    assert error.value.exit_code == 3
    with pytest.raises(NotSavedError, match="folder could not be written"):
        fail_folder(tmp_path / "folder", OSError(errno.EIO, "Input/output error"))
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_can_be_written_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "below", Path("/proc/no/such/file")):
        with pytest.raises(UsageError, match="cannot be written") as error:
            files.write_text(path, "text")
        assert error.value.exit_code == 2
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="folder cannot be written"):
        files.write_text(tmp_path / "folder", "text")


def test_drafts_of_a_file_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in (".file.json.ab12.json", ".other.json.ab12.json", "file.json"):
        (tmp_path / name).write_text("")
    (tmp_path / ".file.json.folder").mkdir()
    files.clear_drafts(tmp_path / "file.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.json.ab12.json", "file.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"nothing"])
def test_torn_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.json is not valid JSON"):
        files.read_json(path)


def test_a_lock_has_one_holder_and_is_gone_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    with files.exclusive(lock, "the run"), pytest.raises(RunError, match="the run is in use"):
        files.exclusive(lock, "the run").__enter__()
    with files.exclusive(lock, "the run"):
        assert lock.exists()


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 100, b"\x80\x04\x95pickle"])
def test_torn_tensors_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(TamperedError, match=r"weights\.safetensors is damaged"):
        checkpoint.read_tensors(path)
    path.unlink()
    with pytest.raises(TamperedError, match="does not exist"):
        checkpoint.read_tensors(path)


def test_tensors_come_back_to_the_bit_also_views_of_one_another(tmp_path: Path) -> None:
    whole = torch.randn(4, 4)
    written = {"whole": whole, "row": whole[1], "transposed": whole.T, "none": torch.zeros(0)}
    checkpoint.write_tensors(tmp_path / "t.safetensors", written)
    read = checkpoint.read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], written[name]) for name in written)


def test_a_checkpoint_comes_back_and_the_oldest_go(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.full((2,), float(step))}}, {"scale": 0.1 * step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    tensors, numbers = checkpoint.load(found)
    assert tensors["model"]["w"].tolist() == [3.0, 3.0]
    assert (numbers["step"], numbers["scale"]) == (3, 0.1 * 3)


def test_no_checkpoints_at_all(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "absent") is None
    checkpoint.clear(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()

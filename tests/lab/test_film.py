"""The film of training: the right steps, kept over a resume, and no trace in the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.lab.checkpoint import read_tensors
from lowerbound.lab.film import Frame, film_steps, read_film, write_frame

SMALL = ["training.steps=12", "training.batch_size=16", "training.checkpoint_every=5"]


def recipe(name: str, *changes: str) -> lowerbound.Recipe:
    return lowerbound.read_recipe(name, [*SMALL, *changes])


def test_steps_are_evenly_spaced_in_their_logarithm() -> None:
    assert sorted(film_steps(4, 1000)) == [1, 10, 100, 1000]
    assert sorted(film_steps(8, 5)) == [1, 2, 3, 4, 5]
    assert film_steps(1, 7) == {7}
    assert film_steps(0, 7) == set()


@pytest.mark.parametrize("name", ["digits", "gmm2d"])
def test_a_film_leaves_no_trace_in_the_training(tmp_path: Path, name: str) -> None:
    weights = []
    for frames in (0, 3):
        run = lowerbound.train(recipe(name, f"training.film={frames}"), tmp_path / str(frames))
        weights.append(read_tensors(run.weights_path))
        assert [frame.step for frame in read_film(run.film)] == [[], [1, 3, 12]][frames == 3]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_resumed_run_has_the_frames_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    chosen = recipe("digits", "training.film=6")
    whole = read_film(lowerbound.train(chosen, tmp_path / "whole").film)
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count == 4

    lowerbound.train(chosen, tmp_path / "torn", stop=stop)
    torn = read_film(lowerbound.train(chosen, tmp_path / "torn", resume=True).film)
    assert [frame.step for frame in whole] == [frame.step for frame in torn] == sorted(film_steps(6, 12))
    for one, other in zip(whole, torn, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert one.reconstructions is not None
        assert other.reconstructions is not None
        assert torch.equal(one.reconstructions, other.reconstructions)


def test_the_last_frame_shows_the_weights_that_are_kept(tmp_path: Path) -> None:
    run = lowerbound.train(recipe("digits", "training.film=2"), tmp_path / "run")
    last = read_film(run.film)[-1]
    expected = lowerbound.sample(run.model(), len(last.samples), 0).round().to(torch.uint8)
    assert torch.equal(last.samples, expected)


def test_a_damaged_frame_is_left_out(tmp_path: Path) -> None:
    frame = Frame(3, torch.zeros(2, 2), None, None)
    write_frame(tmp_path, frame, None)
    (tmp_path / "00000004.npz").write_bytes(b"torn")
    (found,) = read_film(tmp_path)
    assert (found.step, found.originals) == (3, None)
    assert torch.equal(found.samples, frame.samples)


def test_what_cannot_be_seen_has_no_film(tmp_path: Path) -> None:
    rows = lowerbound.load_data({"kind": "gmm2d"}).train.take(torch.arange(64)).raw
    wide = torch.cat([rows, rows], dim=1)
    from lowerbound.lab.data.rows import Dataset, InMemory

    data = Dataset("wide", lowerbound.DataSpec((4,), examples=64), *(InMemory(wide) for _ in range(3)))
    run = lowerbound.train(recipe("gmm2d", "training.film=3"), tmp_path / "run", data=data)
    assert run.finished
    assert not run.film.exists()

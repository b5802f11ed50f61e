"""Commands that use the latents: interpolate, traverse, edit, denoise, fill, manifold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Cli
from PIL import Image

import lowerbound

VERBS: dict[str, list[str]] = {
    "interpolate": ["--pairs", "3", "--steps", "4"],
    "traverse": ["--units", "0,1", "--steps", "5"],
    "edit": ["--attribute", "1", "--count", "3"],
}
SHAPES = {"interpolate": (3, 4), "traverse": (2, 5), "edit": (3, 6)}


@pytest.mark.parametrize("name", ["digits", "gmm2d", "conditional"])
@pytest.mark.parametrize("verb", VERBS)
def test_steps_are_written_as_array_picture_and_film(
    cli: Cli, trained: Path, tmp_path: Path, verb: str, name: str
) -> None:
    run = trained / name
    for extension in ("npy", "png", "gif"):
        result = cli(verb, run, *VERBS[verb], "--out", tmp_path / f"out.{extension}")
        assert result.code == 0, result
    assert np.load(tmp_path / "out.npy").shape == (*SHAPES[verb], *lowerbound.Run(run).data_spec().event)
    with Image.open(tmp_path / "out.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames == 2 * SHAPES[verb][1] - 2  # type: ignore[attr-defined]
    with Image.open(tmp_path / "out.png") as picture:
        picture.load()


@pytest.mark.parametrize("name", ["digits", "gmm2d", "conditional"])
def test_noise_is_taken_out(cli: Cli, trained: Path, tmp_path: Path, name: str) -> None:
    run = trained / name
    for extension in ("npy", "png"):
        result = cli("denoise", run, "--count", 4, "--noise", 1, "--out", tmp_path / f"out.{extension}", "--json")
        assert result.code == 0, result
        assert json.loads(result.out)["shape"] == list(np.load(tmp_path / "out.npy").shape)
    assert {"error_before", "error_after"} <= json.loads(result.out).keys()
    assert cli("denoise", run, "--count", 4, "--out", tmp_path / "plain.npy").code == 0


def test_gaps_are_filled_and_the_rest_stays(cli: Cli, digits: Path, conditional: Path, tmp_path: Path) -> None:
    rows = lowerbound.load_rows(lowerbound.Run(digits), count=3).raw.float()
    rows[:, :, 4:] = torch.nan
    np.save(tmp_path / "gaps.npy", rows)
    for mask in (["--mask", "bottom"], []):
        out = tmp_path / f"filled{len(mask)}.npy"
        result = cli("fill", digits, "--input", tmp_path / "gaps.npy", *mask, "--iterations", 5, "--out", out)
        assert result.code == 0, result
        assert "96 values filled" in result.out
        assert np.array_equal(np.load(out)[:, :, :4], rows[:, :, :4])
        assert np.isfinite(np.load(out)).all()
    np.save(tmp_path / "mask.npy", np.eye(8)[None])
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "mask.png")
    for mask in ("mask.npy", "mask.png"):
        result = cli("fill", conditional, "--mask", tmp_path / mask, "--iterations", 5, "--out", tmp_path / "x.png")
        assert result.code == 0, result
        assert "128 values filled" in result.out


def test_masks_that_do_not_fit_are_refused(cli: Cli, digits: Path, gmm2d: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x.npy")
    cli("fill", digits, *out).refused(2, "no value is missing", "--mask")
    cli("fill", digits, "--mask", "middle", *out).refused(2, "middle", "left, right")
    cli("fill", gmm2d, "--mask", "left", *out).refused(2, "for images", "[2]")
    np.save(tmp_path / "mask.npy", np.ones((3, 3)))
    cli("fill", digits, "--mask", tmp_path / "mask.npy", *out).refused(2, "[3, 3]", "[1, 8, 8]")
    np.save(tmp_path / "mask.npy", np.array(["a"]))
    cli("fill", digits, "--mask", tmp_path / "mask.npy", *out).refused(2, "mask.npy", "numbers")
    (tmp_path / "mask.png").write_bytes(b"hello")
    cli("fill", digits, "--mask", tmp_path / "mask.png", *out).refused(2, "mask.png", "cannot be read")
    np.save(tmp_path / "zeros.npy", np.zeros((1, 8, 8)))
    cli("fill", digits, "--mask", tmp_path / "zeros.npy", *out).refused(2, "nothing is missing")
    np.save(tmp_path / "nan.npy", np.full((1, 1, 8, 8), np.nan))
    cli("denoise", digits, "--input", tmp_path / "nan.npy", *out).refused(2, "not finite")
    cli("fill", digits, "--input", tmp_path / "nan.npy", "--mask", "left", *out).refused(2, "not marked")


def test_the_plane_of_two_latents(cli: Cli, gmm2d: Path, digits: Path, tmp_path: Path) -> None:
    for extension in ("npy", "png"):
        assert cli("manifold", gmm2d, "--side", 5, "--out", tmp_path / f"out.{extension}").code == 0
    assert np.load(tmp_path / "out.npy").shape == (5, 5, 2)
    cli("manifold", digits, "--out", tmp_path / "x.png").refused(2, "two latents", "model.latent = 2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["interpolate", "--steps", "1"], ["--steps"]),
        (["interpolate", "--out", "x.jpg"], ["x.jpg", ".npy, .png or .gif"]),
        (["traverse", "--units", "9"], ["[9]", "from 0 to 1"]),
        (["traverse", "--units", "a"], ["--units a", "0,3,5"]),
        (["traverse", "--reach", "nan"], ["nan", "finite"]),
        (["traverse", "--group", "y"], ["`y`", "are z"]),
        (["edit"], ["--attribute", "--having"]),
        (["edit", "--attribute", "1", "--having", "a.npy"], ["--attribute", "--having"]),
        (["edit", "--attribute", "77"], ["label 77", "its labels are"]),
        (["edit", "--attribute", "1", "--against", "1"], ["given twice"]),
        (["edit", "--attribute", "1", "--strengths", "1,x"], ["--strengths 1,x", "-1,0,1"]),
        (["denoise", "--draws", "0"], ["--draws"]),
        (["denoise", "--noise", "-1"], ["--noise"]),
        (["fill", "--iterations", "0"], ["--iterations"]),
        (["fill", "--sampler", "hamilton"], ["--sampler"]),
        (["manifold", "--side", "0"], ["--side"]),
        (["manifold", "--label", "1"], ["not conditional"]),
    ],
)
def test_wrong_use_is_refused(cli: Cli, gmm2d: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    verb, *rest = options
    out = [] if "--out" in rest else ["--out", tmp_path / "x.npy"]
    result = cli(verb, gmm2d, *rest, *out)
    assert result.code == 2, result
    assert all(word in result.err for word in words), result.err
    assert not list(tmp_path.iterdir())


def test_an_odd_number_of_rows_has_no_pairs(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((3, 2)))
    cli("interpolate", gmm2d, "--input", tmp_path / "three.npy", "--out", tmp_path / "x.npy").refused(2, "3 rows")


def test_an_attribute_may_be_shown_by_rows(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "right.npy", np.array([[2.0, 0.0], [2.1, 0.1]]))
    np.save(tmp_path / "left.npy", np.array([[-2.0, 0.0]]))
    files = ("--having", tmp_path / "right.npy", "--lacking", tmp_path / "left.npy")
    for way in ("means", "logistic"):
        result = cli("edit", gmm2d, *files, "--way", way, "--strengths", "0,1", "--out", tmp_path / "x.npy")
        assert result.code == 0, result
    assert np.load(tmp_path / "x.npy").shape == (8, 2, 2)
    cli("edit", gmm2d, "--having", tmp_path / "right.npy", "--out", tmp_path / "x.npy").refused(2, "both --having")


def test_discrete_codes_have_no_ways(cli: Cli, tmp_path: Path) -> None:
    recipe = tmp_path / "three.toml"
    recipe.write_text('name = "codes"\n[data]\nkind = "digits"\n[model]\nkind = "vq-vae"\n[training]\nsteps = 2\n')
    assert cli("train", recipe, "--out", tmp_path / "codes").code == 0
    cli("interpolate", tmp_path / "codes", "--out", tmp_path / "x.gif").refused(2, "discrete")
    cli("traverse", tmp_path / "codes", "--out", tmp_path / "x.gif").refused(2, "discrete")

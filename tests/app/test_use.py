"""Sampling, coding and decoding: wrong input in one sentence, and rows that do not depend on their batch-mates."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import Cli
from numpy.typing import NDArray
from PIL import Image

import lowerbound
from lowerbound import Context
from lowerbound.errors import ShapeError, UsageError

Array = NDArray[np.generic]


def saved(path: Path, array: Any) -> Path:
    """A .npy file."""
    np.save(path, array, allow_pickle=True)
    return path


# ------------------------------------------------------------------------------------------------------------ where to


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.npz", ".png"])
def test_an_unknown_extension_is_refused_before_any_work(cli: Cli, gmm2d: Path, tmp_path: Path, name: str) -> None:
    cli("sample", gmm2d, "--out", tmp_path / name).refused(2, name, ".npy, .png or .gif")
    cli("reconstruct", "no-such-run", "--out", tmp_path / name).refused(2, name, ".npy, .png or .gif")
    assert not list(tmp_path.iterdir())


def test_codes_have_formats_of_their_own(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    cli("encode", gmm2d, "--out", tmp_path / "codes.png").refused(2, "codes.png", ".npy or .npz")


def test_a_missing_folder_is_made(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "rows.npy"
    assert cli("sample", gmm2d, "--out", out, "--count", 3).code == 0
    assert np.load(out).shape == (3, 2)


def test_a_place_that_cannot_be_written_is_named(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.npy").mkdir()
    cli("sample", gmm2d, "--out", tmp_path / "file" / "rows.npy").refused(2, "rows.npy", "cannot be written")
    cli("sample", gmm2d, "--out", tmp_path / "folder.npy").refused(2, "folder.npy", "cannot be written", "directory")
    cli("sample", gmm2d, "--out", "/proc/rows.npy").refused(2, "/proc/rows.npy", "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npy"], "no draft is left"


@pytest.mark.parametrize("verb", ["sample", "reconstruct"])
def test_pictures_are_written_whole(cli: Cli, digits: Path, gmm2d: Path, tmp_path: Path, verb: str) -> None:
    for run in (digits, gmm2d):
        out = tmp_path / f"{run.name}.PNG"
        assert cli(verb, run, "--out", out, "--count", 20).code == 0
        with Image.open(out) as picture:
            picture.load()
            assert picture.format == "PNG"


def test_a_picture_of_pairs_shows_every_row(cli: Cli, digits: Path, tmp_path: Path) -> None:
    heights = {}
    for count in (16, 17):
        assert cli("reconstruct", digits, "--out", tmp_path / "pairs.png", "--count", count).code == 0
        with Image.open(tmp_path / "pairs.png") as picture:
            heights[count] = picture.height / picture.width
    assert heights[17] > 1.8 * heights[16], "the 17th begins two new lines"


# --------------------------------------------------------------------------------------------------------- what to use


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 5)), ["shape [3, 5]", "needs (rows, 2)"]),
        (np.array(3.0), ["shape []", "needs (rows, 2)"]),
        (np.zeros((0, 2)), ["holds no rows"]),
        (np.full((3, 2), np.nan), ["not finite"]),
        (np.full((3, 2), 1e300), ["not finite"]),
        (np.array([["a", "b"]]), ["type <U1", "needs numbers"]),
        (np.zeros((3, 2), complex), ["complex128", "needs numbers"]),
        (np.array([[{}, 1]], object), ["holds objects"]),
    ],
)
@pytest.mark.parametrize("verb", ["encode", "reconstruct"])
def test_rows_of_the_wrong_kind_are_refused(
    cli: Cli, gmm2d: Path, tmp_path: Path, verb: str, array: Array, words: list[str]
) -> None:
    path, out = saved(tmp_path / "rows.npy", array), tmp_path / "out.npy"
    result = cli(verb, gmm2d, "--input", path, "--out", out)
    result.refused(2, "rows.npy", *words)
    assert "unsafe" not in result.err
    assert not out.exists()


@pytest.mark.parametrize("kind", ["f2", "f4", ">f8", "i1", "u8", ">i4", "?"])
def test_any_type_of_number_will_do(cli: Cli, gmm2d: Path, tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "rows.npy", np.ones((3, 2), kind))
    assert cli("reconstruct", gmm2d, "--input", path, "--out", tmp_path / "out.npy").code == 0
    reference = lowerbound.reconstruct(lowerbound.load(gmm2d), torch.ones(3, 2))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), reference, atol=1e-6)


def test_one_row_needs_no_axis_of_rows(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "row.npy", np.zeros(2))
    result = cli("encode", gmm2d, "--input", path, "--out", tmp_path / "codes.npy")
    assert result.code == 0, result
    assert "1 row of shape [2]" in result.out


def test_values_beyond_the_levels_of_the_data_are_refused(cli: Cli, digits: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "rows.npy", np.full((2, 1, 8, 8), 255))
    cli("encode", digits, "--input", path, "--out", tmp_path / "z.npy").refused(2, "255", "from 0 to 16")
    path = saved(tmp_path / "rows.npy", np.full((2, 1, 8, 8), -1))
    cli("encode", digits, "--input", path, "--out", tmp_path / "z.npy").refused(2, "-1", "from 0 to 16")


def npy(array: Array) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: Array) -> bytes:
    """The content of a .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file."""
    with np.load(path) as found:
        return dict(found)


SOUND = npy(np.zeros((3, 2)))
TORN = {
    "empty.npy": b"",
    "garbage.npy": b"garbage",
    "cut.npy": SOUND[:-7],
    "huge.npy": SOUND.replace(b"(3, 2), }", b"(99999999999999, 2), }"),
    "archive.npy": npz(a=np.zeros((3, 2))),
    "archive.npz": npz(a=np.zeros((3, 2))),
}


@pytest.mark.parametrize("name", TORN)
def test_torn_arrays_are_refused(cli: Cli, gmm2d: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TORN[name])
    for verb in ("encode", "decode"):
        cli(verb, gmm2d, "--input", tmp_path / name, "--out", tmp_path / "out.npy").refused(2, name)


def test_a_torn_archive_of_codes_is_refused(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "codes.npz", npz(z=np.zeros((3, 2)))
    path.write_bytes(whole[:60])
    cli("decode", gmm2d, "--input", path, "--out", tmp_path / "out.npy").refused(2, "codes.npz", "zip")
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    cli("decode", gmm2d, "--input", path, "--out", tmp_path / "out.npy").refused(2, "codes.npz", "CRC")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("z.npy", b"no array")
    cli("decode", gmm2d, "--input", path, "--out", tmp_path / "out.npy").refused(2, "codes.npz")


def test_input_that_is_not_there(cli: Cli, gmm2d: Path, digits: Path, tmp_path: Path) -> None:
    for name in ("none.npy", "none.png"):
        cli("encode", digits, "--input", tmp_path / name, "--out", tmp_path / "z.npy").refused(2, "does not exist")
    cli("decode", gmm2d, "--input", tmp_path / "none.npy", "--out", tmp_path / "x.npy").refused(2, "does not exist")


def noise_picture(path: Path, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    """A picture that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P"])
def test_pictures_of_the_right_size_are_read(cli: Cli, digits: Path, tmp_path: Path, mode: str) -> None:
    path = noise_picture(tmp_path / "in.png", mode=mode)
    assert cli("reconstruct", digits, "--input", path, "--out", tmp_path / "out.png").code == 0


def cut(path: Path) -> None:
    """Half of a picture."""
    path.write_bytes(path.read_bytes()[:60])


def no_picture(path: Path) -> None:
    """Something else under a picture's name."""
    path.write_bytes(b"hello")


def broken_header(path: Path) -> None:
    """The first bytes of a PNG and nothing that follows from them."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100)


@pytest.mark.parametrize("damage", [cut, no_picture, broken_header])
def test_broken_pictures_are_refused(cli: Cli, digits: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = noise_picture(tmp_path / "in.png")
    damage(path)
    cli("encode", digits, "--input", path, "--out", tmp_path / "z.npy").refused(2, "in.png", "cannot be read")


def test_pictures_that_do_not_fit_are_refused(cli: Cli, digits: Path, gmm2d: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "in.png", tmp_path / "z.npy"
    cli("encode", digits, "--input", noise_picture(path, (9, 8)), "--out", out).refused(2, "8, 9]", "(rows, 1, 8, 8)")
    cli("encode", digits, "--input", noise_picture(path, mode="I;16"), "--out", out).refused(2, "mode I", "8 bits")
    cli("encode", gmm2d, "--input", noise_picture(path), "--out", out).refused(2, "not one of pictures", ".npy")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": np.zeros((3, 5))}, ["`z` have shape [2]", "[5]"]),
        ({"a": np.zeros((3, 2))}, ["holds a", "groups of latents are z"]),
        ({"z": np.zeros((3, 2)), "w": np.zeros(3)}, ["holds z, w"]),
        ({}, ["holds nothing"]),
        ({"z": np.full((3, 2), np.inf)}, ["not finite"]),
        ({"z": np.zeros((0, 2))}, ["holds no rows"]),
    ],
)
def test_codes_that_do_not_fit_are_refused(
    cli: Cli, gmm2d: Path, tmp_path: Path, arrays: dict[str, Array], words: list[str]
) -> None:
    (tmp_path / "codes.npz").write_bytes(npz(**arrays))
    out = tmp_path / "out.npy"
    cli("decode", gmm2d, "--input", tmp_path / "codes.npz", "--out", out).refused(2, *words)
    assert not out.exists()


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--count", "0"], ["--count", "1"]),
        (["--count", "-3"], ["--count", "1"]),
        (["--count", "many"], ["--count"]),
        (["--temperature", "-1"], ["--temperature"]),
        (["--temperature", "nan"], ["temperature"]),
        (["--temperature", "inf"], ["temperature inf", "finite"]),
        (["--observe", "mean"], ["--observe", "'point'"]),
        (["--label", "1"], ["--label", "not conditional", "leave it out"]),
        (["--label", "-1"], ["--label"]),
        (["--device", "gpu"], ["'gpu'", "cpu"]),
        (["--device", ""], ["device ''", "cpu"]),
        (["--device", "meta"], ["'meta'", "cpu"]),
        (["--device", "cuda:99"], ["'cuda:99'", "cpu"]),
        (["--seeds", "3"], ["--seeds", "--seed"]),
    ],
)
def test_wrong_options_are_refused(cli: Cli, gmm2d: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    result = cli("sample", gmm2d, "--out", tmp_path / "rows.npy", *options)
    assert result.code == 2, result
    assert all(word in result.err for word in words), result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_an_unknown_device_is_refused_everywhere(cli: Cli, gmm2d: Path, tmp_path: Path, verb: str) -> None:
    arguments = {"train": ("gmm2d", "--out", tmp_path / "run"), "evaluate": (gmm2d,)}[verb]
    cli(verb, *arguments, "--device", "gpu").refused(2, "'gpu'", "there are: cpu")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------- contexts


def test_samples_of_a_conditional_model_take_each_class_in_turn(cli: Cli, conditional: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.npy"
    assert cli("sample", conditional, "--out", out, "--count", 12).code == 0
    rows = np.load(out)
    for index in (0, 7, 11):
        assert cli("sample", conditional, "--out", out, "--count", 12, "--label", index % 10).code == 0
        np.testing.assert_allclose(np.load(out)[index], rows[index], atol=1e-5)
        assert np.abs(np.load(out) - rows).max() > 1e-3, "the label matters"


def test_a_label_out_of_range_is_refused(cli: Cli, conditional: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.npy"
    cli("sample", conditional, "--out", out, "--label", 10).refused(2, "--label 10", "from 0 to 9")


def test_rows_of_ones_own_need_a_label(cli: Cli, conditional: Path, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    picture = noise_picture(tmp_path / "in.png")
    codes = saved(tmp_path / "codes.npy", np.zeros((3, 16)))
    for verb, path in (("encode", picture), ("reconstruct", picture), ("decode", codes)):
        if verb != "decode":
            cli(verb, conditional, "--input", path, "--out", out).refused(2, "conditional", "--label N")
        assert cli(verb, conditional, "--input", path, "--out", out, "--label", 3).code == 0
        cli(verb, digits, "--input", path, "--out", out, "--label", 3).refused(2, "not conditional", "leave it out")
        cli(verb, conditional, "--input", path, "--out", out, "--label", 10).refused(2, "from 0 to 9")
    cli("reconstruct", conditional, "--out", out, "--label", 3).refused(2, "--label 3", "labels of their own")


def test_a_context_that_does_not_fit_is_refused(conditional: Path, digits: Path) -> None:
    model, given = lowerbound.load(conditional), Context.labels(torch.arange(3), 10)
    with pytest.raises(ShapeError, match="conditional"):
        lowerbound.sample(model, 3)
    with pytest.raises(ShapeError, match=r"shape \[3, 10\] was given; this needs one of shape \[4, 10\]"):
        lowerbound.sample(model, 4, context=given)
    with pytest.raises(ShapeError, match="this needs none"):
        lowerbound.sample(lowerbound.load(digits), 3, context=given)
    with pytest.raises(UsageError, match="at least one"):
        lowerbound.sample(lowerbound.load(digits), 0)


# --------------------------------------------------------------------------------------------------------- independence


@pytest.mark.parametrize("observe", ["point", "sample"])
def test_row_i_of_a_sample_is_a_function_of_the_seed_and_i(digits: Path, observe: Any) -> None:
    model = lowerbound.load(digits)
    many = lowerbound.sample(model, 300, seed=3, observe=observe)
    few = lowerbound.sample(model, 5, seed=3, observe=observe)
    torch.testing.assert_close(many[:5], few, atol=1e-5, rtol=0)
    assert len(many.flatten(1).unique(dim=0)) > 290, "rows of later chunks are rows of their own"
    other = lowerbound.sample(model, 5, seed=4, observe=observe)
    assert (few - other).abs().max() > 1e-2


def test_codes_and_reconstructions_do_not_depend_on_batch_mates(digits: Path) -> None:
    model = lowerbound.load(digits)
    rows = lowerbound.load_data({"kind": "digits"}).test.take(torch.arange(300)).raw
    z, back = lowerbound.encode(model, rows)["z"], lowerbound.reconstruct(model, rows)
    decoded = lowerbound.decode(model, {"z": z})
    for index in (0, 131, 299):
        alone = rows[index : index + 1]
        torch.testing.assert_close(lowerbound.encode(model, alone)["z"][0], z[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(lowerbound.reconstruct(model, alone)[0], back[index], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            lowerbound.decode(model, {"z": z[index : index + 1]})[0], decoded[index], atol=1e-4, rtol=0
        )


def test_the_same_command_writes_the_same_file(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        assert cli("sample", gmm2d, "--out", tmp_path / name, "--seed", 7, "--observe", "sample").code == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_decoding_codes_is_reconstructing(cli: Cli, digits: Path, tmp_path: Path) -> None:
    codes, decoded, back = (tmp_path / name for name in ("codes.npz", "decoded.npy", "back.npy"))
    result = cli("encode", digits, "--out", codes, "--count", 9, "--json")
    assert json.loads(result.out) == {"out": str(codes), "shape": [9, 16]}
    assert cli("decode", digits, "--input", codes, "--out", decoded).code == 0
    assert cli("reconstruct", digits, "--count", 9, "--out", back).code == 0
    np.testing.assert_allclose(np.load(decoded), np.load(back), atol=1e-5)


def test_codes_of_several_groups_go_through_one_archive(cli: Cli, tmp_path: Path) -> None:
    small = ("--set", "training.steps=2", "--set", "model={kind='top-down'}")
    assert cli("train", "digits", *small, "--out", tmp_path / "run").code == 0
    codes = tmp_path / "codes.npz"
    result = cli("encode", tmp_path / "run", "--out", codes, "--count", 3, "--json")
    assert json.loads(result.out)["shapes"].keys() == read(codes).keys()
    cli("encode", tmp_path / "run", "--out", tmp_path / "codes.npy", "--count", 3).refused(2, "groups", ".npz")
    assert cli("decode", tmp_path / "run", "--input", codes, "--out", tmp_path / "rows.npy").code == 0
    one = saved(tmp_path / "one.npy", np.zeros((3, 8)))
    cli("decode", tmp_path / "run", "--input", one, "--out", tmp_path / "x.npy").refused(2, "one array", ".npz")
    whole = read(codes)
    first = next(iter(whole))
    (tmp_path / "uneven.npz").write_bytes(npz(**{**whole, first: whole[first][:2]}))
    cli("decode", tmp_path / "run", "--input", tmp_path / "uneven.npz", "--out", tmp_path / "x.npy").refused(
        2, "one row each"
    )


def test_an_unlabelled_row_is_no_obstacle_to_a_model_that_guesses_labels(cli: Cli, tmp_path: Path) -> None:
    recipe = tmp_path / "semi.toml"
    recipe.write_text(
        'name = "semi"\n[data]\nkind = "digits"\ncontext = "label"\nlabelled = 100\n'
        '[model]\nkind = "semi-supervised"\nlatent = 4\n[training]\nsteps = 2\n'
    )
    assert cli("train", recipe, "--out", tmp_path / "run").code == 0
    picture = noise_picture(tmp_path / "in.png")
    for options in ((), ("--label", 3)):
        result = cli("encode", tmp_path / "run", "--input", picture, "--out", tmp_path / "codes.npz", *options)
        assert result.code == 0, result
    assert read(tmp_path / "codes.npz")["y"].tolist() == [3]

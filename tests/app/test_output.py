"""What commands print, where, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SMALL, Cli

from lowerbound.app.cli.main import COMMANDS, GROUPS

DRY = ("train", "gmm2d", "--dry-run")


@pytest.mark.parametrize(
    "arguments",
    [
        ("recipes",),
        ("recipes", "digits"),
        (*DRY,),
        ("train", "gmm2d", *SMALL, "--out", "run"),
        ("evaluate", "gmm2d-run", "--samples", "4", "--examples", "10"),
        ("report", "gmm2d-run"),
        ("sample", "gmm2d-run", "--out", "rows.npy"),
        ("encode", "gmm2d-run", "--out", "codes.npy"),
        ("reconstruct", "gmm2d-run", "--out", "back.npy"),
        ("score", "gmm2d-run", "--out", "scores.csv"),
        ("decode", "gmm2d-run", "--input", "in.npy", "--out", "decoded.npy"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_json_is_all_that_json_prints(
    cli: Cli, own: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(own.parent)
    own.rename("gmm2d-run")
    if "in.npy" in arguments:
        assert cli("encode", "gmm2d-run", "--out", "in.npy").code == 0
    result = cli(*arguments, "--json")
    assert (result.code, result.err) == (0, ""), result
    assert isinstance(json.loads(result.out, parse_constant=pytest.fail), dict)


def test_an_error_prints_nothing_on_stdout_even_with_json(cli: Cli, tmp_path: Path) -> None:
    result = cli("evaluate", tmp_path, "--json")
    result.refused(2, "is no run")
    assert result.out == ""


def test_lines_are_plain_where_there_is_no_terminal(cli: Cli, tmp_path: Path) -> None:
    result = cli("train", "gmm2d", *SMALL, "--set", "training.journal_every=5", "--out", tmp_path / "run")
    lines = result.out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["5/20", "10/20", "15/20", "20/20"]
    assert lines[-1].startswith("finished ")
    assert "\x1b" not in result.out
    assert "\r" not in result.out
    assert result.err == ""


def test_a_traceback_only_with_debug(cli: Cli, tmp_path: Path) -> None:
    cli("evaluate", tmp_path).refused(2, "is no run")
    result = cli("--debug", "evaluate", tmp_path)
    assert result.code == 2, "the exit code is the same"
    assert "Traceback" in result.err
    assert "RunError" in result.err
    assert result.err.splitlines()[-1].startswith("error: ")
    cli("evaluate", tmp_path).refused(2, "is no run")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("trian", "digits"), "trian"),
        (("train",), "recipe"),
        (("train", "digits", "--out"), "--out"),
        (("train", "digits", "--stes", "3"), "--set"),
        (("evaluate",), "target"),
        (("evaluate", "run", "--samples", "0"), "--samples"),
        (("evaluate", "run", "--split", "all"), "--split"),
    ],
)
def test_wrong_use_of_the_command_line(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    result = cli(*arguments)
    assert result.code == 2, result
    assert word in result.err
    assert "--help" in result.err or "requires an argument" in result.err
    assert result.out == ""


def test_training_needs_a_folder(cli: Cli) -> None:
    cli("train", "gmm2d").refused(2, "--out DIR", "--dry-run")


def test_the_version_is_printed(cli: Cli) -> None:
    from lowerbound import __version__

    assert cli("--version").out == f"{__version__}\n"


def test_a_failure_that_nobody_foresaw_is_no_verdict(cli: Cli, tmp_path: Path) -> None:
    """Memory for a hundred billion latents is not there; what the allocator says is no error of ours."""
    result = cli("train", "gmm2d", "--set", "model.latent=99999999999999", "--out", tmp_path / "run")
    result.refused(3, "not foreseen", "--debug")
    assert not (tmp_path / "run").exists()


# What a child process says about its imports after a command; one child tries all commands.
CHILD = """
import sys, time
from lowerbound.app.cli.main import main
for arguments in {commands!r}:
    start = time.perf_counter()
    sys.argv = ["lowerbound", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (arguments, ended.code)
    slow = [name for name in ("torch", "sklearn", "scipy", "matplotlib", "numpy", "PIL") if name in sys.modules]
    print("IMPORTS", arguments, slow, round(time.perf_counter() - start, 3), file=sys.stderr)
"""


def test_help_imports_nothing_heavy() -> None:
    commands = [["--help"], ["--version"], *([name, "--help"] for name in (*COMMANDS, *GROUPS))]
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(commands=commands)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("IMPORTS")]
    sys.stdout.write("\n".join(said))
    assert len(said) == len(commands)
    assert all("] [] " in line for line in said), said

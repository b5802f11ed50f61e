"""The command line in this process, and runs that are trained once and copied by tests that change them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from harness import SMALL, Cli, Result

from lowerbound.app.cli.main import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`lowerbound ARGUMENTS` in this process."""
    monkeypatch.delenv("LOWERBOUND_DATA", raising=False)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["lowerbound", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs `gmm2d`, `digits` and `conditional`; nobody changes it."""
    folder = tmp_path_factory.mktemp("trained")
    recipes = {"gmm2d": ["gmm2d"], "digits": ["digits"], "conditional": ["digits", "--set", "data.context=label"]}
    with pytest.MonkeyPatch.context() as patch:
        for name, arguments in recipes.items():
            patch.setattr(sys, "argv", ["lowerbound", "train", *arguments, *SMALL, "--out", str(folder / name)])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code in (None, 0)
    return folder


@pytest.fixture
def gmm2d(trained: Path) -> Path:
    """A finished run of points; not to be changed."""
    return trained / "gmm2d"


@pytest.fixture
def digits(trained: Path) -> Path:
    """A finished run of images; not to be changed."""
    return trained / "digits"


@pytest.fixture
def conditional(trained: Path) -> Path:
    """A finished run of images given their label; not to be changed."""
    return trained / "conditional"


@pytest.fixture
def own(gmm2d: Path, tmp_path: Path) -> Path:
    """A finished run of points of one's own, to be changed at will."""
    return Path(shutil.copytree(gmm2d, tmp_path / "own"))

"""The commands and the example of docs/registry.md run as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "registry.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs_as_printed(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", f"{shlex.join(command)} warned: {done.stderr}"

    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            run(str(Path(sys.executable).with_name(program)), *arguments)
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        run(sys.executable, "-W", "error", "-c", code)

"""The commands of docs/runbook.md run as printed, in a folder where there has been an incident."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import Server

from lowerbound.app.cli.main import COMMANDS, GROUPS
from lowerbound.service.monitoring.drill.drill import Plan, run_drill
from lowerbound.service.monitoring.incidents import Incidents
from lowerbound.service.registry.registry import Registry

PAGE = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text(encoding="utf-8")
PLAN = Plan("black", share=0.2, window=200, false_alarms=20.0, ordinary=1, troubled=4)


@pytest.mark.slow
def test_the_page_runs_as_printed(registry: Path, server: Server, tmp_path: Path) -> None:
    place, facts = Path(shutil.copytree(registry, tmp_path / "registry")), tmp_path / "telemetry"
    known = Registry(place)
    drilled = run_drill(known.resolve("digits"), known, facts, PLAN, level=0.02, start=time.time() - 100_000)
    assert drilled.incident is not None
    known.promote("digits", 2)  # so that there is a version to go back from
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "LOWERBOUND_REGISTRY": str(place), "LOWERBOUND_TELEMETRY": str(facts)},
    }
    ran = 0
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            program, *arguments = shlex.split(line.replace("INCIDENT", drilled.incident))
            arguments = [server.url if argument.startswith("http://") else argument for argument in arguments]
            done = subprocess.run(
                [Path(sys.executable).with_name(program), *arguments],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=200,
            )
            assert done.returncode in (0, 1), f"{line}\n{done.stdout}\n{done.stderr}"
            assert done.stderr == "", f"{line}\n{done.stderr}"
            ran += 1
    assert ran > 10
    done_with = Incidents(facts).get(drilled.incident)
    assert {"mitigate", "validate", "monitoring", "closed"} <= {event.step for event in done_with.timeline}
    assert list((tmp_path / "look").glob("*.html"))


def test_the_page_names_commands_that_exist() -> None:
    named = set(re.findall(r"lowerbound (?:monitor |registry )?([a-z-]+)", PAGE))
    subcommands = {
        command.name or command.callback.__name__ for group in GROUPS.values() for command in group.registered_commands
    }
    assert named <= {*COMMANDS, *subcommands, *GROUPS}, named - {*COMMANDS, *subcommands}

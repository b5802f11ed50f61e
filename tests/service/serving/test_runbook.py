"""The commands of docs/runbook.md run as printed, in a folder where there has been an incident."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
from servers import Server

from lowerbound.app.cli.main import COMMANDS, GROUPS, main
from lowerbound.service.monitoring.drill.drill import Plan, run_drill
from lowerbound.service.monitoring.incidents import Incidents
from lowerbound.service.registry.registry import Registry

PAGE = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text(encoding="utf-8")
PLAN = Plan("black", share=0.2, window=200, false_alarms=20.0, ordinary=1, troubled=4)


@pytest.mark.slow
def test_the_page_runs_as_printed(
    registry: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, facts = Path(shutil.copytree(registry, tmp_path / "registry")), tmp_path / "telemetry"
    known = Registry(place)
    drilled = run_drill(known.resolve("digits"), known, facts, PLAN, level=0.02, start=time.time() - 100_000)
    assert drilled.incident is not None
    known.promote("digits", 2)  # so that there is a version to go back from
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOWERBOUND_REGISTRY", str(place))
    monkeypatch.setenv("LOWERBOUND_TELEMETRY", str(facts))
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 10
    for line in lines:
        arguments = shlex.split(line.replace("INCIDENT", drilled.incident))
        monkeypatch.setattr(sys, "argv", [server.url if word.startswith("http://") else word for word in arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code in (None, 0, 1), f"{line}\n{printed}"
        assert printed.err == "", f"{line}\n{printed.err}"
    done = Incidents(facts).get(drilled.incident)
    assert {"mitigate", "validate", "monitoring", "closed"} <= {event.step for event in done.timeline}
    assert list((tmp_path / "look").glob("*.html"))


def test_the_page_names_commands_that_exist() -> None:
    named = set(re.findall(r"lowerbound (?:monitor |registry )?([a-z-]+)", PAGE))
    subcommands = {
        command.name or command.callback.__name__ for group in GROUPS.values() for command in group.registered_commands
    }
    assert named <= {*COMMANDS, *subcommands, *GROUPS}, named - {*COMMANDS, *subcommands}

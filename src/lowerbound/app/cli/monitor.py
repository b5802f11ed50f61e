"""`lowerbound monitor`: what is wrong with models in service: status, drift, incidents, probes, replays, drills"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lowerbound.app.cli.console import Json, print_json, say
from lowerbound.app.cli.registry import Files, Where
from lowerbound.errors import UsageError
from lowerbound.files import write_text

if TYPE_CHECKING:
    from lowerbound.service.monitoring.drill.drill import Outcome, Plan
    from lowerbound.service.monitoring.incidents import Incident
    from lowerbound.service.monitoring.looking.monitor import Monitor, Told
    from lowerbound.service.monitoring.looking.settings import Looking
    from lowerbound.service.monitoring.looking.status import Status
    from lowerbound.service.registry.registry import Registry

Place = Annotated[
    Path | None,
    typer.Option("--telemetry", help="Folder of the facts (default: $LOWERBOUND_TELEMETRY, else telemetry)."),
]
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Since = Annotated[str | None, typer.Option(help="From when on: 2026-11-21T14:30 (UTC), 24h or 7d ago, @SECONDS.")]
Until = Annotated[str, typer.Option(help="Until when, likewise.")]
Window = Annotated[int, typer.Option(min=200, help="Requests of a look.")]
Budget = Annotated[str, typer.Option(help="False alarms a month, of all alerts together.")]
Looks = Annotated[float, typer.Option(min=1.0, help="Looks a month, which share the budget; 720 is one an hour.")]
Alias = Annotated[Literal["stable", "canary", "shadow"], typer.Option("--as", help="Whose requests.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data lie (default: $LOWERBOUND_DATA).")]
Key = Annotated[str | None, typer.Option(help="Of the server, where it needs one.")]
Level = Annotated[float, typer.Option(min=1e-6, max=0.5, help="Of the gate, as `serve --gate-level`.")]

app = typer.Typer(
    help="Watch models in service: status, drift, incidents, probe, samples, replay, drill, page.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Of one model; all by default.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="Of traffic, until now.")] = 24.0,
    telemetry: Place = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Show traffic, errors, latency, gate, drift, canary and incidents of the models."""
    from lowerbound.service.monitoring.looking.status import status

    found = status(_place(telemetry), _open(registry, files), time.time(), name, hours)
    if json_:
        print_json([one.json() for one in found])
        return
    for one in found:
        _describe(one)
    if not found:
        say("no models are registered")


@app.command()
def drift(
    name: Name,
    since: Since = None,
    until: Until = "now",
    window: Window = 1000,
    budget: Budget = "2/month",
    looks: Looks = 720.0,
    alias: Alias = "stable",
    reference: Annotated[
        str,
        typer.Option(
            help="auto: the adopted span, else the rows of the registry or the first requests that are enough; "
            "version: those rows; SINCE/UNTIL: adopt this span of requests as ordinary."
        ),
    ] = "auto",
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Go on: see every so many seconds whether a look is due; keep them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the page and the JSON of the look.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the look, and open an incident for its alerts.")] = False,
    telemetry: Place = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Look whether requests are still what they were. Ends with 1 if they are not."""
    from lowerbound.app.report.drifted import write_drifted
    from lowerbound.service.monitoring.looking.monitor import Monitor
    from lowerbound.service.monitoring.looking.settings import read_moment, read_span

    now = time.time()
    looking = _looking(window, budget, looks, alias, "version" if reference == "version" else "auto")
    monitor = Monitor(_place(telemetry), _open(registry, files), looking, write_drifted)
    if reference not in ("auto", "version"):
        made = monitor.adopt(name, *read_span(reference, now), now=now)
        say(f"{name} is compared with {made.source} from now on") if not json_ else None
    if every is not None:
        _go_on(monitor, name, every)
    told = monitor.look(name, now, 0.0 if since is None else read_moment(since, now), read_moment(until, now))
    told = monitor.keep(told) if keep else told
    if out is not None:
        write_drifted(out / f"{told.id}.html", told)
        write_text(out / f"{told.id}.json", json.dumps(told.json(), indent=2) + "\n")
    print_json(told.json()) if json_ else _tell(told)
    if out is not None and not json_:
        say(f"wrote {out / told.id}.html and .json")
    raise typer.Exit(1 if told.look.alerts else 0)


@app.command()
def incidents(
    id: Annotated[str | None, typer.Argument(help="Of one incident; all by default.")] = None,
    close: Annotated[bool, typer.Option("--close", help="End it.")] = False,
    note: Annotated[
        Literal["mitigate", "investigate", "fix", "validate", "monitoring"] | None,
        typer.Option(help="Add a step to its timeline, in the words of --why."),
    ] = None,
    why: Annotated[str, typer.Option(help="What was done, or why it ends.")] = "",
    validate: Annotated[
        int | None, typer.Option(help="Number of a version: does it mend this, on old rows and on new ones?")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Closed ones as well.")] = False,
    telemetry: Place = None,
    data_dir: DataDir = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """List incidents, show one, add to its timeline, or close it. Ends with 1 if --validate finds it is not mended."""
    from lowerbound.service.monitoring.incidents import Incidents
    from lowerbound.service.monitoring.looking.validate import validate_incident

    place = _place(telemetry)
    store = Incidents(place)
    if id is None:
        if close or note or why or validate is not None:
            raise UsageError("no incident was named; give its id, which `lowerbound monitor incidents` lists.")
        found = [one for one in store.all() if all_ or one.open]
        if json_:
            print_json([one.json() for one in found])
            return
        for one in found:
            say(_line(one))
        say("" if found else "no incidents" + ("" if all_ else " are open"))
        return
    mended = True
    if validate is not None:
        known = _open(registry, files)
        one = store.get(id)
        checked = validate_incident(one, known.resolve(f"{one.model}:{validate}"), known, place, data_dir)
        store.note(id, "validate", checked.said(), time.time())
        mended = checked.mended
    if note is not None:
        store.note(id, note, why, time.time())
    if close:
        store.close(id, why, time.time())
    one = store.get(id)
    print_json(one.json()) if json_ else _show(one)
    raise typer.Exit(0 if mended else 1)


@app.command()
def probe(
    name: Name,
    server: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    key: Key = None,
    every: Annotated[float | None, typer.Option(min=0.1, help="Go on, every so many seconds.")] = None,
    telemetry: Place = None,
    data_dir: DataDir = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Send rows with known answers to a live server. Ends with 1 if it answers otherwise than its weights do."""
    from lowerbound.service.monitoring.looking.probes import probe, raise_fault

    place, known = _place(telemetry), _open(registry, files)
    while True:
        found = probe(server, name, known, place, key=key, data_dir=data_dir)
        incident = raise_fault(found, name.partition("@")[0], place, time.time())
        if json_:
            print_json({**found.json(), "incident": incident.id if incident else None})
        else:
            said = found.fault or f"all as its weights say, within {found.largest:.1g} of an answer's size"
            say(f"{found.probes} probes of {found.version}: {said}")
            say(f"serving-fault: incident {incident.id}; see docs/runbook.md#serving-fault") if incident else None
        if every is None:
            raise typer.Exit(1 if found.fault else 0)
        time.sleep(every)


@app.command()
def samples(
    name: Name,
    features: Annotated[
        str, typer.Option(help="raw values, own codes of the frozen version, or a file of a network.")
    ] = "own",
    rows: Annotated[int, typer.Option(min=50, help="That are made, and real ones.")] = 10_000,
    points: Annotated[
        float | None, typer.Option(min=0.0, help="By which the Fréchet distance may grow (default: 5, or a tenth).")
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Compare with this version from now on.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of what is made (default: another one for each look).")] = None,
    alias: Alias = "stable",
    blind: Annotated[
        Path | None, typer.Option(help="Also write a page on which people judge pairs, .html, and not know whose.")
    ] = None,
    telemetry: Place = None,
    data_dir: DataDir = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Look whether what a version makes moved away from real rows. Ends with 1 if it did."""
    from lowerbound.app.report.blind import write_blind
    from lowerbound.service.monitoring.looking.samples import keep_sampled, look_at_samples

    place, known = _place(telemetry), _open(registry, files)
    version = known.resolve(f"{name}@{alias}")
    found = look_at_samples(
        version,
        known,
        place,
        features=features,
        rows=rows,
        points=points,
        freeze=freeze,
        seed=int(time.time()) if seed is None else seed,
        data_dir=data_dir,
    )
    incident = keep_sampled(found, version, place)
    if blind is not None:
        write_blind(blind, known.resolve(f"{name}:{found.frozen}"), version)
    if json_:
        print_json({**found.json(), "incident": incident.id if incident else None})
    else:
        say(found.said())
        say(f"drift-samples: incident {incident.id}; see docs/runbook.md#drift-samples") if incident else None
        say(f"wrote {blind}") if blind is not None else None
    raise typer.Exit(1 if found.verdict.alarm else 0)


@app.command()
def replay(
    name: Name,
    version: Annotated[int, typer.Option(help="Number of the version that the requests go through.")],
    since: Since = "24h",
    until: Until = "now",
    window: Window = 1000,
    budget: Budget = "2/month",
    looks: Looks = 720.0,
    gate_level: Level = 0.001,
    telemetry: Place = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Would a version have alarmed? Look at any span of requests as if it had served. Ends with 1 if it would have."""
    from lowerbound.service.monitoring.looking.baseline import moment
    from lowerbound.service.monitoring.looking.replay import replay
    from lowerbound.service.monitoring.looking.settings import read_moment

    known, now = _open(registry, files), time.time()
    start, end = read_moment(since or "24h", now), read_moment(until, now)
    looking = _looking(window, budget, looks, "stable", "auto")
    chosen = known.resolve(f"{name}:{version}")
    found = replay(chosen, known, _place(telemetry), looking, start, end, level=gate_level)
    if json_:
        print_json(found.json())
    else:
        say(f"{found.requests:,} requests through {found.version} by {found.through}: {len(found.looks)} looks")
        for look in found.looks:
            say(
                f"  {moment(look.since)} to {moment(look.until)}  {', '.join(look.alerts) or 'no alert'}: {look.said()}"
            )
        say(f"{len(found.alarms)} of {len(found.looks)} looks would have alarmed")
    raise typer.Exit(1 if found.alarms else 0)


@app.command()
def drill(
    target: Annotated[str, typer.Argument(help="NAME, NAME:3, or the folder of a finished run.")],
    inject: Annotated[
        Literal["brightness", "blur", "corruption", "pipeline-bug", "black", "new-class"],
        typer.Option(help="The trouble to plant."),
    ],
    share: Annotated[float | None, typer.Option(help="Of the requests (default: that of the trouble).")] = None,
    severity: Annotated[float, typer.Option(help="Above 0, at most 1.")] = 0.5,
    hold_back: Annotated[int | None, typer.Option(help="Label that ordinary traffic lacks, for new-class.")] = None,
    window: Window = 400,
    budget: Budget = "2/month",
    seed: Annotated[int, typer.Option(help="Of the traffic.")] = 0,
    server: Annotated[str | None, typer.Option(help="Play it to a live server instead of in this process.")] = None,
    key: Key = None,
    gate_level: Level = 0.001,
    out: Annotated[Path | None, typer.Option(help="Empty folder for facts, pages and figures.")] = None,
    data_dir: DataDir = None,
    registry: Where = None,
    files: Files = None,
    json_: Json = False,
) -> None:
    """Plant trouble into ordinary traffic and measure how soon it is seen. Ends with 1 if it is not."""
    from lowerbound.service.monitoring.drill.drill import Plan
    from lowerbound.service.monitoring.looking.settings import read_budget

    plan = Plan(inject, share, severity, hold_back, window, read_budget(budget), seed=seed)
    with tempfile.TemporaryDirectory() as spare:
        place = out or Path(spare) / "drill"
        outcome = _drilled(target, plan, place, registry, files, data_dir, gate_level, server, key, json_)
        if out is not None:
            write_text(out / "drill.json", json.dumps(outcome.json(), indent=2) + "\n")
    print_json(outcome.json()) if json_ else _outcome(outcome, out)
    raise typer.Exit(0 if outcome.detected is not None else 1)


def _drilled(
    target: str,
    plan: Plan,
    place: Path,
    registry: str | None,
    files: Path | None,
    data_dir: Path | None,
    level: float,
    server: str | None,
    key: str | None,
    quiet: bool,
) -> Outcome:
    from lowerbound.app.report.drifted import write_drifted
    from lowerbound.service.monitoring.drill.drill import run_drill
    from lowerbound.service.monitoring.drill.remote import Remote
    from lowerbound.service.registry.registry import Registry

    known = _open(registry, files)
    if Path(target).is_dir():
        known = Registry(place / "registry")
        version = known.add(target, "drilled", why="a drill", data_dir=data_dir)
        known.promote("drilled", version.number)
    else:
        version = known.resolve(target)
    remote = None if server is None else Remote(server, version, key)
    try:
        return run_drill(
            version,
            known,
            place / "telemetry",
            plan,
            play=remote,
            data_dir=data_dir,
            level=level,
            report=write_drifted,
            tell=(lambda _: None) if quiet else say,
        )
    finally:
        if remote is not None:
            remote.close()


@app.command()
def page(
    out: Annotated[Path, typer.Option(help="File to write, .html.")],
    name: Annotated[str | None, typer.Argument(help="Of one model; the first of the registry by default.")] = None,
    hours: Annotated[int, typer.Option(help="Until now: 1, 6, 24 or 168.")] = 24,
    telemetry: Place = None,
    registry: Where = None,
    files: Files = None,
) -> None:
    """Write the dashboard as one file, as it is now."""
    from lowerbound.app.web.snapshot import write_snapshot

    say(f"wrote {write_snapshot(_place(telemetry), _open(registry, files), out, name=name, hours=hours)}")


def _place(telemetry: Path | None) -> Path:
    from lowerbound.service.monitoring.telemetry.database import place_of

    return place_of(telemetry)


def _open(registry: str | None, files: Path | None) -> Registry:
    from lowerbound.service.registry.registry import Registry

    return Registry(registry, files)


def _looking(window: int, budget: str, looks: float, alias: str, reference: Literal["auto", "version"]) -> Looking:
    from lowerbound.service.monitoring.looking.settings import Looking, read_budget

    return Looking(window, read_budget(budget), looks, alias, reference)


def _go_on(monitor: Monitor, name: str, every: float) -> None:
    """Look when a look is due, until the process is ended."""
    from lowerbound.errors import TooFewError

    said = ""
    while True:
        try:
            for told in monitor.step([name], time.time()):
                _tell(told)
        except TooFewError as error:  # requests are still coming
            if str(error) != said:
                said = str(error)
                say(f"waiting: {said}")
        time.sleep(every)


def _tell(told: Told) -> None:
    look = told.look
    verdict = "DRIFT" if look.drift else "UNUSUAL REQUESTS" if look.alerts else "nothing unusual"
    say(f"{told.model}:{told.version.number}  {verdict}: {look.requests:,} requests beside {look.baseline}")
    for verdict_ in look.verdicts:
        found = ", ".join(f"{finding.label} {finding.effect:+.3g}" for finding in verdict_.findings[:4])
        say(f"  {verdict_.detector:<22} {'drift' if verdict_.alarm else 'none':<6} p {verdict_.p_value:<8.2g} {found}")
    for sign in look.signs:
        if sign.alarm:
            say(f"  {sign.name:<28} {sign.share:.2%} of the requests, {sign.expected:.2%} ordinarily")
    for what, why in look.skipped.items():
        say(f"  not asked: {what}: {why}")
    if told.explanation is not None:
        say(f"  {told.explanation.said()}")
    for name in look.alerts:
        say(f"  {name}: see docs/runbook.md#{name}")
    if told.incident is not None:
        say(f"  incident {told.incident.id}")
    say(f"  certified: {look.certificate}")


def _describe(one: Status) -> None:
    aliases = ", ".join(f"{alias} {number}" for alias, number in one.aliases.items()) or "nothing serves"
    say(f"{one.model}  ({aliases})")
    latency = "no answers" if one.p50_ms is None else f"p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms"
    say(f"  traffic    {one.requests:,} requests in {one.hours:g} h, {one.failed:.2%} failed, {latency}")
    say(f"  gate       refused {one.refused:.2%}")
    drift: dict[str, Any] = one.drift or {}
    alerts = ", ".join(drift.get("alerts") or ()) or "nothing unusual"
    seen = f"{_ago(drift['time'])}: {alerts}" if one.drift else "never looked"
    say(f"  drift      {seen}")
    if one.canary is not None:
        say(f"  canary     {one.canary['version']}: {one.canary['action']}, {one.canary['reason']}")
    say(f"  incidents  {', '.join(one.incidents) or 'none open'}")


def _ago(at: float) -> str:
    seconds = max(0.0, time.time() - at)
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"


def _line(one: Incident) -> str:
    state = "open" if one.open else "closed"
    causes = ", ".join(f"{cause.name} {cause.share:.1%}" for cause in one.causes)
    return f"{one.id}  {state}  {', '.join(one.alerts)}" + (f"  ({causes})" if causes else "")


def _show(one: Incident) -> None:
    from lowerbound.service.monitoring.looking.baseline import moment

    say(_line(one))
    for cause in one.causes:
        say(f"  {cause.name}: {cause.share:.1%} ± {cause.stderr:.1%}")
    for event in one.timeline:
        say(f"  {moment(event.time)}  {event.step:<11} {event.text}")
    for report in one.reports:
        say(f"  report {report}")
    for name in one.alerts:
        say(f"  {name}: see docs/runbook.md#{name}")


def _outcome(outcome: Outcome, out: Path | None) -> None:
    plan = outcome.plan
    say(f"{plan.trouble} in {outcome.planted:.1%} of the requests to {outcome.version}, seed {plan.seed}")
    say(f"  baseline         {outcome.baseline:,} requests")
    say(f"  false alarms     {outcome.false_alarms} of {outcome.ordinary_looks} ordinary looks")
    if outcome.detected is None:
        say("  detected         never")
    else:
        say(f"  detected         after {outcome.detected:,} requests, at the end of a look of {plan.window:,}")
    for name, requests in outcome.first.items():
        say(f"    {name:<18} {requests:,}")
    for name, part in outcome.causes.items():
        say(f"  cause            {name}: {part:.1%}")
    if outcome.named is not None:
        say(f"  examples         {outcome.named:.0%} of the requests shown for it had been planted")
    if out is not None:
        say(f"  incident         {outcome.incident}; all is in {out}")

"""`lowerbound serve` and `lowerbound serve-key`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lowerbound.app.cli.console import say
from lowerbound.extras import need


def serve(
    names: Annotated[list[str], typer.Argument(help="What to serve: NAME (stable), NAME:3, NAME@canary.")],
    registry: Annotated[
        str | None,
        typer.Option(help="Folder or address of the registry (default: $LOWERBOUND_REGISTRY, else registry)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address; any but this machine's needs --keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    engine: Annotated[
        Literal["auto", "onnx", "torch"], typer.Option(help="auto: onnxruntime where its files are proven.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Of one computation; 0 shares the cores among workers.")] = 0,
    keys: Annotated[Path | None, typer.Option(help="File of keys, made by serve-key.")] = None,
    telemetry: Annotated[
        Path | None, typer.Option(help="Folder for facts of requests (default: $LOWERBOUND_TELEMETRY, else telemetry).")
    ] = None,
    no_telemetry: Annotated[
        bool, typer.Option("--no-telemetry", help="Keep no facts; no candidate is judged.")
    ] = False,
    privacy: Annotated[
        Literal["none", "hash", "code", "sample"],
        typer.Option(help="Kept of inputs: nothing, digests, also codes, also some inputs themselves."),
    ] = "code",
    sample_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of requests whose inputs are kept with --privacy sample.")
    ] = 0.01,
    otlp: Annotated[
        str, typer.Option(help="Address of a collector of OpenTelemetry, such as http://127.0.0.1:4318.")
    ] = "",
    canary_share: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Of the clients that a canary answers.")
    ] = 0.05,
    canary_hours: Annotated[float, typer.Option(min=0.0, help="Before which no canary is promoted.")] = 24.0,
    canary_margin: Annotated[
        float, typer.Option(min=1e-4, max=0.4, help="By which its error may be larger, relative.")
    ] = 0.02,
    canary_judgement: Annotated[
        Literal["anytime-valid", "naive"],
        typer.Option(help="naive compares means, and promises nothing."),
    ] = "anytime-valid",
    canary_frechet: Annotated[
        bool, typer.Option("--canary-frechet", help="Judge Fréchet distances, too, from `lowerbound canary --look`.")
    ] = False,
    shadow_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the requests that a shadow scores too, in idle moments.")
    ] = 1.0,
    encode_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of `encode` that is scored too, in idle moments.")
    ] = 0.0,
    gate_level: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of ordinary rows that each check may refuse.")
    ] = 0.001,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows of one batch, at most.")] = 64,
    waiting_rows: Annotated[int, typer.Option(min=1, help="Rows that may wait, at most.")] = 2048,
    deadline: Annotated[float, typer.Option(min=0.01, help="Seconds for an answer.")] = 10.0,
    body_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a body to come whole.")] = 10.0,
    p99_limit: Annotated[float, typer.Option(min=0.001, help="Seconds; a 99th percentile above it alerts.")] = 0.05,
) -> None:
    """Serve registered versions over HTTP until SIGTERM, which finishes what was begun."""
    need("uvicorn", "serve", "The server")
    from lowerbound.service.monitoring.telemetry.database import place_of
    from lowerbound.service.monitoring.verdicts.rules import Rules
    from lowerbound.service.serving.logs import log_lines
    from lowerbound.service.serving.options import Options
    from lowerbound.service.serving.supervisor import Supervisor

    options = Options(
        names=tuple(names),
        registry=registry or "",
        host=host,
        port=port,
        workers=workers,
        engine=engine,
        threads=threads,
        keys="" if keys is None else str(keys),
        telemetry="" if no_telemetry else str(place_of(telemetry)),
        otlp=otlp,
        privacy=privacy,
        sample_share=sample_share,
        rules=Rules(
            share=canary_share,
            soak_s=3600 * canary_hours,
            margin=canary_margin,
            metrics=("error", "far_worse", "frechet") if canary_frechet else ("error", "far_worse"),
            judgement=canary_judgement,
        ),
        shadow_share=shadow_share,
        encode_share=encode_share,
        gate_level=gate_level,
        batch_rows=batch_rows,
        waiting_rows=waiting_rows,
        deadline_s=deadline,
        body_s=body_timeout,
        p99_s=p99_limit,
        pages="lowerbound.app.web.pages:pages",
    )
    log_lines("supervisor")
    if keys is None:
        say("no keys are given, so only this machine can reach the server")
    raise SystemExit(Supervisor(options, lambda address: say(f"serving {', '.join(names)} on {address}")).run())


def serve_key(
    file: Annotated[Path, typer.Argument(help="File of keys; it holds hashes only.")],
    name: Annotated[str, typer.Argument(help="Of the key: letters and digits.")],
    role: Annotated[
        Literal["use", "operate"], typer.Option(help="use: the verbs; operate: metrics and incidents as well.")
    ] = "use",
    per_second: Annotated[float, typer.Option(min=0.0, help="Requests per second; 0: any number.")] = 0.0,
) -> None:
    """Make a key for a server; it is printed once and kept nowhere."""
    from lowerbound.service.serving.keys import make_key

    print(make_key(file, name, role, per_second))  # noqa: T201

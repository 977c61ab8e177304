"""``semiflow serve``: a live deployment until it is interrupted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.simulate import Force

if TYPE_CHECKING:
    from experiments.config import RunConfig
    from reference_impl.serve.launch import Running

_LOOK_S = 3600.0
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep the run here: configuration, manifest, events, requests, metrics."),
]


def serve(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A run's configuration, see section serve.")],
    out: Out = None,
    force: Force = False,
    port: Annotated[int | None, typer.Option(help="In place of serve.port.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is wrong with the configuration.")] = False,
) -> None:
    """Serve a model to OpenAI clients on this host, with the policies of the configuration, until Ctrl-C or SIGTERM.

    Example: semiflow serve experiments/configs/live.yaml --out runs/live
    """
    from experiments.serve import check as checked
    from experiments.serve import live_deployment

    described = _configured(config, port)
    if check:
        checked(described)
        typer.echo(f"{config}: good to serve")
        return
    with live_deployment(described, out, _say, force=force) as running:
        _introduce(running)
        try:
            while True:
                running.wait(_LOOK_S)
        except KeyboardInterrupt:
            _say("stopping")
    typer.echo(f"run: {out}" if out is not None else "not kept (no --out)")


def _configured(path: Path, port: int | None) -> RunConfig:
    from experiments.config import RunConfig
    from experiments.config_file import parse, read_mapping

    content = read_mapping(path)
    if port is not None:
        content["serve"] = {**(content.get("serve") or {}), "port": port}
    return parse(RunConfig, content, source=str(path))


def _introduce(running: Running) -> None:
    model = running.spec.http.model
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], "stream": True})
    key = " -H 'Authorization: Bearer YOUR_KEY'" if running.spec.http.keys_file is not None else ""
    typer.echo(f"serving {model} at {running.url}/v1, ready after {running.ready_s:.1f} s; Ctrl-C stops it")
    typer.echo(f"curl -N {running.url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'")
    if running.spec.front_doors > 1:
        last = running.spec.port + running.spec.front_doors
        typer.echo(f"each front door alone (/metrics, /v1/jobs): ports {running.spec.port + 1} to {last}")
    if running.dashboard_url is not None:
        typer.echo(f"Ray's dashboard: {running.dashboard_url}")
    sys.stdout.flush()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

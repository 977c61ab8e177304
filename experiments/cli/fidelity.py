"""``semiflow profile`` and ``semiflow fidelity``: what this machine takes, and whether the simulator is true to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.progress import progress
from experiments.config_base import ConfigError
from experiments.run_folder import check_can_hold

if TYPE_CHECKING:
    from experiments.config import RunConfig

GATE_FAILED = 1
_BENCHMARK = Path(__file__).parents[1] / "configs" / "fidelity.yaml"
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def profile(
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Where the profile goes.")],
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="A run's configuration with a serve section: its fleet.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A bundled model or a folder, in place of fleet.model.")] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="In place of serve.device.")] = None,
    cpu_share: Annotated[float | None, typer.Option(help="In place of serve.cpu_share.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each worker runs every shape.", min=1, max=100)] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A third of the shapes.")] = False,
    live_run: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A live run of the same fleet: its iterations and delays are added; repeatable."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure an engine's iterations and fit the cost model that the simulator takes as fleet.hardware_profile.

    Prompts, decodes and mixtures of many sizes, on all workers of the fleet at once, with their share of a core and on
    their cores. An interrupted profile goes on where it was. Example: semiflow profile --model tiny --out tiny.json
    """
    from experiments.profiling.run import add_live_runs, profile_engine

    described = _described(config, model, device, cpu_share)
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file in it, such as {out / 'profile.json'}")
    check_can_hold(out.parent, told=out)
    with progress("profiling") as report:
        content = profile_engine(described, out, rounds=rounds, quick=quick, progress=report)
    if live_run:
        content = add_live_runs(described, out, live_run)
    typer.echo(json.dumps(content, indent=2) if json_ else _profile_text(content, out))


def fidelity(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Base run, traces, policies, repeats.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Profile, runs, fidelity.json, fidelity.html.")],
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="A profile of this machine; else one is made.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Of the profile that is made.", min=1, max=100)] = 3,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 unless every bar is reached.")] = False,
    json_: Json = False,
) -> None:
    """Run the same trace and policies live and simulated, and compare: errors, and whether policies keep their order.

    Profiles this machine first. Interrupted, it goes on where it was; live runs of another configuration are made anew.
    """
    from experiments.config_file import load
    from experiments.fidelity.config import FidelityConfig
    from experiments.fidelity.hosts import Deployed
    from experiments.fidelity.page import write_study
    from experiments.fidelity.study import PAGE, run_study
    from experiments.fidelity.table import as_text
    from experiments.preflight import check_out
    from experiments.profiling.run import profile_engine

    def profiler(described: RunConfig, path: Path) -> None:
        with progress("profiling") as report:
            profile_engine(described, path, rounds=rounds, progress=report)

    wanted = load(config, FidelityConfig)
    check_out(out, out / PAGE)
    with Deployed(_log) as host:
        study = run_study(wanted, out, host, profiler, profile=profile, source=str(config), progress=_say)
    write_study(out / PAGE, study)
    typer.echo(json.dumps(study.to_json(), indent=2) if json_ else f"{as_text(study)}\npage: {out / PAGE}")
    if gate and not study.reached:
        raise typer.Exit(GATE_FAILED)


def bench_fidelity(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Profile, runs, fidelity.json, fidelity.html.")] = Path(
        "fidelity"
    ),
    json_: Json = False,
) -> None:
    """`semiflow fidelity` with the configuration that comes with semiflow: four dispatch and three batch policies under
    two traces, two live runs of each, on two cores. 35 minutes; interrupted, it goes on where it was.
    """
    fidelity(_BENCHMARK, out, json_=json_)


def _described(config: Path | None, model: str | None, device: str | None, cpu_share: float | None) -> RunConfig:
    from experiments.config import RunConfig
    from experiments.config_file import parse, read_mapping

    content = read_mapping(config) if config is not None else {}
    fleet, serve = dict(content.get("fleet") or {}), dict(content.get("serve") or {})
    fleet |= {} if model is None else {"model": model}
    if config is None and model is None:
        fleet["model"] = "tiny"
    given = {"device": device, "cpu_share": cpu_share}
    serve |= {key: value for key, value in given.items() if value is not None}
    return parse(RunConfig, {**content, "fleet": {**_FLEET, **fleet}, "serve": serve}, source=str(config or "profile"))


_FLEET: dict[str, Any] = {"kv_blocks": 512, "max_sequences": 32, "max_batch_tokens": 2048}
"""What is profiled where nothing says otherwise."""


def _profile_text(content: dict[str, Any], out: Path) -> str:
    lines = [content["provenance"]]
    for kind, error in content["errors"].items():
        lines.append(
            f"{kind:<8} median error {error['median']:6.1%}, P90 {error['p90']:6.1%}, mean {error['bias']:+6.1%}"
            f" of {error['shapes']} shapes that were not fitted"
        )
    slowest, fastest = max(content["drift"]), min(content["drift"])
    lines.append(f"rounds differed by {slowest / fastest - 1:.1%}: the machine's own speed varied that much")
    if content["live"] is not None:
        for kind, error in content["live"]["errors_unseen"].items():
            alone = content["live"]["errors_of_shapes_alone"][kind]
            lines.append(
                f"{kind:<8} of live runs, unseen: mean {error['bias']:+6.1%} (shapes alone {alone['bias']:+6.1%})"
            )
        lines += [f"{key}: {value:.6g}" for key, value in content["overheads"].items() if value is not None]
    return "\n".join([*lines, f"profile: {out}"])


def _say(done: int, total: int, what: str) -> None:
    print(f"[{done}/{total}] {what}", file=sys.stderr, flush=True)


def _log(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)

"""``semiflow propose``: which fleet for this traffic?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.flags import takes_run_config
from experiments.cli.progress import progress
from experiments.cli.resumable import resumable
from experiments.config import RunConfig
from experiments.config_base import MAX_RATE

if TYPE_CHECKING:
    from experiments.placement.proposal import Proposal, Whole

propose = typer.Typer(help="Propose a fleet for a workload and its targets.", no_args_is_help=True)


@propose.callback()
def _propose() -> None:
    """A callback keeps `distserve` a subcommand of its own."""


@propose.command("distserve")
@takes_run_config
def distserve(
    config: RunConfig,
    devices: Annotated[int, typer.Option(help="Devices that the mix may have.", min=2, max=64)] = 4,
    target: Annotated[float, typer.Option(help="Share of the requests in each target.", min=0.01, max=1.0)] = 0.90,
    tolerance: Annotated[float, typer.Option(help="Width of a rate's bracket, relative.", min=0.001, max=0.5)] = 0.03,
    seeds: Annotated[int, typer.Option(help="Runs per rate, with seeds 0, 1, ...", min=1)] = 1,
    joint: Annotated[bool, typer.Option("--joint", help="The same requests must be in both targets.")] = False,
    max_pp: Annotated[
        int | None,
        typer.Option(help="Stages of an instance; 1: none.", min=1, show_default="--devices"),
    ] = None,
    whole: Annotated[int, typer.Option(help="So many of the best mixes are simulated whole.", min=1)] = 6,
    carry: Annotated[
        float | None, typer.Option(metavar="RPS", help="Also: what carries this rate.", min=0.001, max=MAX_RATE)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep proposal.json and mix.yaml, for `simulate --config`.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """DistServe's placement search: tensor and pipeline parallelism, and number of prefill and decode instances.

    Finds each phase's goodput alone for every parallelism, ranks the mixes by rate per device, simulates the best of
    them whole beside colocated instances. The fleet's --instances, --tp and --pp are searched, so leave them out.
    Interrupted, the same command goes on where it was.

    Example: semiflow propose distserve --model opt-13b --hardware-profile distserve-a100 --devices 4
    --trace bundled:distserve-sharegpt-like --max-total-tokens 2047 --max-requests 1000 --slo ttft=0.2,tpot=0.1
    """
    from experiments.placement.keep import keep
    from experiments.placement.proposal import Search
    from experiments.placement.proposal import propose as search_for
    from experiments.run_folder import check_free

    if out is not None:
        check_free(out)
    search = Search(devices, target, tolerance, range(seeds), joint, max_pp, whole, carry)
    with resumable(_runs_beside(out)) as answers:
        with progress("searching") as report:
            shown = None if report is None else lambda runs, label: report(runs, 0, f"{label}, run {runs}")
            found = search_for(config, search, shown, answers)
        if out is not None:
            keep(found, config, search, out)
    typer.echo(json.dumps(found.to_json(), indent=2) if json_ else as_text(found))
    if out is not None:
        typer.echo(f"kept: {out}; semiflow simulate --config {out / 'mix.yaml'}", err=True)


def _runs_beside(out: Path | None) -> Path | None:
    """Beside ``out``, or in the current folder if that can be written to."""
    if out is not None:
        return out.with_name(f".{out.name}.runs")
    return Path(".propose-distserve.runs") if os.access(".", os.W_OK) else None


def as_text(found: Proposal) -> str:
    """Phases alone, mixes and baselines, as tables."""
    lines = ["each phase alone, requests/s (per device):"]
    for name, goodputs in (("prefill", found.prefill_rps), ("decode", found.decode_rps)):
        lines += [f"  {name:<8} {each!s:<11} {rps:>9.3f} {rps / each.devices:>9.3f}" for each, rps in goodputs.items()]
    lines += [f"  {each}: {reason}" for each, reason in found.impossible.items()]
    lines += ["whole, requests/s at which the targets are met:"]
    lines += [f"  {'':<44} {'devices':>7} {'rate':>8} {'/device':>8} {'predicted':>9} {'met both':>8}"]
    lines += [_line(whole) for _, whole in found.mixes]
    lines += [_line(whole) for _, whole in found.colocated]
    best = found.mixes[0][1]
    lines += [f"best mix: {best.name}: {best.rps_per_device:.3f} requests/s per device"]
    if found.replicated is not None:
        lines += [f"to carry the rate: {found.replicated}, {found.replicated.devices} devices"]
    return "\n".join([*lines, *found.caveats])


def _line(whole: Whole) -> str:
    predicted = f"{whole.predicted_rps:>9.3f}" if whole.predicted_rps is not None else f"{'-':>9}"
    return (
        f"  {whole.name:<44} {whole.devices:>7} {whole.rps:>8.3f} {whole.rps_per_device:>8.3f} {predicted}"
        f" {whole.met_both:>8.3f}"
    )

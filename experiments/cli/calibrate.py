"""``semiflow calibrate``: from a measured profile to coefficients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.out_file import check_new

if TYPE_CHECKING:
    from experiments.calibration import Calibration

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def calibrate(
    profile: Annotated[
        Path,
        typer.Argument(
            metavar="PROFILE",
            help="A folder of operator tables, a folder in LLMServingSim's format, or a file of semiflow profile.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Where the coefficients go; a --hardware-profile.")],
    system: Annotated[str | None, typer.Option(help="Of operator tables: a100_sxm, h100_sxm or h200_sxm.")] = None,
    tp: Annotated[int, typer.Option(help="Degree at which an LLMServingSim profile was measured.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Draws the rows that are kept aside.", min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json_: Json = False,
) -> None:
    """Fit a cost model to a measured profile and state its error on rows kept aside.

    Refuses rows that do not determine the coefficients, and says what is missing. Example (the shipped h100):
    semiflow calibrate $SEMIFLOW_CALIBRATION --system h100_sxm --out h100.json
    """
    from experiments.calibration import calibrate as fit
    from experiments.calibration import write_coefficients

    check_new("--out", out, (".json",), force)
    found = fit(profile, system=system, tp=tp, seed=seed)
    write_coefficients(out, found)
    config = {"profile": str(profile), "out": str(out), "system": system, "tp": tp, "seed": seed}
    typer.echo(json.dumps(_summary(found, config), indent=2) if json_ else _text(found, out))


def _summary(found: Calibration, config: dict[str, Any]) -> dict[str, Any]:
    from experiments.calibration.result import told
    from experiments.manifest import environment

    return {
        "config": config,
        "environment": environment(),
        "source": found.content.get("source") or found.content["provenance"],
        "inputs_sha256": found.inputs,
        "kept_aside": found.rule,
        "errors": told(found.errors),
    }


def _text(found: Calibration, out: Path) -> str:
    lines = [
        f"{name:<30} median error {error.median:6.1%}, P90 {error.p90:6.1%}, mean {error.bias:+6.1%} "
        f"of {error.rows} rows in {error.groups} groups kept aside"
        for name, error in found.errors.items()
    ]
    return "\n".join([*lines, f"coefficients: {out}"])

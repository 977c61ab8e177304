"""The decisions of a run: recorded while it runs, decided again afterwards by fresh policies of the same seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.run_folder import DECISIONS

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec
    from reference_impl.recording import Replayed

Recorded = Literal["none", "dispatch", "all"]
"""Whose decisions; ``all``: those of the batch policies too, which costs time for every sequence of a lane."""


class ReplayedFile(NamedTuple):
    """One recording, decided again."""

    path: Path
    policies: list[Replayed]


@contextlib.contextmanager
def recording(cluster: ClusterSpec, config: RunConfig, folder: Path, which: Recorded) -> Iterator[ClusterSpec]:
    """The same cluster, built from ``config``, its policies recorded into a file in ``folder``.

    Raises OSError at the end if the file could not be written.
    """
    if which == "none":
        yield cluster
        return
    from reference_impl.core.seeds import executor_seed
    from reference_impl.recording import Recorder

    recorder = Recorder(folder / "decisions.jsonl")
    instances = cluster.instances
    if which == "all":
        instances = tuple(replace(spec, batch=recorder.batch(spec.batch)) for spec in instances)
    dispatch, *others = (
        recorder.dispatch(policy, config.policies.dispatch, executor_seed(config.seed, number))
        for number, policy in enumerate((cluster.dispatch, *cluster.other_executors))
    )
    try:
        yield replace(cluster, dispatch=dispatch, other_executors=tuple(others), instances=instances)
    finally:
        recorder.close()
    if recorder.error is not None:
        raise recorder.error


def replay_run(run: Path) -> list[ReplayedFile]:
    """Decide again what the recordings of a run's folder hold (or the one recording that ``run`` is).

    Raises ConfigError where there is none.
    """
    from reference_impl.recording import replay

    files = sorted(run.glob(DECISIONS)) if run.is_dir() else [run]
    if not files:
        raise ConfigError(
            f"{run}: holds no {DECISIONS}; record a run with `semiflow simulate --record-decisions all --out {run}`,"
            " or live with serve.record.decisions"
        )
    replayed = [ReplayedFile(path, replay(path)) for path in files]
    if not any(file.policies for file in replayed):
        raise ConfigError(f"{run}: holds no recorded decision; name a run's folder or one of its {DECISIONS}")
    return replayed


def as_text(files: list[ReplayedFile]) -> str:
    """Per policy how many decisions were compared, and the first difference with both decisions."""
    lines = []
    for path, policies in files:
        for found in policies:
            said = "the same" if found.difference is None else "DIFFERENT"
            lines.append(
                f"{path.name}: {found.kind} {found.spec}, seed {found.seed}: {found.decisions} decisions, {said}"
            )
            if found.difference is not None:
                line, asked, before, now = found.difference
                lines += [f"  line {line}: {asked}", f"  recorded: {before}", f"  decided:  {now}"]
    decisions = sum(found.decisions for _, policies in files for found in policies)
    different = sum(found.difference is not None for _, policies in files for found in policies)
    lines.append(f"{decisions} decisions of {sum(len(policies) for _, policies in files)} policies; {different} differ")
    return "\n".join(lines)


def any_differs(files: list[ReplayedFile]) -> bool:
    """Whether a fresh policy decided otherwise anywhere."""
    return any(found.difference is not None for _, policies in files for found in policies)


def as_json(files: list[ReplayedFile]) -> list[dict[str, Any]]:
    """Ready for ``json.dumps``: one entry per policy object."""
    return [
        {
            "file": str(path),
            "kind": found.kind,
            "policy": found.spec,
            "seed": found.seed,
            "decisions": found.decisions,
            "difference": found.difference._asdict() if found.difference is not None else None,
        }
        for path, policies in files
        for found in policies
    ]

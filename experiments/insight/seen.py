"""What the policies saw of one request: heard in a second simulation of a simulated run, or read from recordings."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING

from experiments.insight.again import Again, same_events
from experiments.insight.forced import Decision, accompanied, in_every_executor
from experiments.insight.saved_run import SavedRun
from experiments.run import Progress
from experiments.run_folder import DECISIONS
from policies.dispatch.prefix_index import PrefixIndex

if TYPE_CHECKING:
    from policies.api import ClusterView, DispatchPolicy, RequestView
    from reference_impl.core.spec import ClusterSpec
    from reference_impl.metrics import RunLog
    from reference_impl.recording.hearing import Asked, Planned


@dataclass(frozen=True)
class Seen:
    """What is known of the decisions about a request, and what is not."""

    asked: list[Asked] = field(default_factory=list)
    plans: list[Planned] = field(default_factory=list)
    prefix_hits: list[dict[int, int]] = field(default_factory=list)
    """Per entry of ``asked``: prompt tokens that the policy's own index holds for cached, by instance. Or empty."""
    notes: list[str] = field(default_factory=list)
    other: RunLog | None = None
    """The run simulated again, where its events are not the saved ones."""


def seen_again(saved: SavedRun, again: Again, request: int, progress: Progress | None = None) -> Seen:
    """Simulate the run again with an eye on the request."""
    from reference_impl.recording.hearing import Heard

    heard, hits = Heard(request), _Hits(request)

    def watched(cluster: ClusterSpec) -> ClusterSpec:
        instances = tuple(replace(spec, batch=heard.batch_policies(spec.batch)) for spec in cluster.instances)
        watched_by = in_every_executor(cluster, lambda policy: heard.dispatch_policy(accompanied(policy, hits)))
        return replace(watched_by, instances=instances)

    log = again.run(watched, progress)
    if same_events(saved.events, again.events):
        return Seen(heard.asked, heard.plans, hits.found)
    version = saved.manifest.get("git_commit", saved.manifest.get("semiflow", "another version"))
    note = (
        f"simulated again, this run has other events than the saved ones (of {version}): what the policies saw, and the"
        " counterfactual, are those of the new run"
    )
    return Seen(heard.asked, [], hits.found, [note], log)


def seen_in_recordings(saved: SavedRun, request: int) -> Seen:
    """Read the decisions that the run recorded, if it did. Raises RecordingError."""
    from reference_impl.recording.hearing import listen

    if saved.host == "replay":
        return Seen(notes=["what the policies saw is not known: a client sees no decisions"])
    files = sorted(saved.folder.glob(DECISIONS))
    if not files:
        return Seen(
            notes=[f"what the policies saw is not known: the run holds no {DECISIONS} (serve.record.decisions)"]
        )
    heard = [listen(path, request) for path in files]
    asked = sorted((entry for part in heard for entry in part.asked), key=lambda entry: entry.now_s)
    plans = sorted((entry for part in heard for entry in part.plans), key=lambda entry: entry.from_s)
    return Seen(asked, plans, notes=[] if asked else [f"no recorded decision is about request {request}"])


@dataclass
class _Hits:
    """Before each decision about the request it looks into a copy of the policy's prefix index."""

    request_id: int
    found: list[dict[int, int]] = field(default_factory=list)

    def __call__(self, policy: DispatchPolicy, request: RequestView, cluster: ClusterView) -> Decision:
        if request.request_id == self.request_id:
            self.found.append(self._hits(policy, request, cluster.now_s))
        return policy.dispatch(request, cluster)

    def _hits(self, policy: DispatchPolicy, request: RequestView, now_s: float) -> dict[int, int]:
        return {
            instance_id: min(ids * request.prefix_block_tokens, request.prompt_tokens)
            for index in _indexes(policy)
            for instance_id, ids in copy.deepcopy(index).matches(request.prefix_ids, now_s).items()
        }


def _indexes(policy: object) -> Iterator[PrefixIndex]:
    """Those that the policy keeps, or policies that it is made of."""
    for part in vars(policy).values():
        if isinstance(part, PrefixIndex):
            yield part
        elif is_dataclass(part) and not isinstance(part, type):
            yield from _indexes(part)

"""Compute shares of semi-PD instances in virtual time: windows, decisions, switches, progress rates."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from policies.api import Partition, PartitionPolicy, PartitionView, PolicyError
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.core.seeds import policy_seed
from reference_impl.simulator.beside import sync_rates
from reference_impl.simulator.order import TICKS

if TYPE_CHECKING:
    from reference_impl.simulator.run import LaneRun
    from reference_impl.simulator.simulation import Simulation


class Partitioner:
    """The partition policies of all semi-PD instances."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._windows: dict[int, _Window] = {}

    def open(self, instance: Instance, now_s: float) -> None:
        """A semi-PD instance is ready: set its initial shares and its windows going."""
        factory = instance.spec.partition
        if instance.spec.role != "semi_pd" or factory is None:
            return
        policy = factory(policy_seed(self._sim.spec.seed, instance.instance_id, 8))
        window = _Window(policy, instance, self._sim.runs[instance.instance_id], now_s)
        self._windows[instance.instance_id] = window
        shares = _checked(policy, policy.initial())
        window.shares = shares
        for run, pct in zip(window.runs, shares, strict=True):
            run.pct = pct
        self._log(window, now_s, "initial shares")
        if policy.window_s is not None:
            _check_window(policy)
            self._schedule(window, 1, policy.window_s)

    def close(self, instance_id: int) -> None:
        """An instance is gone."""
        self._windows.pop(instance_id, None)

    def rate(self, run: LaneRun) -> float:
        """How fast a lane progresses: alone, or beside the other lane of its instance at their present shares."""
        other = run.other
        if other is None:
            return run.speed
        busy = other.iteration is not None
        return run.speed * run.instance.spec.contention.rate(run.lane.kind, run.pct, other.pct, busy)

    def adopt(self, run: LaneRun) -> None:
        """A lane starts an iteration: from here on it has the share that was decided for it (asynchronous switch)."""
        behind = self._windows[run.instance.instance_id].behind
        if behind:
            run.pct = behind.pop(run.order, run.pct)

    def arrived(self, instance: Instance) -> None:
        """A request was dispatched to an instance."""
        window = self._windows.get(instance.instance_id)
        if window is not None:
            window.arrivals += 1

    def completed(self, run: LaneRun, iteration: Iteration, finished: list[int], now_s: float) -> None:
        """Note the first tokens and the finishes of an iteration."""
        window = self._windows.get(run.instance.instance_id)
        if window is None or window.policy.window_s is None:
            return
        window.prefilled += len(iteration.ended)
        for sequence in iteration.ended:
            if sequence.tokens_out == 1:
                window.first_token_at_s[sequence.request_id] = now_s
                window.ttft_s.append(now_s - sequence.request.arrival_s)
        for request_id in finished:
            first_s = window.first_token_at_s.pop(request_id, now_s)
            tokens = self._sim.outputs[request_id]
            if tokens > 1:
                window.tpot_s.append((now_s - first_s) / (tokens - 1))

    def _schedule(self, window: _Window, number: int, window_s: float) -> None:
        end_s = window.opened_s + number * window_s
        self._sim.at(end_s, TICKS, lambda: self._decide(window, number, window_s))

    def _decide(self, window: _Window, number: int, window_s: float) -> None:
        """A window is over: ask the policy, and switch after the switch delay where it wants other shares."""
        if self._gone(window):
            return
        now_s = window.opened_s + number * window_s
        slo = self._sim.spec.slo
        targets = (slo.ttft_s, slo.tpot_s) if slo is not None else (None, None)
        policy = window.policy
        self._sim.settle(window.instance, now_s)  # the blocks of iterations under way are taken
        view = window.view(now_s, window_s, *targets)
        try:
            shares = _checked(policy, policy.partition(view))
        except RAISED as error:
            doing = f"partitioning instance {window.instance.instance_id} at {now_s:.6f} s"
            raise policy_failure(policy, doing, error) from error
        window.clear(now_s)
        if shares != window.shares:
            window.shares = shares
            delay_s = self._sim.spec.partition_switch_s
            if delay_s:
                self._sim.at(now_s + delay_s, TICKS, lambda: self._switch(window, shares, now_s + delay_s))
            else:
                self._switch(window, shares, now_s)
        self._schedule(window, number + 1, window_s)

    def _switch(self, window: _Window, shares: Partition, now_s: float) -> None:
        """The new shares are ready: an idle lane takes its own at once, a busy one when its iteration ends."""
        if shares != window.shares or self._gone(window):
            return  # overtaken by a later decision
        self._log(window, now_s, None)
        for run, pct in zip(window.runs, shares, strict=True):
            window.behind[run.order] = pct
            if run.iteration is None:
                self.adopt(run)
            elif run.holding:
                run.settle(run.completed_by(now_s, self._sim.key, self._sim.rank))
                self._sim.stop_soon(run)
        sync_rates(self._sim, window.instance, now_s)

    def _gone(self, window: _Window) -> bool:
        return self._windows.get(window.instance.instance_id) is not window

    def _log(self, window: _Window, now_s: float, reason: str | None) -> None:
        shares = window.shares
        row = (now_s, window.instance.instance_id, shares.prefill_pct, shares.decode_pct, reason)
        self._sim.log.partition.append(row)


class _Window:
    """What one instance's partition policy is shown at the end of the present window."""

    def __init__(self, policy: PartitionPolicy, instance: Instance, runs: tuple[LaneRun, ...], opened_s: float) -> None:
        self.opened_s = opened_s
        self.policy = policy
        self.instance = instance
        self.runs = runs
        self.shares = Partition(100, 100)
        self.behind: dict[int, int] = {}
        """Lane order -> the share that it takes at its next iteration."""
        self.first_token_at_s: dict[int, float] = {}
        self.ttft_s: list[float] = []
        self.tpot_s: list[float] = []
        self.arrivals = 0
        self.prefilled = 0
        self._busy_before_s = 0.0

    def _busy_s(self, now_s: float) -> float:
        run = self.runs[0]
        return run.busy_s + (now_s - run.row_start_s if run.iteration is not None else 0.0)

    def view(
        self, now_s: float, window_s: float, ttft_target_s: float | None, tpot_target_s: float | None
    ) -> PartitionView:
        """The window as the policy sees it."""
        lane = self.instance.prefill_lane
        assert lane is not None
        return PartitionView(
            now_s=now_s,
            instance_id=self.instance.instance_id,
            partition=self.shares,
            window_s=window_s,
            ttft_s=tuple(self.ttft_s),
            tpot_s=tuple(self.tpot_s),
            arrivals=self.arrivals,
            prefill_busy_s=self._busy_s(now_s) - self._busy_before_s,
            prefilled_requests=self.prefilled,
            waiting_requests=len(lane.waiting),
            running_requests=self.instance.running,
            ttft_target_s=ttft_target_s,
            tpot_target_s=tpot_target_s,
            kv_use=1 - self.instance.pool.available / self.instance.pool.total,
        )

    def clear(self, now_s: float) -> None:
        """Begin the next window."""
        self._busy_before_s = self._busy_s(now_s)
        self.ttft_s.clear()
        self.tpot_s.clear()
        self.arrivals = self.prefilled = 0


def _check_window(policy: PartitionPolicy) -> None:
    window_s = policy.window_s
    if window_s is None or not isfinite(window_s) or window_s <= 0:
        raise PolicyError(f"partition policy {policy.name!r} has window_s {window_s}; allowed: above 0, or None")


def _checked(policy: PartitionPolicy, shares: Partition) -> Partition:
    if type(shares) is not Partition or not all(type(pct) is int and 1 <= pct <= 100 for pct in shares):
        raise PolicyError(
            f"partition policy {policy.name!r} decided {shares}; allowed: a Partition of two whole percents, 1 to 100"
        )
    return shares

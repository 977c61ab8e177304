"""The front door in virtual time: requests come in, are dispatched or refused, or wait for the dispatch policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.api import Dispatch, PolicyEvent, Reject, RequestView
from reference_impl.core.instance import Instance
from reference_impl.core.prediction import Prediction
from reference_impl.core.sequence import Sequence
from reference_impl.simulator.executors import JobExecutor
from reference_impl.simulator.fleet import NOBODY
from reference_impl.simulator.order import ARRIVALS
from reference_impl.simulator.telling import tell_end

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


class FrontDoor:
    """Turns rows of the trace into requests and takes them to the instances that the policy names."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        trace = simulation.trace
        self._log = simulation.log
        self._executors = simulation.executors
        self._outputs = simulation.outputs
        predictor = simulation.spec.predictor
        self.prediction = Prediction(predictor, simulation.spec.report_delay_s) if predictor is not None else None
        self._max_request_tokens = max(i.max_request_tokens for i in simulation.spec.instances)
        self._prefix_block_tokens = trace.prefix_block_tokens or 0
        self._prefix_ids = trace.prefix_ids
        self._tenant, self._slo_class, self._session_id = trace.tenant, trace.slo_class, trace.session_id

    def arrive(self, row: int, at_s: float, prompt_tokens: int) -> None:
        """Row ``row`` of the trace reaches the front door."""
        self._log.arrive.append((at_s, row, prompt_tokens))
        self._sim.outstanding += 1
        request = tuple.__new__(  # without the Python-level constructor: this is the hot path
            RequestView,
            (
                row,
                at_s,
                prompt_tokens,
                self._prefix_ids[row] if self._prefix_ids is not None else (),
                self._prefix_block_tokens,
                None,
                None,
                self._tenant[row] if self._tenant is not None else None,
                self._slo_class[row] if self._slo_class is not None else None,
                self._session_id[row] if self._session_id is not None else None,
            ),
        )
        total = prompt_tokens + self._outputs[row]
        if total > self._max_request_tokens:
            self.reject(request, f"its {total} tokens exceed the context or the KV pool of every instance", at_s)
            return
        if self.prediction is not None:
            if self.prediction.oracle:
                request = request._replace(oracle_output_tokens=self._outputs[row])
            predicted = self.prediction.tokens(request, at_s)
            if predicted is not None:
                request = request._replace(predicted_output_tokens=predicted)
        self._executors.assign(row)
        self.submit(Sequence(request, self._outputs[row] if self._sim.spec.plan_ahead else None), at_s)

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """Dispatch a request that needs (another) prefill, behind those that its job executor's policy left queued."""
        executor = self._executors.of(sequence.request_id)
        if executor.queued or not self._dispatch(executor, sequence, now_s):
            executor.queued.append(sequence)
            self._sim.asking.await_report()

    def offer(self, now_s: float) -> None:
        """Offer the queued requests to the policies again, first come first."""
        for executor in self._executors:
            queued = executor.queued
            while queued and self._dispatch(executor, queued[0], now_s):
                queued.popleft()

    def _dispatch(self, executor: JobExecutor, sequence: Sequence, now_s: float) -> bool:
        request = sequence.request
        decision = executor.router.route(request, "prefill", now_s)
        if decision is None:
            if not self._sim.fleet.hopeless("prefill"):
                return False
            decision = NOBODY
        if type(decision) is Reject:
            self.reject(request, decision.reason, now_s)
            return True
        assert type(decision) is Dispatch
        instance = self._sim.instances[decision.instance_id]
        sequence.decode_instance_id = decision.decode_instance_id
        total = self._tokens_on(instance, sequence)
        if total > instance.spec.max_request_tokens:
            self.reject(request, f"its {total} tokens exceed instance {instance.instance_id}", now_s)
            return True
        self._log.dispatch.append((now_s, request.request_id, decision.instance_id, decision.reason))
        if self._executors.observed:
            request_id, tokens = request.request_id, request.prompt_tokens
            self._executors.notify(PolicyEvent("dispatched", now_s, request_id, decision.instance_id, tokens))
        delay_s = self._sim.spec.dispatch_delay_s
        if delay_s:
            self._sim.at(now_s + delay_s, ARRIVALS, lambda: self._reach(sequence, instance, now_s + delay_s))
        else:
            self._enqueue(sequence, instance, now_s)
        return True

    def _reach(self, sequence: Sequence, instance: Instance, now_s: float) -> None:
        """A request that was on its way reaches its instance, or finds that it has failed."""
        if instance.state in ("ready", "draining"):
            self._enqueue(sequence, instance, now_s)
        else:
            self.lose(sequence, instance, now_s, "failed")

    def lose(self, sequence: Sequence, instance: Instance, now_s: float, reason: str) -> None:
        """An instance is gone from under a request: it begins anew elsewhere, with the tokens that it has."""
        request, tokens = sequence.request, sequence.tokens_out
        where = (request.request_id, instance.instance_id, None)
        self._log.change.append((now_s, "lost", *where, tokens, f"instance {instance.instance_id} {reason}"))
        if self._executors.observed:
            event = PolicyEvent("preempted", now_s, request.request_id, instance.instance_id, tokens)
            self._executors.notify(event)
        self.submit(Sequence(request, sequence.limit_tokens, tokens), now_s)

    def _enqueue(self, sequence: Sequence, instance: Instance, now_s: float) -> None:
        """A dispatched request reaches its instance."""
        instance.enqueue(sequence)
        self._sim.partitioner.arrived(instance)
        self._sim.wake(self._sim.runs[instance.instance_id][0], now_s)
        self._sim.touch(instance)

    def _tokens_on(self, instance: Instance, sequence: Sequence) -> int:
        """Tokens that this request will have at most while it is on ``instance``."""
        if instance.decodes_elsewhere(sequence):
            return sequence.target_tokens + 1
        return sequence.request.prompt_tokens + self._outputs[sequence.request_id]

    def reject(self, request: RequestView, reason: str, now_s: float) -> None:
        """Refuse a request for good."""
        self._log.reject.append((now_s, request.request_id, reason))
        self._sim.rejected += 1
        self._sim.outstanding -= 1
        tell_end(self._sim, request.request_id, now_s, None, None)

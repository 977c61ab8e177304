"""The front door in virtual time: requests come in, are dispatched or refused, or wait for the dispatch policy."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

from policies.api import Dispatch, PolicyError, PolicyEvent, Reject, RequestView
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.instance import Instance
from reference_impl.core.sequence import Sequence
from reference_impl.simulator.order import ARRIVALS

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


class FrontDoor:
    """Turns rows of the trace into requests and takes them to the instances that the policy names."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        trace = simulation.trace
        self._log = simulation.log
        self._router = simulation.router
        self._outputs = simulation.outputs
        self._predictor = simulation.spec.predictor
        self._max_request_tokens = max(i.max_request_tokens for i in simulation.spec.instances)
        self._prefix_block_tokens = trace.prefix_block_tokens or 0
        self._prefix_ids = trace.prefix_ids
        self._tenant, self._slo_class, self._session_id = trace.tenant, trace.slo_class, trace.session_id
        self.queued: deque[Sequence] = deque()
        """Requests that the dispatch policy has left waiting."""

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
        if self._predictor is not None:
            if self._predictor.oracle:
                request = request._replace(oracle_output_tokens=self._outputs[row])
            request = request._replace(predicted_output_tokens=self._prediction(request))
        self.submit(Sequence(request, self._outputs[row] if self._sim.spec.plan_ahead else None), at_s)

    def _prediction(self, request: RequestView) -> int | None:
        predictor = self._predictor
        assert predictor is not None
        try:
            tokens = predictor.predict(request)
        except RAISED as error:
            doing = f"predicting the output of request {request.request_id}"
            raise policy_failure(predictor, doing, error) from error
        if tokens is not None and (type(tokens) is not int or tokens < 1):
            raise PolicyError(
                f"predictor {predictor.name!r} answered {tokens!r} for request {request.request_id}; allowed: a whole"
                " number of tokens, 1 or more, or None"
            )
        return tokens

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """Dispatch a request that needs (another) prefill, behind those that the policy left queued."""
        if self.queued or not self._dispatch(sequence, now_s):
            self.queued.append(sequence)
            self._sim.asking.await_report()

    def offer(self, now_s: float) -> None:
        """Offer the queued requests to the policy again, first come first."""
        while self.queued and self._dispatch(self.queued[0], now_s):
            self.queued.popleft()

    def _dispatch(self, sequence: Sequence, now_s: float) -> bool:
        request = sequence.request
        decision = self._router.route(request, "prefill", now_s)
        if decision is None:
            return False
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
        if self._router.observer is not None:
            self.notify("dispatched", now_s, request.request_id, decision.instance_id, request.prompt_tokens)
        delay_s = self._sim.spec.dispatch_delay_s
        if delay_s:
            self._sim.at(now_s + delay_s, ARRIVALS, lambda: self._enqueue(sequence, instance, now_s + delay_s))
        else:
            self._enqueue(sequence, instance, now_s)
        return True

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
        if self._router.observer is not None:
            self.notify("rejected", now_s, request.request_id, None, 0)

    def notify(
        self,
        kind: Literal["dispatched", "first_token", "finished", "preempted", "rejected"],
        at_s: float,
        request_id: int,
        instance_id: int | None,
        tokens: int,
    ) -> None:
        """Tell an observing dispatch policy."""
        self._router.notify(PolicyEvent(kind, at_s, request_id, instance_id, tokens))

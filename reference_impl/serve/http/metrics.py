"""What ``/metrics`` shows, in Prometheus' format and under vLLM's names with our prefix.

Histograms are fed once a call; everything that can be counted from live state is read when it is scraped, so that a
token costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from policies.api import InstanceView
from reference_impl.serve.http.choice import Choice
from reference_impl.serve.http.exchange import Exchange, Outcome
from reference_impl.serve.http.gateway import GatewayStats
from reference_impl.serve.http.settings import HttpSettings

PREFIX = "semiflow:"
_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 20, 40)
_E2E_S = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_TOKENS = tuple(2**power for power in range(18))
_INSTANCE_GAUGES: dict[str, tuple[str, Callable[[InstanceView], float]]] = {
    "num_requests_running": ("Sequences that hold KV.", lambda view: view.running_requests),
    "num_requests_waiting": ("Sequences that wait to be admitted.", lambda view: view.waiting_requests),
    "kv_cache_usage_perc": (
        "KV blocks in use, 1 is all of them.",
        lambda view: 1 - view.free_blocks / view.total_blocks if view.total_blocks else 0.0,
    ),
    "instance_context_tokens": ("Tokens whose KV is held.", lambda view: view.context_tokens),
    "instance_waiting_tokens": ("Tokens of its requests without KV there.", lambda view: view.waiting_tokens),
    "instance_ready": ("1 while it takes requests.", lambda view: float(view.state == "ready")),
}


class Metrics(Collector):
    """Of one front door; where there are several, the label ``front_door`` on every series tells them apart.
    ``running`` yields the calls in flight."""

    def __init__(
        self, settings: HttpSettings, stats: Callable[[], GatewayStats], running: Callable[[], Iterable[Exchange]]
    ) -> None:
        self._stats, self._running = stats, running
        self._labels = {"model_name": settings.model}
        if settings.front_doors > 1:
            self._labels["front_door"] = str(settings.front_door)
        self._prompt_tokens = self._output_tokens = self._cached_tokens = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._calls = Counter(
            f"{PREFIX}requests", "Calls by what became of them.", [*self._labels, "outcome"], registry=self._registry
        )
        self._success = Counter(
            f"{PREFIX}request_success",
            "Sequences that ended well.",
            [*self._labels, "finished_reason"],
            registry=self._registry,
        )
        self._ttft_s = self._histogram("time_to_first_token_seconds", "From arrival to the first token.", _TTFT_S)
        self._tpot_s = self._histogram(
            "request_time_per_output_token_seconds", "Mean gap between a sequence's tokens.", _TPOT_S
        )
        self._e2e_s = self._histogram("e2e_request_latency_seconds", "From arrival to the last token.", _E2E_S)
        self._prompt_sizes = self._histogram("request_prompt_tokens", "Prompt tokens of a sequence.", _TOKENS)
        self._output_sizes = self._histogram("request_generation_tokens", "Output tokens of a sequence.", _TOKENS)

    def refused(self, outcome: Outcome) -> None:
        """A call that was not accepted."""
        self._calls.labels(**self._labels, outcome=outcome).inc()

    def ended(self, exchange: Exchange) -> None:
        """A call that was accepted is over."""
        self._calls.labels(**self._labels, outcome=exchange.outcome).inc()
        self._prompt_tokens += exchange.call.prompt_tokens
        self._output_tokens += exchange.output_tokens
        self._cached_tokens += exchange.cached_tokens or 0
        for choice in exchange.choices:
            self._sequence(choice, exchange.arrival_s)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is read at the scrape (Prometheus' interface)."""
        running, stats = list(self._running()), self._stats()
        prompt_tokens = self._prompt_tokens + sum(exchange.call.prompt_tokens for exchange in running)
        output_tokens = self._output_tokens + sum(exchange.output_tokens for exchange in running)
        yield self._counter("prompt_tokens", "Prompt tokens of accepted calls.", prompt_tokens)
        yield self._counter("prompt_tokens_cached", "Prompt tokens found in caches.", self._cached_tokens)
        yield self._counter("generation_tokens", "Tokens generated.", output_tokens)
        yield self._counter("redispatched", "Requests sent elsewhere after a failure.", stats.redispatched_total)
        yield self._gauge("front_door_calls", "Calls in flight here.", len(running))
        yield self._gauge("queued_requests", "Accepted, but not dispatched yet.", stats.queued_requests)
        yield self._gauge(
            "event_log_up", "0: the run's record has ended early or has a gap.", 0 if stats.log_error else 1
        )
        yield from self._of_instances(stats.instances)

    def _of_instances(self, views: Iterable[InstanceView]) -> Iterator[Metric]:
        views = list(views)
        for name, (help_text, value) in _INSTANCE_GAUGES.items():
            family = GaugeMetricFamily(f"{PREFIX}{name}", help_text, labels=[*self._labels, "instance", "role"])
            for view in views:
                family.add_metric([*self._labels.values(), str(view.instance_id), view.role], value(view))
            yield family

    def _counter(self, name: str, help_text: str, value: int) -> Metric:
        family = CounterMetricFamily(f"{PREFIX}{name}", help_text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _gauge(self, name: str, help_text: str, value: int) -> Metric:
        family = GaugeMetricFamily(f"{PREFIX}{name}", help_text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}{name}", help_text, list(self._labels), buckets=buckets, registry=self._registry)

    def _sequence(self, choice: Choice, arrival_s: float) -> None:
        self._prompt_sizes.labels(**self._labels).observe(len(choice.prompt))
        if choice.first_token_s is None or choice.last_token_s is None:
            return
        self._ttft_s.labels(**self._labels).observe(choice.first_token_s - arrival_s)
        if choice.finish is None:
            return
        self._success.labels(**self._labels, finished_reason=choice.finish).inc()
        self._output_sizes.labels(**self._labels).observe(choice.tokens)
        self._e2e_s.labels(**self._labels).observe(choice.last_token_s - arrival_s)
        if choice.tokens > 1:
            gap_s = (choice.last_token_s - choice.first_token_s) / (choice.tokens - 1)
            self._tpot_s.labels(**self._labels).observe(gap_s)

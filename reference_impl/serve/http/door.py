"""The front door without its routes: reads calls, lets them in, runs them, and notes what became of them."""

from __future__ import annotations

from time import monotonic, time
from typing import Any

from reference_impl.serve.http.admission import Admission
from reference_impl.serve.http.answers import Answer, ChatAnswer, CompletionAnswer
from reference_impl.serve.http.auth import Caller, load_keys
from reference_impl.serve.http.calls import Call, CallReader, Endpoint
from reference_impl.serve.http.errors import ServingError, internal_error
from reference_impl.serve.http.exchange import Exchange, Outcome, outcome_of
from reference_impl.serve.http.gateway import Gateway
from reference_impl.serve.http.jobs import STATE_OF, Job, Jobs
from reference_impl.serve.http.metrics import Metrics
from reference_impl.serve.http.request_log import log_ended, log_refused
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.http.tokenizer import Tokenizer


class FrontDoor:
    """What the routes share. Lives in one event loop."""

    def __init__(self, settings: HttpSettings, tokenizer: Tokenizer | None, gateway: Gateway) -> None:
        self.settings = settings
        self.gateway = gateway
        self.keys = load_keys(settings.keys_file)
        self.jobs = Jobs(settings.max_kept_jobs)
        self.metrics = Metrics(
            settings, gateway.stats, lambda: [e for job in self.jobs.running() for e in job.exchanges]
        )
        self.created_s = int(time())
        self.special_token_ids = sorted(tokenizer.special_ids) if tokenizer is not None else []
        self._tokenizer = tokenizer
        self._reader = CallReader(settings, tokenizer)
        self.admission = Admission(settings)

    async def read(self, endpoint: Endpoint, value: dict[str, Any], caller: Caller, session_id: str | None) -> Call:
        """The call in a JSON object. Raises ServingError."""
        return await self._reader.read(endpoint, value, caller, session_id)

    def begin(self, call: Call, caller: Caller, arrival_s: float, batch: Job | None = None) -> Exchange:
        """Let a call in and send it off; one of a batch job is in already. Raises ServingError."""
        exchange = Exchange(call, caller, arrival_s)
        if batch is None:
            self.admission.enter(caller, call.sequences)
        try:
            age_s = monotonic() - arrival_s
            run_arrival_s = self.gateway.now_s() - age_s
            exchange.start(self.gateway, self._tokenizer, run_arrival_s, self.settings.request_timeout_s)
        except BaseException:
            if batch is None:
                self.admission.leave(caller, call.sequences)
            raise
        job = batch or Job(f"job-{exchange.request_id}", call.endpoint, caller.tenant)
        job.exchanges.append(exchange)
        self.jobs.add(job)
        exchange.on_close = lambda ended: self._ended(ended, job)
        return exchange

    def answer(self, exchange: Exchange) -> Answer:
        """How its answer is written."""
        kind = ChatAnswer if exchange.call.endpoint == "chat.completions" else CompletionAnswer
        return kind(exchange.call, exchange.request_id, int(time()), self._tokenizer)

    async def complete(self, exchange: Exchange) -> dict[str, Any]:
        """The whole answer. Raises ServingError; closes the exchange in any case."""
        try:
            choices = await exchange.gather()
            body = self.answer(exchange).body(choices, exchange.usage())
            exchange.close("ok", 200)
            return body
        except ServingError as error:
            exchange.fail(error)
            raise
        except Exception:
            exchange.fail(internal_error())
            raise
        finally:
            exchange.close("cancelled", 499)  # of no effect where it has ended

    def refused(self, endpoint: str, caller: Caller | None, error: ServingError) -> None:
        """Note a call that was not let in."""
        outcome: Outcome = "client_left" if outcome_of(error) == "client_left" else "refused"
        self.metrics.refused(outcome)
        log_refused(endpoint, None if caller is None else caller.tenant, error, outcome)

    def _ended(self, exchange: Exchange, job: Job) -> None:
        assert exchange.outcome is not None, "closed"
        job.ended(exchange)
        if job.type != "batch":
            self.admission.leave(exchange.caller, exchange.call.sequences)
            self.jobs.end(job, STATE_OF[exchange.outcome])
        self.metrics.ended(exchange)
        log_ended(exchange, job.id)

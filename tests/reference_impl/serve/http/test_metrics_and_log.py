"""What an operator sees: Prometheus' page and one log line a call."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reference_impl.serve.http.testing import FakeGateway, Script

pytestmark = pytest.mark.anyio
BODY = {"model": "tiny", "prompt": [5, 6], "max_tokens": 3}


async def samples(client: httpx.AsyncClient) -> Mapping[str, float]:
    """Name and labels other than the model's to value."""
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "model_name")
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def test_tokens_calls_and_times_are_counted(client: httpx.AsyncClient, gateway: FakeGateway) -> None:
    await client.post("/v1/completions", json=BODY | {"n": 2})
    await client.post("/v1/completions", json=BODY | {"temperature": -1})
    gateway.script = lambda request: Script([68] * 3, fails_after=2, cached_tokens=1)
    await client.post("/v1/completions", json=BODY)
    page = await samples(client)
    assert page["semiflow:requests_total{outcome=ok}"] == 1
    assert page["semiflow:requests_total{outcome=refused}"] == 1
    assert page["semiflow:requests_total{outcome=failed}"] == 1
    assert page["semiflow:request_success_total{finished_reason=length}"] == 2
    assert page["semiflow:prompt_tokens_total{}"] == 4
    assert page["semiflow:generation_tokens_total{}"] == 8
    assert page["semiflow:prompt_tokens_cached_total{}"] == 1
    assert page["semiflow:time_to_first_token_seconds_count{}"] == 3
    assert page["semiflow:request_time_per_output_token_seconds_count{}"] == 2
    assert page["semiflow:e2e_request_latency_seconds_count{}"] == 2


async def test_running_calls_and_instances_are_shown_as_they_are(
    make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68] * 9, hangs_after=2)
    app = make_app()
    call = call_bare(app, "/v1/completions", BODY | {"stream": True, "max_tokens": 9})
    await call.until(lambda: call.writes == 2)
    async with client_of(app) as client:
        page = await samples(client)
        call.leave()
        await call.task
        after = await samples(client)
    assert page["semiflow:front_door_calls{}"] == 1
    assert page["semiflow:generation_tokens_total{}"] == after["semiflow:generation_tokens_total{}"] == 2
    assert page["semiflow:num_requests_running{instance=0,role=colocated}"] == 1
    assert page["semiflow:kv_cache_usage_perc{instance=0,role=colocated}"] == pytest.approx(0.1)
    assert (after["semiflow:front_door_calls{}"], after["semiflow:requests_total{outcome=client_left}"]) == (0, 1)


async def test_each_call_is_one_line_of_json(
    client: httpx.AsyncClient, gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="semiflow.requests")
    headers = {"x-semiflow-tenant": "carol", "x-semiflow-slo-class": "fast"}
    await client.post("/v1/completions", json=BODY | {"user": "u1", "stream": True}, headers=headers)
    await client.post("/v1/completions", json=BODY | {"model": "other"}, headers=headers)
    gateway.script = lambda request: Script([68] * 3, fails_after=0)
    await client.post("/v1/completions", json=BODY)
    well, refused, failed = (json.loads(record.message) for record in caplog.records)
    times = {name: well.pop(name) for name in ("ttft_s", "e2e_s")}
    assert 0 < times["ttft_s"] <= times["e2e_s"]
    assert well == {
        "request": 0,
        "job": "job-0",
        "endpoint": "completions",
        "model": "tiny",
        "tenant": "carol",
        "slo_class": "fast",
        "session": "u1",
        "stream": True,
        "sequences": 1,
        "prompt_tokens": 2,
        "output_tokens": 3,
        "outcome": "ok",
        "status": 200,
    }
    assert (refused["outcome"], refused["status"], refused["param"]) == ("refused", 404, "model")
    assert (failed["outcome"], failed["status"], failed["reason"]) == ("failed", 503, "instance 0 failed")
    assert "ttft_s" not in failed


async def test_a_client_that_leaves_while_it_sends_is_one_line_too(
    make_app: Any, client_of: Any, call_bare: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="semiflow.requests")
    app = make_app()
    call = call_bare(app, "/v1/completions", BODY, {"x-semiflow-tenant": "carol"}, withheld=True)
    call.leave()
    await call.task
    (line,) = (json.loads(record.message) for record in caplog.records)
    assert (line["outcome"], line["status"], line["tenant"]) == ("client_left", 499, "carol")
    async with client_of(app) as client:
        assert (await samples(client))["semiflow:requests_total{outcome=client_left}"] == 1

"""Requests as jobs of tasks, and batch jobs in the background."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from reference_impl.serve.http.testing import FakeGateway, Script

pytestmark = pytest.mark.anyio
ALICE, BOB = {"authorization": "Bearer alice"}, {"authorization": "Bearer bob"}
BODY = {"model": "tiny", "prompt": [5], "max_tokens": 3, "seed": 0}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "seed": 0}


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """A job once it has ended."""
    async with asyncio.timeout(5):
        while (job := (await client.get(f"/v1/jobs/{job_id}")).json())["status"] == "running":
            await asyncio.sleep(0)
    return dict(job)


async def test_a_call_is_a_job_of_tasks(make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68] * 3, hangs_after=1)
    app = make_app()
    call = call_bare(app, "/v1/completions", BODY | {"stream": True})
    await call.until(lambda: call.writes == 1)
    async with client_of(app) as client:
        (job,) = (await client.get("/v1/jobs")).json()["data"]
        assert (job["id"], job["type"], job["status"], job["ended_at"]) == ("job-0", "completions", "running", None)
        (task,) = job["tasks"]
        assert (task["kind"], task["instance"], task["status"], task["ended_s"]) == ("serve", 0, "running", None)
        call.leave()
        await call.task
        job = (await client.get("/v1/jobs/job-0")).json()
    assert (job["status"], job["tasks"][0]["status"]) == ("cancelled", "cancelled")
    assert job["ended_at"] is not None


@pytest.mark.parametrize("stream", [True, False])
async def test_a_job_that_is_cancelled_tells_its_client(
    make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway, stream: bool
) -> None:
    gateway.script = lambda request: Script([68] * 3, hangs_after=1)
    app = make_app()
    call = call_bare(app, "/v1/completions", BODY | {"stream": stream})
    await call.until(lambda: gateway.running == 1)
    async with client_of(app) as client:
        assert (await client.delete("/v1/jobs/job-0")).status_code == 200
        await call.task
        assert '"code":"cancelled"' in call.text
        assert gateway.ended == {0: "cancelled"}
        assert (await client.delete("/v1/jobs/job-0")).json() == {"id": "job-0", "object": "job", "deleted": True}
        assert (await client.get("/v1/jobs/job-0")).status_code == 404


async def test_old_jobs_are_forgotten(make_app: Any, client_of: Any) -> None:
    async with client_of(make_app(max_kept_jobs=2)) as client:
        for _ in range(4):
            await client.post("/v1/completions", json=BODY)
        jobs = (await client.get("/v1/jobs")).json()
        first = (await client.get("/v1/jobs?limit=1")).json()
    assert [job["id"] for job in jobs["data"]] == ["job-3", "job-2"]
    assert ([job["id"] for job in first["data"]], first["has_more"]) == (["job-3"], True)


async def test_a_batch_job_runs_every_request_and_keeps_results(
    client: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    requests = [
        {"custom_id": "a", "body": BODY},
        {"custom_id": "b", "url": "/v1/chat/completions", "body": CHAT},
        {"custom_id": "c", "body": BODY | {"temperature": -1}},
        {"body": BODY | {"stream": True}},
    ]
    created = (await client.post("/v1/jobs", json={"type": "batch", "requests": requests})).json()
    assert (created["status"], created["type"]) == ("running", "batch")
    assert created["request_counts"] == {"total": 4, "completed": 0, "failed": 0}
    job = await ended(client, created["id"])
    assert (job["status"], job["request_counts"]) == ("done", {"total": 4, "completed": 2, "failed": 2})
    assert [result["custom_id"] for result in job["results"]] == ["a", "b", "c", None]
    assert job["results"][0]["body"]["choices"][0]["text"] == "bcd"
    assert job["results"][1]["body"]["object"] == "chat.completion"
    assert [result["body"]["error"]["param"] for result in job["results"][2:]] == ["temperature", "stream"]
    assert {request.slo_class for request in gateway.requests} == {"batch"}
    assert len(job["tasks"]) == 2


async def test_a_batch_job_takes_so_many_places_and_none_of_the_others(
    make_app: Any, client_of: Any, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68] * 3, hangs_after=1 if request.slo_class == "batch" else None)
    async with client_of(make_app(batch_concurrency=2, max_concurrent=1)) as client:
        batch = {"type": "batch", "requests": [{"body": BODY}] * 5}
        job = (await client.post("/v1/jobs", json=batch)).json()
        async with asyncio.timeout(5):
            while gateway.running < 2:
                await asyncio.sleep(0)
        assert (await client.post("/v1/completions", json=BODY)).status_code == 200
        assert len(gateway.requests) == 3
        await client.delete(f"/v1/jobs/{job['id']}")
        job = await ended(client, job["id"])
    assert (job["status"], job["request_counts"]["failed"]) == ("cancelled", 5)
    assert {result["body"]["error"]["code"] for result in job["results"]} == {"cancelled"}
    assert [gateway.ended[request] for request in (0, 1)] == ["cancelled", "cancelled"]


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """Alice may have two sequences at once, bob any number."""
    path = tmp_path / "keys.yaml"
    alice, bob = (sha256(name.encode()).hexdigest() for name in ("alice", "bob"))
    path.write_text(
        f"keys:\n- {{sha256: {alice}, tenant: alice, max_concurrent: 2}}\n- {{sha256: {bob}, tenant: bob}}\n"
    )
    return path


async def running(gateway: FakeGateway, count: int) -> None:
    """Return once so many sequences have been sent off."""
    async with asyncio.timeout(5):
        while len(gateway.requests) < count:
            await asyncio.sleep(0)


async def test_tenants_take_turns_with_the_places_for_batch_requests(
    make_app: Any, client_of: Any, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68], delay_s=0.001)
    alice, bob = ({"x-semiflow-tenant": name} for name in ("alice", "bob"))
    async with client_of(make_app(batch_concurrency=1)) as client:
        await client.post("/v1/jobs", json={"type": "batch", "requests": [{"body": BODY}] * 6}, headers=alice)
        await running(gateway, 1)
        second = {"type": "batch", "requests": [{"body": BODY}] * 2}
        job = (await client.post("/v1/jobs", json=second, headers=bob)).json()
        await ended(client, job["id"])
    assert [request.tenant for request in gateway.requests][:4] == ["alice", "bob", "alice", "bob"]


async def test_a_batch_job_stays_within_its_tenants_limit_and_waits_for_room(
    make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway, keys_file: Path
) -> None:
    gateway.script = lambda request: Script([68] * 3, hangs_after=0)
    app = make_app(keys_file=keys_file)
    call = call_bare(app, "/v1/completions", BODY, ALICE)
    await call.until(lambda: gateway.running == 1)
    async with client_of(app) as client:
        await client.post("/v1/jobs", json={"type": "batch", "requests": [{"body": BODY}] * 3}, headers=ALICE)
        await running(gateway, 2)
        assert (await client.post("/v1/completions", json=BODY, headers=ALICE)).status_code == 429
        gateway.script = lambda request: Script([68] * 3)
        assert (await client.post("/v1/completions", json=BODY, headers=BOB)).status_code == 200
        assert len(gateway.requests) == 3, "alice's batch waits, bob does not"
        call.leave()
        await call.task
        await running(gateway, 5)
    assert [request.tenant for request in gateway.requests] == ["alice", "alice", "bob", "alice", "alice"]


async def test_what_could_never_run_within_the_tenants_limit_is_an_error_of_that_request(
    make_app: Any, client_of: Any, keys_file: Path
) -> None:
    async with client_of(make_app(keys_file=keys_file)) as client:
        batch = {"type": "batch", "requests": [{"body": BODY | {"n": 3}}, {"body": BODY}]}
        created = (await client.post("/v1/jobs", json=batch, headers=ALICE)).json()
        client.headers.update(ALICE)
        job = await ended(client, created["id"])
    assert [result["status_code"] for result in job["results"]] == [400, 200]
    assert "3 sequences in one call are over the 2" in job["results"][0]["body"]["error"]["message"]


async def test_requests_that_waited_in_a_cancelled_job_are_in_nobodys_way(
    make_app: Any, client_of: Any, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68] * 3, hangs_after=0)
    async with client_of(make_app(batch_concurrency=1)) as client:
        batch = {"type": "batch", "requests": [{"body": BODY}] * 3}
        first, waiting = [(await client.post("/v1/jobs", json=batch)).json()["id"] for _ in range(2)]
        await running(gateway, 1)
        for job_id in (waiting, first):
            await client.delete(f"/v1/jobs/{job_id}")
            await ended(client, job_id)
        gateway.script = lambda request: Script([68] * 3)
        last = (await client.post("/v1/jobs", json=batch)).json()["id"]
        assert (await ended(client, last))["request_counts"]["completed"] == 3


async def test_one_tenants_jobs_leave_room_for_anothers(make_app: Any, client_of: Any, keys_file: Path) -> None:
    batch = {"type": "batch", "requests": [{"body": BODY}]}
    async with client_of(make_app(keys_file=keys_file, max_batch_jobs=2)) as client:
        statuses = [
            (await client.post("/v1/jobs", json=batch, headers=key)).status_code for key in (*[ALICE] * 3, *[BOB] * 2)
        ]
    assert statuses == [200, 200, 429, 200, 200]


async def test_results_that_were_fetched_make_room_for_new_ones(make_app: Any, client_of: Any) -> None:
    batch = {"type": "batch", "requests": [{"body": BODY}]}
    async with client_of(make_app(max_batch_jobs=2)) as client:
        jobs = []
        for _ in range(5):
            jobs.append((await client.post("/v1/jobs", json=batch)).json()["id"])
            await ended(client, jobs[-1])
        assert [(await client.get(f"/v1/jobs/{job}")).status_code for job in jobs] == [404, 404, 404, 200, 200]


async def test_results_are_forgotten_after_their_time(make_app: Any, client_of: Any) -> None:
    batch = {"type": "batch", "requests": [{"body": BODY}]}
    async with client_of(make_app(batch_results_s=0.01)) as client:
        job_id = (await client.post("/v1/jobs", json=batch)).json()["id"]
        async with asyncio.timeout(5):
            while (await client.get("/v1/jobs")).json()["data"]:
                await asyncio.sleep(0)
        assert (await client.get(f"/v1/jobs/{job_id}")).status_code == 404


async def test_batch_jobs_that_nobody_fetches_are_kept_and_bounded(make_app: Any, client_of: Any) -> None:
    batch = {"type": "batch", "requests": [{"body": BODY}]}
    async with client_of(make_app(max_batch_jobs=2, max_kept_jobs=1, max_batch_requests=3)) as client:
        first = (await client.post("/v1/jobs", json=batch)).json()["id"]
        assert (await client.post("/v1/jobs", json=batch)).status_code == 200
        for _ in range(3):
            await client.post("/v1/completions", json=BODY)
        assert (await client.post("/v1/jobs", json=batch)).status_code == 429
        assert (await ended(client, first))["results"][0]["status_code"] == 200
        assert (await client.post("/v1/jobs", json=batch)).status_code == 200
        long = await client.post("/v1/jobs", json=batch | {"requests": [{"body": BODY}] * 4})
        assert long.json()["error"]["param"] == "requests"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"type": "fine_tuning"}, "type"),
        ({"type": "training"}, "type"),
        ({"requests": [{"body": {}}]}, "type"),
        ({"type": "batch", "requests": []}, "requests"),
        ({"type": "batch", "requests": [{"body": []}]}, "requests[0].body"),
        ({"type": "batch", "requests": [{"body": {}, "url": "/v1/embeddings"}]}, "requests[0].url"),
    ],
)
async def test_wrong_jobs_are_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    answer = await client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_each_tenant_sees_its_own_jobs(make_app: Any, client_of: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    digests = {name: sha256(name.encode()).hexdigest() for name in ("alice", "bob")}
    path.write_text("keys:\n" + "".join(f"- {{sha256: {d}, tenant: {n}}}\n" for n, d in digests.items()))
    alice, bob = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))
    async with client_of(make_app(keys_file=path)) as client:
        await client.post("/v1/completions", json=BODY, headers=alice)
        assert len((await client.get("/v1/jobs", headers=alice)).json()["data"]) == 1
        assert (await client.get("/v1/jobs", headers=bob)).json()["data"] == []
        assert (await client.get("/v1/jobs/job-0", headers=bob)).status_code == 404
        assert (await client.delete("/v1/jobs/job-0", headers=bob)).status_code == 404


async def test_the_end_of_the_server_ends_batch_jobs(make_app: Any, serve: Any, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68] * 3, hangs_after=1)
    async with serve(make_app()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        batch = {"type": "batch", "requests": [{"body": BODY}] * 3}
        await client.post("/v1/jobs", json=batch)
        async with asyncio.timeout(5):
            while gateway.running < 3:
                await asyncio.sleep(0)
    assert set(gateway.ended.values()) == {"cancelled"}

"""What one of several front doors may let in, and how it is told from the others."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.http.testing import FakeGateway, Script

pytestmark = pytest.mark.anyio
BODY = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 4}
ONE_OF_TWO = {"front_door": 1, "front_doors": 2, "own_port": 8002}


def test_each_lets_in_its_part_and_at_least_one() -> None:
    all_of_them = HttpSettings("tiny", 64, 64, max_concurrent=7, max_concurrent_per_tenant=4, batch_concurrency=2)
    part = all_of_them.of_one(2, 3, 8003)
    assert (part.max_concurrent, part.max_concurrent_per_tenant, part.batch_concurrency) == (2, 1, 1)
    assert (part.front_door, part.front_doors, part.own_port) == (2, 3, 8003)
    assert all_of_them.of_one(0, 1, 8001) == all_of_them


async def test_the_limit_of_a_key_is_shared_out_too(
    make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys: [{{sha256: {sha256(b'alice').hexdigest()}, tenant: alice, max_concurrent: 3}}]")
    gateway.script = lambda request: Script([68] * 4, hangs_after=0)
    app = make_app(keys_file=path, **ONE_OF_TWO)
    key = {"authorization": "Bearer alice"}
    call = call_bare(app, "/v1/completions", BODY, key)
    await call.until(lambda: gateway.running == 1)
    async with client_of(app) as client:
        more = await client.post("/v1/completions", json=BODY, headers=key)
    call.leave()
    await call.task
    assert (more.status_code, "1 are allowed" in more.text) == (429, True)


async def test_every_series_says_whose_it_is(make_app: Any, client_of: Any) -> None:
    async with client_of(make_app(**ONE_OF_TWO)) as client:
        await client.post("/v1/completions", json=BODY)
        await client.post("/v1/completions", json=BODY | {"temperature": -1})
        lines = (await client.get("/metrics")).text.splitlines()
    series = [line for line in lines if line.startswith("semiflow:")]
    assert len(series) > 100
    assert [line for line in series if 'front_door="1"' not in line] == []


async def test_an_only_one_needs_no_label(make_app: Any, client_of: Any) -> None:
    async with client_of(make_app()) as client:
        await client.post("/v1/completions", json=BODY)
        assert "front_door=" not in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/job-0"), ("DELETE", "/v1/jobs/job-0")],
)
async def test_jobs_are_refused_where_chance_decides_who_answers(
    make_app: Any, client_of: Any, method: str, path: str
) -> None:
    app = make_app(**ONE_OF_TWO)
    async with client_of(app) as client:
        await client.post("/v1/completions", json=BODY)
        body = {"json": {"type": "batch", "requests": [{"body": BODY}]}} if method == "POST" else {}
        shared = await client.request(method, f"http://front.door:8000{path}", **body)
        alone = await client.request(method, f"http://front.door:8002{path}", **body)
    error = shared.json()["error"]
    assert (shared.status_code, error["code"]) == (421, "one_of_several_front_doors")
    assert "2 front doors share this port" in error["message"]
    assert "such as 8002" in error["message"]
    assert alone.status_code == 200

"""Who may call, and how much at once."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from reference_impl.serve.http.settings import HttpSettings, SettingsError
from reference_impl.serve.http.testing import FakeGateway, Script

pytestmark = pytest.mark.anyio
BODY = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 4}
ALICE, BOB = {"authorization": "Bearer alice-key-1"}, {"authorization": "Bearer bob-key-22"}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"""
keys:
  - {{sha256: {sha256(b"alice-key-1").hexdigest()}, tenant: alice, slo_class: fast, max_concurrent: 1}}
  - {{key: bob-key-22, tenant: bob, max_prompt_tokens: 2}}
""",
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


async def test_the_key_decides_tenant_and_class(
    client_of: Any, make_app: Any, gateway: FakeGateway, keys_file: Path
) -> None:
    async with client_of(make_app(keys_file=keys_file)) as client:
        answer = await client.post("/v1/completions", json=BODY, headers=ALICE)
    assert answer.status_code == 200
    assert (gateway.requests[0].tenant, gateway.requests[0].slo_class) == ("alice", "fast")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nobody"},
        {"authorization": "alice-key-1"},
        {"authorization": "Basic alice-key-1"},
        {"authorization": "Bearer "},
        {"authorization": b"Bearer \xff\xfe"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/jobs", "/metrics"])
async def test_without_a_known_key_nothing_is_told(
    client_of: Any, make_app: Any, keys_file: Path, path: str, headers: dict[str, Any]
) -> None:
    async with client_of(make_app(keys_file=keys_file)) as client:
        answer = await client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] in ("missing_api_key", "invalid_api_key")


async def test_health_needs_no_key_and_follows_the_deployment(
    client_of: Any, make_app: Any, gateway: FakeGateway, keys_file: Path
) -> None:
    async with client_of(make_app(keys_file=keys_file)) as client:
        well = await client.get("/health")
        gateway.ready = False
        ill = await client.get("/health")
    assert (well.status_code, ill.status_code, ill.json()["status"]) == (200, 503, "unavailable")


async def test_a_key_may_limit_the_prompt(client_of: Any, make_app: Any, keys_file: Path) -> None:
    async with client_of(make_app(keys_file=keys_file)) as client:
        answer = await client.post("/v1/completions", json=BODY, headers=BOB)
    assert answer.json()["error"]["message"] == "the prompt has 3 tokens, allowed are 2; shorten it"


async def test_headers_name_the_tenant_only_where_there_are_no_keys(
    client_of: Any, make_app: Any, gateway: FakeGateway, keys_file: Path
) -> None:
    named = {"x-semiflow-tenant": "carol", "x-semiflow-slo-class": "slow", "x-semiflow-session": "s1"}
    async with client_of(make_app()) as client:
        assert (await client.post("/v1/completions", json=BODY, headers=named)).status_code == 200
        long = await client.post("/v1/completions", json=BODY, headers={"x-semiflow-session": "x" * 600})
    async with client_of(make_app(keys_file=keys_file)) as client:
        assert (await client.post("/v1/completions", json=BODY, headers=ALICE | named)).status_code == 200
    free, keyed = gateway.requests
    assert (free.tenant, free.slo_class, free.session_id) == ("carol", "slow", "s1")
    assert (keyed.tenant, keyed.slo_class, keyed.session_id) == ("alice", "fast", "s1")
    assert (long.status_code, long.json()["error"]["param"]) == (400, "x-semiflow-session")


async def test_a_tenant_over_its_limit_waits_and_others_do_not(
    make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway, keys_file: Path
) -> None:
    gateway.script = lambda request: Script([68] * 4, hangs_after=0 if request.tenant == "alice" else None)
    app = make_app(keys_file=keys_file)
    call = call_bare(app, "/v1/completions", BODY, ALICE)
    await call.until(lambda: gateway.running == 1)
    async with client_of(app) as client:
        more = await client.post("/v1/completions", json=BODY, headers=ALICE)
        other = await client.post("/v1/completions", json=BODY | {"prompt": [5]}, headers=BOB)
        call.leave()
        await call.task
        gateway.script = lambda request: Script([68] * 4)
        again = await client.post("/v1/completions", json=BODY, headers=ALICE)
    assert (more.status_code, other.status_code, again.status_code) == (429, 200, 200)
    assert more.headers["retry-after"] == "1"
    assert more.json()["error"]["code"] == "rate_limit_exceeded"


async def test_the_house_is_full_for_everybody(
    make_app: Any, client_of: Any, call_bare: Any, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68] * 4, hangs_after=0)
    app = make_app(max_concurrent=3)
    call = call_bare(app, "/v1/completions", BODY | {"n": 2})
    await call.until(lambda: gateway.running == 2)
    async with client_of(app) as client:
        two = await client.post("/v1/completions", json=BODY | {"n": 2})
        four = await client.post("/v1/completions", json=BODY | {"n": 4})
    call.leave()
    await call.task
    assert (two.status_code, four.status_code) == (429, 400)


async def test_places_are_given_back_after_every_kind_of_end(
    make_app: Any, client_of: Any, gateway: FakeGateway
) -> None:
    scripts = [Script([68]), Script([68] * 3, fails_after=1), Script([68] * 3, fails_after=0), Script([68] * 4)]
    waiting = iter(scripts * 2)
    gateway.script = lambda request: next(waiting)
    async with client_of(make_app(max_concurrent=1)) as client:
        for stream in (False, True):
            statuses = [
                (await client.post("/v1/completions", json=BODY | {"stream": stream})).status_code for _ in scripts
            ]
            assert statuses == [200, 200 if stream else 503, 503, 200]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("keys: []", "at least 1 item"),
        ("keys: [{tenant: a}]", "give either key or sha256"),
        ("keys: [{key: short, tenant: a}]", "at least 8 characters"),
        ("keys: [{key: long-enough, sha256: x, tenant: a}]", "keys.0.sha256"),
        ("keys: [{key: long-enough, tenant: a, colour: red}]", "keys.0.colour"),
        ("keys: [{key: long-enough, tenant: a}, {key: long-enough, tenant: b}]", "an API key twice"),
        ("nothing", "no API keys that can be used"),
        ("[unbalanced", "no API keys that can be used"),
    ],
)
def test_a_wrong_keys_file_stops_the_start_without_showing_keys(
    make_app: Any, tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=why) as error:
        make_app(keys_file=path)
    assert "long-enough" not in str(error.value)
    assert "\n" not in str(error.value)


def test_plain_keys_that_others_can_read_are_refused(make_app: Any, keys_file: Path) -> None:
    keys_file.chmod(0o640)
    with pytest.raises(SettingsError, match="others may read it; run chmod 600"):
        make_app(keys_file=keys_file)


def test_a_missing_keys_file_is_named(make_app: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        make_app(keys_file=tmp_path / "none.yaml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org"])
def test_an_address_that_others_reach_needs_keys(host: str, keys_file: Path) -> None:
    with pytest.raises(SettingsError, match="can be reached by others and no API keys are set"):
        HttpSettings("tiny", 64, 64, host=host)
    HttpSettings("tiny", 64, 64, host=host, keys_file=keys_file)
    HttpSettings("tiny", 64, 64, host=host, open_to_all=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_address_needs_none(host: str) -> None:
    HttpSettings("tiny", 64, 64, host=host)


@pytest.mark.parametrize(
    "wrong",
    [
        {"context_tokens": 1},
        {"max_concurrent": 0},
        {"request_timeout_s": 0},
        {"request_timeout_s": float("nan")},
        {"batch_results_s": 0.0},
    ],
)
def test_settings_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        replace(HttpSettings("tiny", 64, 64), **wrong)

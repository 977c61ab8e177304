"""What one replay against a live server is made of; its traffic is described as a simulated run's is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from experiments.config import RunConfig, SloConfig, WorkloadConfig
from experiments.config_base import PositiveSeconds, Seed, StrictModel, count_field
from experiments.config_file import load, read_mapping

_TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")]
MAX_CORE = 4095
_Core = Annotated[int, Field(ge=0, le=MAX_CORE)]


class LabelHeaders(StrictModel):
    """Headers that carry a trace's labels; null: not sent."""

    tenant: _HeaderName | None = "X-Semiflow-Tenant"
    slo_class: _HeaderName | None = "X-Semiflow-Slo-Class"
    session_id: _HeaderName | None = "X-Semiflow-Session"


class ClientConfig(StrictModel):
    """Whom the client asks, and how."""

    url: str = "http://127.0.0.1:8000"
    """With or without ``/v1``."""
    model: str | None = None
    """None: the only one that the server lists."""
    api_key_env: str | None = None
    """The environment variable that holds the key; the key itself is written nowhere."""
    prompts: Literal["tokens", "text", "chat"] = "tokens"
    """Token ids or text to ``/v1/completions``, or text to ``/v1/chat/completions``."""
    vocab: Annotated[tuple[_TokenId, _TokenId] | None, Field(strict=False)] = None
    """Prompts hold token ids from the first up to, not including, the second; None: as the server says."""
    tokenizer: str | None = None
    """The model's ``tokenizer.json``, by which prompts of text get their lengths."""
    prompt_seed: Seed | None = None
    """None: ``seed``. Equal seeds give equal prompts, which a server that still runs may have in its cache."""
    too_long: Literal["refuse", "clip"] = "refuse"
    """Requests over the server's context: not sent, and a miss; or cut to fit."""
    ignore_eos: bool = True
    usage: Literal["continuous", "final", "none"] = "continuous"
    """Token counts by the server: with each chunk (vLLM's extension), at the end, or none."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further keys of each request; they win over ours."""
    label_headers: LabelHeaders = LabelHeaders()
    timeout_s: PositiveSeconds = 600.0
    max_concurrency: Annotated[int, count_field(1_000_000)] | None = None
    """None: open loop. A number: no more requests at once, so that the load depends on the server."""
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """Of requests that the server did not take: no connection, 429, 503."""
    trial: bool = True
    """One request before all others, to tell a server that cannot serve them; it is no part of the trace."""
    warmup_requests: Annotated[int, Field(ge=0, le=10_000)] = 0
    cores: Annotated[tuple[_Core, ...] | None, Field(strict=False, min_length=1)] = None
    """Cores that the client keeps to."""
    lag_bound_s: PositiveSeconds = 0.01
    """A p99 of the client's own lateness over this is remarked on."""

    @field_validator("url")
    @classmethod
    def _is_a_server(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number of a port
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is no server's address; write it as http://HOST:PORT")
        if parts.username or parts.password:
            raise ValueError("an address with a password in it would be written down; use --api-key-env")
        return url

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.vocab is not None and self.vocab[0] >= self.vocab[1]:
            raise ValueError(f"vocab must end after it starts, got {list(self.vocab)}")
        if self.tokenizer is not None and self.prompts == "tokens":
            raise ValueError("a tokenizer is for prompts of text; give --prompts text or chat, or leave it out")
        return self


class ReplayConfig(StrictModel):
    """One replay."""

    workload: WorkloadConfig = WorkloadConfig()
    client: ClientConfig = ClientConfig()
    slo: SloConfig | None = None
    seed: Seed = 0
    """Of the workload and, unless ``client.prompt_seed`` says otherwise, of the prompts."""


def load_replay(path: str | os.PathLike[str]) -> ReplayConfig:
    """A replay's configuration, or the traffic and the address of a deployment's (:class:`RunConfig`)."""
    if not set(read_mapping(path)) & (set(RunConfig.model_fields) - set(ReplayConfig.model_fields)):
        return load(path, ReplayConfig)
    run = load(path, RunConfig)
    client = ClientConfig() if run.serve is None else ClientConfig(url=_address(run.serve.host, run.serve.port))
    return ReplayConfig(workload=run.workload, client=client, slo=run.slo, seed=run.seed)


def tokenizer_path(client: ClientConfig) -> Path | None:
    """Where the tokenizer is."""
    return Path(client.tokenizer).expanduser() if client.tokenizer is not None else None


def _address(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"

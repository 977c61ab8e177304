"""The live part of a configuration: what ``semiflow serve`` needs beyond what it shares with the simulator.

``fleet.model`` names the model in both hosts: a bundled one (``tiny``, ``llama-30m``) or a folder in Hugging Face's
layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from experiments.config_base import PositiveSeconds, Seed, StrictModel

_Cores = Annotated[tuple[Annotated[int, Field(ge=0, le=4095)], ...] | None, Field(strict=False, min_length=1)]
_LAST_PORT = 65_535
LOCAL_ADDRESSES = ("127.0.0.1", "localhost", "::1")


class HandoverConfig(StrictModel):
    """How KV moves from a prefill to a decode instance."""

    transport: Literal["shm", "tcp"] = "shm"
    granularity: Literal["request", "layer"] = "request"
    """``layer``: a layer is copied as soon as the prefill has written it."""
    timeout_s: PositiveSeconds = 10.0


class AuthConfig(StrictModel):
    """Who may ask. Off on a local address unless a keys file is given; on everywhere else.

    An SLO class is a label: policies see it, and it is recorded. The targets that its requests are judged by are those
    of the section ``slo``: ``slo.classes``, or the general ones.
    """

    keys_file: str | None = None
    """A file of API keys with tenant, SLO class and limits of each."""
    open_to_all: bool = False
    """No keys on an address that others can reach: has to be said."""


class LimitsConfig(StrictModel):
    """Beyond these a request is refused before any work is done for it. Requests of batch jobs wait instead; they count
    in the tenant's limit only."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 4 * 2**20
    max_prompt_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """None: what an instance can hold."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    max_concurrent_per_tenant: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    request_timeout_s: PositiveSeconds = 600.0


class RecordConfig(StrictModel):
    """What a live run keeps."""

    events: bool = True
    decisions: Literal["none", "dispatch", "all"] = "none"
    """``all``: those of the batch policies too, with the whole lane as they saw it."""


class ServeConfig(StrictModel):
    """One live deployment on one host."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=_LAST_PORT)] = 8000
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    weights_seed: Seed = 0
    """Of a model without weights: they are drawn once and kept."""
    cpu_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """The part of one core that each lane of an instance may compute; None: as much as it gets."""
    steady: bool = False
    """``cpu_share`` is a part of a standard core: what a core does in a second changes with its neighbours' work, what
    a lane may do does not. Each worker keeps measuring how fast its core is (``reference_impl.engine.yardstick``)."""
    instance_cores: _Cores = None
    """Cores that the instances' workers keep to."""
    other_cores: _Cores = None
    """Cores that everything else keeps to."""
    front_doors: Annotated[int, Field(ge=1, le=64)] = 1
    """Several share ``port``; a client comes to any of them, and each lets in its part of every ``max_concurrent`` (at
    least 1), those of API keys included. Each also listens alone, at ``port`` + 1, + 2, ...: scrape ``/metrics`` there
    (label ``front_door``), and use one of these ports for ``/v1/jobs``, which the shared one refuses."""
    prefix_block_tokens: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Prompt tokens per prefix id, whole KV blocks; None: one KV block."""
    handover: HandoverConfig = HandoverConfig()
    auth: AuthConfig = AuthConfig()
    limits: LimitsConfig = LimitsConfig()
    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    """How often a request is tried where instances fail under it, before it gets its error."""
    stall_timeout_s: PositiveSeconds = 60.0
    """An iteration that takes longer means that its worker hangs: it is replaced."""
    dashboard: bool = False
    record: RecordConfig = RecordConfig()

    @model_validator(mode="after")
    def _steady_share(self) -> Self:
        if self.steady and self.cpu_share is None:
            raise ValueError("serve.steady is about a part of a core; give serve.cpu_share, or leave it out")
        return self

    @model_validator(mode="after")
    def _keys_beyond_this_host(self) -> Self:
        if self.host not in LOCAL_ADDRESSES and self.auth.keys_file is None and not self.auth.open_to_all:
            raise ValueError(
                f"serve.host {self.host} can be reached by others and needs API keys; give auth.keys_file, or say"
                " auth.open_to_all: true"
            )
        return self

    @model_validator(mode="after")
    def _ports_for_all(self) -> Self:
        if self.front_doors > 1 and self.port + self.front_doors > _LAST_PORT:
            raise ValueError(
                f"serve.port {self.port} leaves no ports for {self.front_doors} front doors; give one up to"
                f" {_LAST_PORT - self.front_doors}"
            )
        return self

    @property
    def keys_file(self) -> Path | None:
        """Where the API keys are."""
        return Path(self.auth.keys_file).expanduser() if self.auth.keys_file is not None else None

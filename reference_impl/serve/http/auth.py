"""API keys: who calls, and what that caller may have.

The keys file is YAML (or JSON), one entry a key; ``sha256`` is the hexadecimal digest of the key, so that the file need
not hold the key itself (``printf %s KEY | sha256sum``). A file with plain ``key`` entries must be readable by its owner
only::

    keys:
      - sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
        tenant: research
        slo_class: interactive
        max_concurrent: 32
        max_prompt_tokens: 4096
"""

from __future__ import annotations

import hmac
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from reference_impl.serve.http.errors import ServingError, invalid
from reference_impl.serve.http.settings import SettingsError

TENANT_HEADER, SLO_CLASS_HEADER, SESSION_HEADER = "x-semiflow-tenant", "x-semiflow-slo-class", "x-semiflow-session"
MAX_HEADER_CHARACTERS = 512
_KEY_HINT = "send the header Authorization: Bearer KEY"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request runs."""

    tenant: str | None = None
    slo_class: str | None = None
    max_concurrent: int | None = None
    """None: the front door's limit per tenant."""
    max_prompt_tokens: int | None = None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Entry(_Strict):
    """One key of the file."""

    key: Annotated[str, Field(min_length=8)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    tenant: Annotated[str, Field(min_length=1, max_length=MAX_HEADER_CHARACTERS)]
    slo_class: str | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self

    def digest(self) -> bytes:
        """What is compared: the key itself is not kept."""
        return sha256(self.key.encode()).digest() if self.key is not None else bytes.fromhex(self.sha256 or "")


class _File(_Strict):
    keys: Annotated[list[_Entry], Field(min_length=1)]


class KeyRing:
    """The callers of one front door; without keys everybody is the same caller."""

    def __init__(self, callers: dict[bytes, Caller]) -> None:
        self._callers = callers

    @property
    def needed(self) -> bool:
        """Whether a request must bring a key."""
        return bool(self._callers)

    def caller(self, request: Request) -> Caller:
        """Who sent this request. Raises ServingError (400, 401).

        Without keys a client may name its own tenant and SLO class by headers; with keys these come from the key, and
        the headers are not looked at.
        """
        if not self._callers:
            return Caller(header(request, TENANT_HEADER), header(request, SLO_CLASS_HEADER))
        return self._known(request.headers.get("authorization"))

    def _known(self, authorization: str | None) -> Caller:
        if authorization is None:
            raise ServingError(401, f"no API key was given; {_KEY_HINT}", code="missing_api_key")
        scheme, _, key = authorization.partition(" ")
        digest = sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, caller in self._callers.items():  # all of them: how long it takes says nothing about any key
            if hmac.compare_digest(known, digest):
                found = caller
        if scheme.lower() != "bearer" or found is None:
            raise ServingError(401, f"the API key is not known; {_KEY_HINT}", code="invalid_api_key")
        return found


def header(request: Request, name: str) -> str | None:
    """A header's value. Raises ServingError (400) for one that is over-long."""
    value = request.headers.get(name)
    if value is not None and len(value) > MAX_HEADER_CHARACTERS:
        raise invalid(f"the header {name} has {len(value)} characters; allowed are {MAX_HEADER_CHARACTERS}", name)
    return value or None


def load_keys(path: Path | None) -> KeyRing:
    """The keys of a file. Raises SettingsError."""
    if path is None:
        return KeyRing({})
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = _File.model_validate(content).keys
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise SettingsError(f"{path} holds no API keys that can be used ({_one_line(error)}); correct it") from error
    if any(entry.key is not None for entry in entries) and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"{path} holds plain API keys and others may read it; run chmod 600, or keep sha256 digests"
        )
    callers = {
        entry.digest(): Caller(entry.tenant, entry.slo_class, entry.max_concurrent, entry.max_prompt_tokens)
        for entry in entries
    }
    if len(callers) < len(entries):
        raise SettingsError(f"{path} holds an API key twice; each may stand there once")
    return KeyRing(callers)


def _one_line(error: Exception) -> str:
    """Without values: a message must not show a key."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}" if not isinstance(error, OSError) else str(error.strerror)

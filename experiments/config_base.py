"""What every part of a configuration is made of: bounded numbers and the strict model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# The upper bounds are beyond any use; they turn a slip of the keyboard into a message, where it would fill the memory.
MAX_RATE = 1e6
MAX_INSTANCES = 10_000
MAX_SECONDS = 1e9
MIN_PERIOD_S = 1e-3
DEFAULT_HARDWARE = "a100-80g"
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Rate = Annotated[float, Field(gt=0, le=MAX_RATE, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
Period = Annotated[float, Field(ge=MIN_PERIOD_S, le=MAX_SECONDS, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Gamma = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
RoleName = Literal["colocated", "prefill", "decode", "semi_pd"]


def count_field(most: int) -> Any:
    """The bounds of a whole number from 1 on."""
    return Field(ge=1, le=most)


class ConfigError(ValueError):
    """A configuration that cannot be meant: names the file, the key, the value and what is allowed."""


class StrictModel(BaseModel):
    """Frozen; an unknown key fails, since a misspelt setting must not be lost quietly; "8" is not 8."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

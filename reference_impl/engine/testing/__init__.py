"""Instances without torch, for tests of whatever stands on the engine; shipped, so that others can use them too."""

from reference_impl.engine.testing.crews import FakeCrew, FakeCrews
from reference_impl.engine.testing.door import FakeDoor
from reference_impl.engine.testing.faults import (
    BlockThief,
    Faults,
    FaultyPuller,
    FaultyWorkers,
    refusing,
    without_memory,
)
from reference_impl.engine.testing.model import FAKE_VOCAB_TOKENS, fake_layout, fake_tokens
from reference_impl.engine.testing.runner import FakeRunner
from reference_impl.engine.testing.specs import fake_builder, fake_request, fake_spec

__all__ = [
    "FAKE_VOCAB_TOKENS",
    "BlockThief",
    "FakeCrew",
    "FakeCrews",
    "FakeDoor",
    "FakeRunner",
    "Faults",
    "FaultyPuller",
    "FaultyWorkers",
    "fake_builder",
    "fake_layout",
    "fake_request",
    "fake_spec",
    "fake_tokens",
    "refusing",
    "without_memory",
]

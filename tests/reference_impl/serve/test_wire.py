from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.api import InstanceView, PolicyEvent, RequestView
from reference_impl.engine.api import EngineRequest, SampledToken, SamplingParams
from reference_impl.engine.step import Parcel
from reference_impl.serve.messages import MESSAGES, Adopt, Ask, News, Progress, Submit, Tokens
from reference_impl.serve.wire import WireError, builder, pack, typed, unpack

IDS = st.integers(0, 2**63 - 1)
VIEW = RequestView(7, 1.5, 3, (1, 2**62), 16, predicted_output_tokens=9, tenant="a")
PARAMS = SamplingParams(max_tokens=4, temperature=0.0, top_k=3, stop_token_ids=(5, 6), logprobs=2)
REQUEST = EngineRequest(VIEW, (1, 2, 3), PARAMS, generated=(4,))
PARCEL = Parcel(7, 0, 3, (8, 9), "shm:/x", "pool", (2, "float32"))


def over_the_wire(value: Any) -> Any:
    return typed(type(value), unpack(pack(value)))


@pytest.mark.parametrize(
    "message",
    [
        Submit(1, REQUEST),
        Adopt(2, REQUEST, PARCEL),
        Ask(1, "prefill", VIEW),
        News(InstanceView(0, "colocated", "ready", 1.0, 1, 2, 3, 4, 5, 6, 16)),
        News(None, (PolicyEvent("finished", 1.0, 7, 0, 4),)),
        Progress(1.0, (Tokens(7, 1, 0, (SampledToken(7, 5, -0.5, ((5, -0.5), (6, -1.0))),), "stop"),)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(message: Any) -> None:
    assert over_the_wire(message) == message
    assert type(over_the_wire(message)) is type(message)


@given(st.lists(IDS, max_size=20), st.lists(IDS, max_size=5), st.floats(allow_nan=False), st.text(max_size=20))
@settings(max_examples=50)
def test_requests_of_any_content_arrive(prompt: list[int], ids: list[int], at_s: float, tenant: str) -> None:
    view = RequestView(1, at_s, len(prompt), tuple(ids), 16, tenant=tenant)
    sent = Submit(1, EngineRequest(view, tuple(prompt), PARAMS))
    assert over_the_wire(sent) == sent


def test_every_message_can_be_built_from_plain_values() -> None:
    for kind in MESSAGES:
        assert builder(kind) is not None, kind


@given(st.binary(max_size=64))
@settings(max_examples=200)
def test_any_bytes_are_a_value_or_an_error(content: bytes) -> None:
    try:
        plain = unpack(content)
    except WireError:
        return
    for kind in MESSAGES:
        try:
            typed(kind, plain)
        except WireError:
            continue


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(WireError, match="Submit has 2 fields, got 1"):
        typed(Submit, (1,))


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(WireError, match="not a Submit"):
        typed(Submit, 3)


def test_an_object_that_cannot_travel_is_named() -> None:
    class Odd(NamedTuple):
        value: object

    with pytest.raises(WireError, match="Network cannot be sent"):
        pack(Odd(type("Network", (), {})()))

"""The OpenAPI document is true: whatever it leads a client to send is answered as it says, and never with a 500."""

from __future__ import annotations

from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from reference_impl.serve.http.app import create_app
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.http.testing import FakeGateway
from reference_impl.serve.http.tokenizer import BUNDLED, load_tokenizer


def app_with_little_context() -> FastAPI:
    return create_app(HttpSettings("tiny", 48, 4096), load_tokenizer(BUNDLED, 4096), FakeGateway())


schema = schemathesis.openapi.from_asgi("/openapi.json", app_with_little_context())
NOT_IN_THE_DOCUMENT: list[Any] = [CHECKS.get_one("positive_data_acceptance")]
"""That some parameters need each other, the length of a prompt in tokens, that 1.0 is no integer here."""


@schema.parametrize()
@settings(max_examples=40, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(excluded_checks=NOT_IN_THE_DOCUMENT)

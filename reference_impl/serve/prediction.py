"""The expected output length of a request, as its front door asks for it."""

from __future__ import annotations

import logging

from policies.api import PolicyError, RequestView
from reference_impl.core.prediction import Prediction

_LOG = logging.getLogger(__name__)


def predicted_tokens(prediction: Prediction | None, view: RequestView, now_s: float) -> int | None:
    """What the predictor says. One that fails costs its request the prediction, not its answer."""
    if prediction is None:
        return None
    try:
        return prediction.tokens(view, now_s)
    except PolicyError as error:
        _LOG.error("%s", error)
        return None

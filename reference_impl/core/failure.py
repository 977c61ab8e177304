"""A policy that raises is a user's mistake: say which policy, what it was doing, and where it happened."""

from __future__ import annotations

import traceback

from policies.api import PolicyError

RAISED = (Exception, SystemExit)
"""What a host catches around a call of a policy; an interrupt is not the policy's."""


def policy_failure(policy: object, doing: str, error: BaseException) -> PolicyError:
    """The error to raise ``from error``, in one line."""
    if isinstance(error, PolicyError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    what = " ".join(str(error).split())
    name = getattr(policy, "name", type(policy).__name__)
    return PolicyError(
        f"policy {name!r} raised {type(error).__name__}{': ' if what else ''}{what}{where} while {doing};"
        " allowed: a decision, or PolicyError with a reason"
    )

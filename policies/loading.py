"""Finding a policy's class and checking that it fulfils its kind's contract."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast, get_args

from policies.api import PolicyKind

GROUP = "semiflow.policies"
METHODS: dict[PolicyKind, tuple[str, ...]] = {
    "dispatch": ("dispatch",),
    "batch": ("plan",),
    "partition": ("initial", "partition"),
    "scaling": ("scale",),
    "prediction": ("predict",),
}
ATTRIBUTES: dict[PolicyKind, tuple[str, ...]] = {
    "dispatch": (),
    "batch": (),
    "partition": ("window_s",),
    "scaling": ("interval_s",),
    "prediction": ("oracle",),
}


class UnknownPolicy(ValueError):  # noqa: N818 - the name that users meet; it reads as the message does
    """No such policy: the name is in no table, its class cannot be imported, or it lacks what its kind needs."""


@cache
def plugins(taken: tuple[tuple[str, str], ...]) -> dict[str, EntryPoint]:
    """Entry points of the group by name; raises ``UnknownPolicy`` where a name is given twice or already ``taken``."""
    owners = dict(taken)
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        owner = origin(point)
        if point.name in owners:
            raise UnknownPolicy(
                f"policy name {point.name!r} is registered twice: by {owners[point.name]} and by {owner}; "
                "rename or uninstall one of them"
            )
        owners[point.name] = owner
        found[point.name] = point
    return found


def origin(point: EntryPoint) -> str:
    """Who registered an entry point: ``package my-router (my_router.policy:Mine)``."""
    return f"package {point.dist.name if point.dist else '?'} ({point.value})"


def kind_of(point: EntryPoint) -> PolicyKind:
    """The kind of policy that an entry point provides; imports it."""
    cls = _import_class(point.value, "third-party")
    for kind in get_args(PolicyKind):
        if getattr(cls, "kind", None) == kind:
            return cast(PolicyKind, kind)
    kinds = ", ".join(get_args(PolicyKind))
    raise UnknownPolicy(f"policy {point.name!r} of {origin(point)} must have a class attribute kind, one of {kinds}")


def load_class(target: str, kind: PolicyKind) -> type:
    """Import ``module:Class`` and check it against the contract of ``kind``; all failures are ``UnknownPolicy``."""
    cls = _import_class(target, kind)
    _check_contract(cls, target, kind)
    return cls


def _import_class(target: str, kind: str) -> type:
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UnknownPolicy(f"{kind} policy {target}: importing {module_name} failed: {error}") from error
        raise UnknownPolicy(f"{kind} policy {target}: no module named {error.name!r}; {_search_path()}") from error
    except (Exception, SystemExit) as error:
        raise UnknownPolicy(f"{kind} policy {target}: importing {module_name} failed: {reason(error)}") from error
    found: object = module
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type):
        return found
    classes = [
        name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name
    ]
    message = f"{kind} policy {target}: {getattr(module, '__file__', module_name)} has no class {class_name!r}"
    raise UnknownPolicy(message + suggestion(class_name, classes))


def reason(error: BaseException) -> str:
    """What went wrong and where, on one line: ``RuntimeError: no luck (mine.py:3)``."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + place


def _search_path() -> str:
    here = os.getcwd()
    on_path = any(os.path.abspath(entry or here) == here for entry in sys.path)
    if on_path:
        return f"the current folder {here} is on the import path and holds none; install the package or change folder"
    return f"the current folder {here} is not on the import path; install the package or set PYTHONPATH"


def _check_contract(cls: type, target: str, kind: PolicyKind) -> None:
    declared = getattr(cls, "kind", None)
    if declared is not None and declared != kind:
        raise UnknownPolicy(f"{target} is a {declared} policy; a {kind} policy is needed here")
    missing = [f"method {name}()" for name in METHODS[kind] if not callable(getattr(cls, name, None))]
    names = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    wanted = ("kind", "name", *ATTRIBUTES[kind])
    missing += [f"attribute {name}" for name in wanted if not hasattr(cls, name) and name not in names]
    if missing:
        raise UnknownPolicy(f"{target} is no {kind} policy: it lacks {', '.join(missing)} (see policies/api.py)")
    for name in METHODS[kind]:
        if inspect.iscoroutinefunction(getattr(cls, name)):
            raise UnknownPolicy(f"{target}: {name}() is async; a policy has plain def methods")


def check_oracle(kind: PolicyKind, name: str, policy: Any) -> None:
    """What knows the future must say so wherever its name is read, or a bound passes for a result."""
    if kind != "prediction" or not policy.oracle:
        return
    for told in (name, str(policy.name)):
        if "oracle" not in told.lower():
            raise UnknownPolicy(
                f"prediction policy {name} sees the true output length (oracle is {policy.oracle!r}), but the name "
                f"{told!r} does not say so; put 'oracle' into its registered name (or its class's) and into name"
            )


def suggestion(name: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'? It has: x, y`` - the end of an error message, on one line."""
    ordered = sorted(choices)
    close = get_close_matches(name, ordered, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} there is: {', '.join(ordered) or 'nothing'}"

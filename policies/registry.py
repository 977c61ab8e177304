"""Which policies there are, and how a policy is named in text.

``least_loaded``, ``least_loaded:metric=tokens``, ``my_module:MyClass`` or ``my_module:MyClass:key=value,key=value``.
A name is looked up in :data:`BUILTIN`, then among the entry points of group ``semiflow.policies`` (whose names must be
new), then taken as ``module:Class``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, Self

from policies.api import PolicyKind
from policies.docs import sections
from policies.loading import UnknownPolicy, check_oracle, kind_of, load_class, origin, plugins, reason, suggestion
from policies.parameters import Parameter, ParameterError, Value, parameters_of, to_text

__all__ = [
    "BUILTIN",
    "BrokenPolicy",
    "Parameter",
    "ParameterError",
    "PolicyInfo",
    "PolicySpec",
    "UnknownPolicy",
    "available",
    "survey",
]

BUILTIN: dict[PolicyKind, dict[str, str]] = {
    "dispatch": {
        "round_robin": "policies.dispatch.round_robin:RoundRobin",
        "random": "policies.dispatch.random_choice:RandomChoice",
        "least_loaded": "policies.dispatch.least_loaded:LeastLoaded",
        "power_of_two": "policies.dispatch.power_of_two:PowerOfTwo",
        "prefix_affinity": "policies.dispatch.prefix_affinity:PrefixAffinity",
        "cache_aware": "policies.dispatch.cache_aware:CacheAware",
        "kv_cost": "policies.dispatch.kv_cost:KvCost",
        "weighted_scorers": "policies.dispatch.weighted_scorers:WeightedScorers",
        "preble_e2": "policies.dispatch.preble_e2:PrebleE2",
        "mooncake": "policies.dispatch.mooncake:Mooncake",
        "splitwise_mixed": "policies.dispatch.splitwise_mixed:SplitwiseMixed",
        "pd_aware": "policies.dispatch.pd_aware:PdAware",
        "locality": "policies.dispatch.locality:Locality",
        "deepflow": "policies.dispatch.deepflow:DeepFlow",
    },
    "batch": {
        "prefill_first": "policies.batch.prefill_first:PrefillFirst",
        "unified_budget": "policies.batch.unified_budget:UnifiedBudget",
        "chunked_prefill": "policies.batch.chunked_prefill:ChunkedPrefill",
        "decode_first": "policies.batch.decode_first:DecodeFirst",
        "whole_prompts": "policies.batch.whole_prompts:WholePrompts",
        "edf_slack": "policies.batch.edf_slack:EdfSlack",
        "sjf_predicted": "policies.batch.sjf_predicted:SjfPredicted",
        "priority": "policies.batch.priority:Priority",
        "mlfq": "policies.batch.mlfq:Mlfq",
        "vtc": "policies.batch.vtc:Vtc",
    },
    "partition": {
        "none": "policies.partition.none:NoPartition",
        "static_share": "policies.partition.static_share:StaticShare",
        "semi_pd": "policies.partition.semi_pd:SemiPd",
        "pdmux_table": "policies.partition.pdmux_table:PdmuxTable",
        "duet_on_demand": "policies.partition.duet_on_demand:DuetOnDemand",
        "nexus_greedy": "policies.partition.nexus_greedy:NexusGreedy",
    },
    "scaling": {
        "fixed": "policies.scaling.fixed:Fixed",
        "target_tracking": "policies.scaling.target_tracking:TargetTracking",
        "slo_feedback": "policies.scaling.slo_feedback:SloFeedback",
        "dynamo_planner": "policies.scaling.dynamo_planner:DynamoPlanner",
    },
    "prediction": {
        "none": "policies.prediction.none:NoPrediction",
        "oracle": "policies.prediction.oracle:Oracle",
        "mean": "policies.prediction.mean:Mean",
        "mean_learned": "policies.prediction.mean_learned:MeanLearned",
        "bucketed_oracle": "policies.prediction.bucketed_oracle:BucketedOracle",
    },
}

"""Kind -> name -> ``module:Class``. New ones are appended: reports colour a policy by its place."""

_TEXT = re.compile(r"(?P<name>[\w.-]+(?::[A-Za-z_][\w.]*)?)(?::(?P<parameters>.*))?")


@dataclass(frozen=True)
class PolicyInfo:
    """One policy as listed by ``semiflow policies``; all fields are plain values (``dataclasses.asdict`` is JSON)."""

    kind: PolicyKind
    name: str
    target: str
    """``module:Class``."""
    origin: str
    """``built in`` or the package that registered it."""
    summary: str
    idea: str
    reads: str
    source: str
    """Where the policy comes from (paper, system)."""
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class BrokenPolicy:
    """An installed policy that cannot be used."""

    name: str
    origin: str
    """The package that registered it, and its ``module:Class``."""
    error: str


@dataclass(frozen=True)
class PolicySpec:
    """A policy by name and parameters: small, hashable, picklable, and a factory of the policy objects."""

    kind: PolicyKind
    name: str
    """As given: a registered name or ``module:Class``."""
    parameters: tuple[tuple[str, Value], ...] = ()
    """Those that were given, in the order of the policy's fields; the others have their defaults."""

    @classmethod
    def parse(cls, text: str, kind: PolicyKind) -> Self:
        """Read ``name:key=value,...``; raises ``UnknownPolicy`` or ``ParameterError``, one line each."""
        found = _TEXT.fullmatch(text.strip())
        if not found:
            raise UnknownPolicy(f"{text!r} is no {kind} policy; write name, name:key=value,key=value or module:Class")
        given: dict[str, str] = {}
        for pair in (found["parameters"] or "").split(",") if found["parameters"] is not None else ():
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not key:
                raise ParameterError(f"{kind} policy {text!r}: {pair!r} is not key=value")
            if key in given:
                raise ParameterError(f"{kind} policy {text!r}: {key} is given twice")
            given[key] = value
        return cls.of(kind, found["name"], given)

    @classmethod
    def of(cls, kind: PolicyKind, name: str, parameters: Mapping[str, object] | None = None) -> Self:
        """The same from typed values, as a configuration file or a tuner has them."""
        policy = load_class(_find(kind, name)[0], kind)
        known = {parameter.name: parameter for parameter in parameters_of(policy)}
        given = dict(parameters or {})
        for key in given:
            if key not in known:
                raise ParameterError(f"{kind} policy {name} has no parameter {key!r}{suggestion(key, known)}")
        missing = [key for key, parameter in known.items() if parameter.required and key not in given]
        if missing:
            raise ParameterError(f"{kind} policy {name} needs {missing[0]}: {known[missing[0]].allowed()}")
        accepted = tuple((key, _accept(kind, name, known[key], given[key])) for key in known if key in given)
        spec = cls(kind, name, accepted)
        spec.build(0)
        return spec

    def build(self, seed: int) -> Any:
        """A new policy object of this kind's protocol, its ``rng`` seeded."""
        policy_class = load_class(_find(self.kind, self.name)[0], self.kind)
        try:
            policy = policy_class(**dict(self.parameters))
        except ValueError as error:
            raise ParameterError(f"{self.kind} policy {self}: {error}") from error
        except (Exception, SystemExit) as error:
            raise ParameterError(f"{self.kind} policy {self}: building it failed: {reason(error)}") from error
        check_oracle(self.kind, self.name, policy)
        try:
            policy.rng = random.Random(seed)
        except AttributeError as error:
            raise UnknownPolicy(
                f"{self.kind} policy {self.name}: its rng cannot be assigned; the dataclass must not be frozen, "
                "and one with slots must declare rng: random.Random = field(init=False)"
            ) from error
        return policy

    __call__ = build

    @property
    def info(self) -> PolicyInfo:
        """What this policy is, for a listing or a report."""
        return _info(self.kind, self.name)

    def __str__(self) -> str:
        """The text that :meth:`parse` reads back as this value."""
        pairs = ",".join(f"{key}={to_text(value)}" for key, value in self.parameters)
        return f"{self.name}:{pairs}" if pairs else self.name


def available(kind: PolicyKind | None = None) -> list[PolicyInfo]:
    """Every registered policy of a kind (of all kinds: None) that works, built-in ones first. Imports them all."""
    return survey(kind)[0]


def survey(kind: PolicyKind | None = None) -> tuple[list[PolicyInfo], list[BrokenPolicy]]:
    """The policies that :func:`available` lists, and the installed ones of any kind that cannot be used."""
    listed = [_info(each, name) for each, table in BUILTIN.items() if kind in (None, each) for name in table]
    broken: list[BrokenPolicy] = []
    for name, point in _plugins().items():
        try:
            each = kind_of(point)
            if kind in (None, each):
                listed.append(_info(each, name))
        except (UnknownPolicy, ParameterError) as error:
            broken.append(BrokenPolicy(name, origin(point), str(error)))
    return listed, broken


def _plugins() -> dict[str, EntryPoint]:
    return plugins(tuple((name, f"semiflow ({kind})") for kind, table in BUILTIN.items() for name in table))


def _find(kind: PolicyKind, name: str) -> tuple[str, str]:
    """A policy's (``module:Class``, origin)."""
    if kind not in BUILTIN:
        raise UnknownPolicy(f"{kind!r} is no kind of policy{suggestion(str(kind), BUILTIN)}")
    third_party = _plugins()
    if name in BUILTIN[kind]:
        return BUILTIN[kind][name], "built in"
    if name in third_party:
        return third_party[name].value, origin(third_party[name])
    module, colon, rest = name.partition(":")
    if module in BUILTIN[kind] or module in third_party:
        raise ParameterError(f"{kind} policy {name!r}: {rest!r} is not key=value ({module} is a registered policy)")
    if not colon:
        choices = [*BUILTIN[kind], *third_party]
        raise UnknownPolicy(f"unknown {kind} policy {name!r}{suggestion(name, choices)}, or your module:Class")
    return name, "module:Class"


def _accept(kind: PolicyKind, name: str, parameter: Parameter, value: object) -> Value:
    try:
        return parameter.accept(value)
    except ValueError:
        message = f"{kind} policy {name}: {parameter.name}={value} is not allowed; {parameter.name} is"
        raise ParameterError(f"{message} {parameter.allowed()}") from None


def _info(kind: PolicyKind, name: str) -> PolicyInfo:
    target, who = _find(kind, name)
    policy = load_class(target, kind)
    text = sections(policy)
    return PolicyInfo(
        kind=kind,
        name=name,
        target=target,
        origin=who,
        summary=text.get("", ""),
        idea=text.get("Idea", ""),
        reads=text.get("Reads", ""),
        source=text.get("Source", ""),
        parameters=parameters_of(policy),
    )

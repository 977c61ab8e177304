"""Naming policies: what is understood, what is refused, and what the message says."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest

from policies.api import PolicyKind
from policies.docs import HEADINGS, sections
from policies.loading import load_class
from policies.registry import BUILTIN, ParameterError, PolicySpec, UnknownPolicy, available, survey

Module = Callable[..., None]
Package = Callable[[str, str], None]


def refusal(text: str, kind: PolicyKind = "dispatch") -> str:
    with pytest.raises((UnknownPolicy, ParameterError)) as caught:
        PolicySpec.parse(text, kind)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILTIN.items() for name in table])
def test_every_entry_of_the_table_builds_a_policy_of_that_kind_and_name(kind: PolicyKind, name: str) -> None:
    policy = PolicySpec.parse(name, kind).build(0)
    assert (policy.kind, policy.name) == (kind, name)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILTIN.items() for name in table])
def test_every_policy_documents_itself_and_each_parameter(kind: PolicyKind, name: str) -> None:
    assert set(sections(load_class(BUILTIN[kind][name], kind))) == {"", *HEADINGS}
    info = PolicySpec.parse(name, kind).info
    assert info.summary
    assert all(parameter.doc for parameter in info.parameters)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("least_loaded", "dispatch"),
        ("least_loaded:metric=kv", "dispatch"),
        ("semi_pd:window_s=2.5,step_pct=1,printed_variant=true", "partition"),
        ("unified_budget:token_budget=none,long_prefill_token_threshold=512", "batch"),
        ("policies.dispatch.power_of_two:PowerOfTwo:metric=kv,d=3", "dispatch"),
        ("policies.dispatch.power_of_two:PowerOfTwo", "dispatch"),
    ],
)
def test_text_round_trips(text: str, kind: PolicyKind) -> None:
    spec = PolicySpec.parse(text, kind)
    assert PolicySpec.parse(str(spec), kind) == spec
    assert hash(PolicySpec.parse(str(spec), kind)) == hash(spec)


def test_parameters_are_written_in_the_order_of_the_fields() -> None:
    assert str(PolicySpec.parse(" power_of_two:d= 3, metric =kv", "dispatch")) == "power_of_two:metric=kv,d=3"


def test_the_same_policy_from_text_and_from_typed_values_is_equal() -> None:
    typed = PolicySpec.of("partition", "semi_pd", {"window_s": 2, "printed_variant": True})
    assert typed == PolicySpec.parse("semi_pd:window_s=2,printed_variant=true", "partition")
    assert typed.build(0).window_s == 2.0


def test_a_spec_is_frozen_and_survives_pickle() -> None:
    spec = PolicySpec.parse("power_of_two:d=3", "dispatch")
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]


def test_building_seeds_the_policy_and_calling_is_building() -> None:
    spec = PolicySpec.parse("random", "dispatch")
    assert spec.build(7).rng.random() == random.Random(7).random()
    assert spec(7).rng.random() == spec.build(7).rng.random()
    assert spec(7) is not spec(7)


def test_an_unknown_name_shows_a_close_match_and_the_choices() -> None:
    message = refusal("least_loded")
    assert "did you mean 'least_loaded'" in message
    assert all(name in message for name in BUILTIN["dispatch"])


def test_a_name_of_another_kind_is_unknown() -> None:
    assert "unknown batch policy 'least_loaded'" in refusal("least_loaded", "batch")


def test_an_unknown_parameter_shows_a_close_match_and_the_choices() -> None:
    message = refusal("power_of_two:metrc=kv")
    assert "'metrc'; did you mean 'metric'? there is: d, metric" in message


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("power_of_two:metric=tokenz", "requests | tokens | kv (default requests)"),
        ("power_of_two:d=0", "int in [1, 64] (default 2)"),
        ("power_of_two:d=65", "int in [1, 64] (default 2)"),
        ("power_of_two:d=2.5", "int in [1, 64] (default 2)"),
        ("power_of_two:d=none", "int in [1, 64] (default 2)"),
        ("prefix_affinity:match_threshold=nan", "float in [0, 1] (default 0.5)"),
        ("prefix_affinity:imbalance_ratio=many", "float in [1, 10] (default 1.1)"),
    ],
)
def test_a_value_that_is_not_allowed_shows_what_is(text: str, allowed: str) -> None:
    assert f"{text.partition(':')[2]} is not allowed" in refusal(text)
    assert allowed in refusal(text)


def test_optional_parameters_show_that_none_is_allowed() -> None:
    assert "int in [1, 131072] or none (default none)" in refusal("prefill_first:token_budget=0", "batch")


@pytest.mark.parametrize("value", [True, "1.0", 1.0, None, [1], float("inf")])
def test_typed_values_of_the_wrong_type_are_refused(value: object) -> None:
    with pytest.raises(ParameterError, match="d is int in"):
        PolicySpec.of("dispatch", "power_of_two", {"d": value})


@pytest.mark.parametrize("text", ["power_of_two:", "power_of_two:d", "power_of_two:d=2,", "power_of_two:=2"])
def test_broken_parameters_are_refused(text: str) -> None:
    assert "is not key=value" in refusal(text)


def test_a_parameter_given_twice_is_refused() -> None:
    assert "d is given twice" in refusal("power_of_two:d=2,d=3")


@pytest.mark.parametrize("text", ["", "a b", ":Mine"])
def test_text_that_names_nothing_is_refused(text: str) -> None:
    assert "write name, name:key=value" in refusal(text)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownPolicy, match="'batsch' is no kind of policy; did you mean 'batch'"):
        PolicySpec.parse("none", "batsch")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- module:Class


def test_a_users_class_is_used_with_its_parameters(module: Module) -> None:
    module("my_router")
    spec = PolicySpec.parse("my_router:Mine:weight=2,limit=3,mode=slow,on=TRUE,label=none,count=4", "dispatch")
    policy = spec.build(0)
    assert (policy.weight, policy.limit, policy.mode, policy.on, policy.label, policy.count) == (
        (2.0, 3, "slow", True, None, 4)
    )
    assert PolicySpec.parse(str(spec), "dispatch") == spec


def test_parameter_texts_come_from_the_docstring(module: Module) -> None:
    module("my_router")
    info = PolicySpec.parse("my_router:Mine", "dispatch").info
    weight = info.parameters[0]
    assert (info.summary, info.idea, info.origin) == ("My router.", "Always the last.", "module:Class")
    assert (weight.name, weight.type, weight.default, weight.low, weight.high) == ("weight", "float", 1.0, 0, 4)
    assert weight.doc == "how much, and why."


def test_text_with_a_comma_has_no_spelling_and_is_refused(module: Module) -> None:
    module("my_router")
    with pytest.raises(ParameterError, match="label"):
        PolicySpec.of("dispatch", "my_router:Mine", {"label": "a,b"})


def test_a_missing_module_says_whether_the_current_folder_was_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal("nowhere.at_all:Mine")
    assert "no module named 'nowhere'" in message
    assert f"{os.getcwd()} is not on the import path" in message
    monkeypatch.syspath_prepend(str(tmp_path))
    assert f"{os.getcwd()} is on the import path and holds none" in refusal("nowhere.at_all:Mine")


def test_a_module_that_fails_at_import_shows_its_own_error(module: Module) -> None:
    module("broken", "import does_not_exist_either")
    assert "importing broken failed: No module named 'does_not_exist_either'" in refusal("broken:Mine")
    module("worse", "raise RuntimeError('two\\nlines')")
    assert "importing worse failed: RuntimeError: two lines (" in refusal("worse:Mine")
    module("leaving", "x = 1\nraise SystemExit('bye')")
    assert re.search(r"importing leaving failed: SystemExit: bye \(.*leaving\.py:2\)", refusal("leaving:Mine"))


def test_a_missing_class_shows_the_classes_of_the_module(module: Module) -> None:
    module("my_router")
    assert "has no class 'Nine'; did you mean 'Mine'? there is: Mine" in refusal("my_router:Nine")


def test_what_a_class_lacks_is_named(module: Module) -> None:
    module("empty", "class Mine: pass")
    assert "lacks method dispatch(), attribute kind, attribute name" in refusal("empty:Mine")
    assert "lacks method initial(), method partition(), attribute kind, attribute name, attribute window_s" in refusal(
        "empty:Mine", "partition"
    )


def test_a_class_of_another_kind_is_refused(module: Module) -> None:
    module("my_router")
    assert "my_router:Mine is a dispatch policy; a batch policy is needed" in refusal("my_router:Mine", "batch")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@dataclass\n", "\n", "is not a dataclass"),
        ("def dispatch", "async def dispatch", "dispatch() is async"),
        ("count: int = 0", "count: dict = field(default_factory=dict)", "field count has type"),
        ("count: int = 0", "count: 'Missing' = 0", "an annotation cannot be read"),
        ("@dataclass\n", "@dataclass(frozen=True)\n", "must not be frozen"),
        ("def dispatch", "def __post_init__(self):\n        raise ValueError('no luck')\n    def dispatch", "no luck"),
        (
            "def dispatch",
            "def __post_init__(self):\n        exit(0)\n    def dispatch",
            "building it failed: SystemExit: 0",
        ),
        ("count: int = 0", "count: 'random.Missing' = 0", "an annotation cannot be read"),
    ],
)
def test_a_class_that_cannot_be_a_policy_is_refused(
    module: Module, tmp_path: Path, old: str, new: str, message: str
) -> None:
    module("my_router")
    source = (tmp_path / "my_router.py").read_text()
    assert old in source
    (tmp_path / "my_router.py").write_text(source.replace(old, new))
    assert message in refusal("my_router:Mine")


CLAIRVOYANT = """
    from dataclasses import dataclass

    @dataclass
    class {cls}:
        kind = "prediction"
        name = "{name}"
        oracle = True

        def predict(self, request):
            return request.oracle_output_tokens
"""


@pytest.mark.parametrize(("cls", "name"), [("Sharp", "sharp"), ("Sharp", "sharp_oracle"), ("SharpOracle", "sharp")])
def test_a_predictor_that_sees_the_truth_must_say_so_in_every_name(module: Module, cls: str, name: str) -> None:
    module("seer", CLAIRVOYANT.format(cls=cls, name=name))
    assert "sees the true output length (oracle is True)" in refusal(f"seer:{cls}", "prediction")


def test_an_oracle_that_is_called_one_is_a_predictor(module: Module) -> None:
    module("seer", CLAIRVOYANT.format(cls="MyOracle", name="my_oracle"))
    assert PolicySpec.parse("seer:MyOracle", "prediction").build(0).oracle


def test_a_required_parameter_is_asked_for(module: Module, tmp_path: Path) -> None:
    module("my_router")
    path = tmp_path / "my_router.py"
    path.write_text(path.read_text().replace("weight: Annotated[float, Range(0, 4)] = 1.0", "weight: float"))
    assert "needs weight: float (required)" in refusal("my_router:Mine")
    assert PolicySpec.parse("my_router:Mine:weight=9", "dispatch").build(0).weight == 9.0
    assert "weight=inf is not allowed" in refusal("my_router:Mine:weight=inf")


# ------------------------------------------------------------------------------------------------- entry points


def test_an_installed_package_adds_a_policy(module: Module, package: Package) -> None:
    module("my_router")
    package("my-plugin", "mine = my_router:Mine")
    assert PolicySpec.parse("mine:weight=3", "dispatch").build(0).weight == 3.0
    listed = {info.name: info for info in available("dispatch")}
    assert listed["mine"].origin == "package my-plugin (my_router:Mine)"
    assert "mine" not in {info.name for info in available("batch")}
    assert "mine" in refusal("mein")


def test_a_name_taken_by_a_built_in_policy_is_an_error_that_names_both(module: Module, package: Package) -> None:
    module("my_router")
    package("my-plugin", "least_loaded = my_router:Mine")
    message = refusal("least_loaded")
    assert "'least_loaded' is registered twice" in message
    assert "semiflow (dispatch)" in message
    assert "package my-plugin (my_router:Mine)" in message


def test_a_name_taken_by_two_packages_is_an_error_that_names_both(module: Module, package: Package) -> None:
    module("my_router")
    package("one", "mine = my_router:Mine")
    package("two", "mine = my_router:Other")
    message = refusal("round_robin")
    assert "package one (my_router:Mine)" in message
    assert "package two (my_router:Other)" in message


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("class Mine: pass", "must have a class attribute kind"),
        ("raise SystemExit(3)", "importing broken failed: SystemExit: 3"),
        ("import does_not_exist_either", "No module named 'does_not_exist_either'"),
    ],
)
def test_a_broken_entry_point_costs_the_listing_only_itself(
    module: Module, package: Package, source: str, error: str
) -> None:
    module("broken", source)
    module("my_router")
    package("my-plugin", "mine = broken:Mine\nother = my_router:Mine")
    listed, broken = survey()
    assert {"round_robin", "other"} <= {info.name for info in listed}
    assert [(entry.name, entry.origin) for entry in broken] == [("mine", "package my-plugin (broken:Mine)")]
    assert error in broken[0].error


# ------------------------------------------------------------------------------------------------------ listing


def test_the_listing_has_every_built_in_policy_and_is_json() -> None:
    listed = available()
    assert {(info.kind, info.name) for info in listed} >= {(kind, name) for kind in BUILTIN for name in BUILTIN[kind]}
    least_loaded = next(
        info for info in json.loads(json.dumps([asdict(info) for info in listed])) if info["name"] == "least_loaded"
    )
    assert least_loaded["parameters"][0]["choices"] == ["requests", "tokens", "kv"]
    assert least_loaded["parameters"][0]["default"] == "tokens"

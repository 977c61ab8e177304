"""DeepServe's Algorithm 1 and its parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policies.api import RequestView, Role
from policies.dispatch.heatmap import ESTIMATED, read_heatmap
from policies.registry import ParameterError, PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request

CSV = """prompt_tokens,decode_ratio,rate_rps,advantage
512,0.5,1,0.3
512,0.5,8,-0.1
512,4,1,-0.2
4096,0.5,1,0.9
4096,4,1,-0.3
4096,4,8,0.4
"""


def request(prompt_tokens: int, output: int | None, *ids: int) -> RequestView:
    return fake_request(0, prompt_tokens, *ids)._replace(predicted_output_tokens=output)


def mixed(*requests: int, tokens: tuple[int, ...] = (0, 0, 0, 0)) -> FakeCluster:
    """Two colocated instances and two for prefill, with these unfinished requests and context tokens."""
    load = requests or (0, 0, 0, 0)
    roles: tuple[Role, ...] = ("colocated", "colocated", "prefill", "prefill")
    return FakeCluster(
        tuple(
            fake_instance(i, role=role, running_requests=load[i], context_tokens=tokens[i])
            for i, role in enumerate(roles)
        )
    )


def decide(policy: object, asked: RequestView, cluster: FakeCluster) -> tuple[int, str | None]:
    decision = policy.dispatch(asked, cluster)  # type: ignore[attr-defined]
    return decision.instance_id, decision.reason


@pytest.fixture
def heatmap(tmp_path: Path) -> Path:
    path = tmp_path / "heatmap.csv"
    path.write_text(CSV)
    return path


def test_cells_of_several_rates_are_added_up(heatmap: Path) -> None:
    table = read_heatmap(str(heatmap))
    assert table.advantage(512, 256) == pytest.approx(0.2)
    assert table.advantage(512, 257) == -0.2
    assert table.advantage(4096, 16_000) == pytest.approx(0.1)
    assert table.advantage(9999, 99) == 0.9, "beyond the last bin counts as the last"


def test_json_says_the_same_as_csv(heatmap: Path, tmp_path: Path) -> None:
    header, *lines = [line.split(",") for line in CSV.split()]
    rows = [dict(zip(header, map(float, line), strict=True)) for line in lines]
    (tmp_path / "heatmap.json").write_text(json.dumps(rows))
    assert read_heatmap(str(tmp_path / "heatmap.json")) == read_heatmap(str(heatmap))


def test_a_cell_that_was_not_profiled_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "holes.csv"
    path.write_text("prompt_tokens,decode_ratio,advantage\n512,0.5,-1\n4096,4,-1\n")
    assert read_heatmap(str(path)).advantage(512, 1000) == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no column prompt_tokens"),
        ("prompt_tokens,decode_ratio\n1,2\n", "has no column advantage"),
        ("prompt_tokens,decode_ratio,advantage\n", "has no cells"),
        (
            "prompt_tokens,decode_ratio,advantage\n512,0.5,much\n",
            "line 2: advantage is 'much'; allowed: a finite number",
        ),
        ("prompt_tokens,decode_ratio,advantage\n512,0.5\n", "line 2: advantage is None"),
        ("prompt_tokens,decode_ratio,advantage\n512,0,1\n", "line 2: decode_ratio is 0; allowed: a positive number"),
        ("prompt_tokens,decode_ratio,advantage\nnan,1,1\n", "line 2: prompt_tokens is 'nan'"),
        ("[1, 2]", "is JSON, but no list of objects"),
        ("[{]", "is no JSON"),
        ('[{"prompt_tokens": true, "decode_ratio": 1, "advantage": 1}]', "entry 1: prompt_tokens is True"),
    ],
)
def test_a_bad_heatmap_is_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    for name in ("pd_aware", "deepflow"):
        with pytest.raises(ParameterError, match="heatmap") as caught:
            PolicySpec.parse(f"{name}:heatmap={path}", "dispatch")
        assert complaint in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_heatmap_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"absent\.csv cannot be read: .*No such file.*; a heatmap is CSV"):
        PolicySpec.parse(f"pd_aware:heatmap={tmp_path}/absent.csv", "dispatch")


def test_the_estimate_prefers_separate_instances_for_long_prompts_and_short_outputs() -> None:
    assert ESTIMATED.advantage(8192, 100) > 0 > ESTIMATED.advantage(8192, 8192)
    crossovers = [
        max(output for output in range(16, 20_000, 16) if ESTIMATED.advantage(prompt, output) > 0)
        for prompt in (256, 512, 1024, 2048, 4096, 8192)
    ]
    assert crossovers == sorted(crossovers), "as prompts grow, longer outputs still gain from it"
    gain, loss = max(ESTIMATED.cells.values()), min(ESTIMATED.cells.values())
    assert gain > -loss, "a wrong choice of separate instances costs less than a right one gains"


def test_pd_aware_takes_the_kind_that_the_heatmap_favours(heatmap: Path) -> None:
    policy = PolicySpec.of("dispatch", "pd_aware", {"heatmap": str(heatmap)}).build(0)
    assert decide(policy, request(512, 100), mixed(tokens=(0, 0, 9, 5))) == (3, "separate")
    assert decide(policy, request(512, 2000), mixed(tokens=(9, 5, 0, 0))) == (1, "colocated")
    assert decide(policy, request(512, None), mixed()) == (2, "separate: length unknown")


def test_pd_aware_makes_do_with_the_only_kind_there_is() -> None:
    policy = PolicySpec.parse("pd_aware", "dispatch").build(0)
    colocated = FakeCluster((fake_instance(4, context_tokens=9), fake_instance(5)))
    assert decide(policy, request(8192, 100), colocated) == (5, "one kind only")


@pytest.mark.parametrize("name", ["pd_aware", "deepflow"])
def test_the_decode_instance_is_the_one_with_the_least_kv_in_use(name: str) -> None:
    policy = PolicySpec.parse(name, "dispatch").build(0)
    views = (fake_instance(6, free_blocks=10), fake_instance(7, running_requests=9, free_blocks=20))
    assert policy.dispatch(request(100, 10), FakeCluster(views, phase="decode")).instance_id == 7


def test_locality_follows_the_longest_prefix_whatever_the_load() -> None:
    policy = PolicySpec.parse("locality", "dispatch").build(0)
    policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), FakeCluster((fake_instance(1),)))
    views = FakeCluster((fake_instance(0), fake_instance(1, waiting_requests=500, waiting_tokens=90_000)))
    assert decide(policy, fake_request(1, 96, 1, 2, 3, 4, 5, 6), views) == (1, "prefix")
    assert decide(policy, fake_request(2, 32, 7, 8), views) == (0, "least loaded")


def test_locality_ignores_a_match_below_its_threshold() -> None:
    policy = PolicySpec.parse("locality:match_threshold=0.5", "dispatch").build(0)
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    views = FakeCluster((fake_instance(0), fake_instance(1, context_tokens=9)))
    assert decide(policy, fake_request(1, 80, 1, 2, 3, 4, 5), views) == (0, "least loaded")
    assert decide(policy, fake_request(2, 64, 1, 2, 8, 9), views)[1] == "prefix"


def test_deepflow_chooses_the_kind_first_and_then_by_prefix() -> None:
    policy = PolicySpec.parse("deepflow", "dispatch").build(0)
    ids = tuple(range(60))
    for only in (0, 3):  # one of each kind gets the prefix
        decide(policy, request(960, 10, *ids), FakeCluster((mixed().instances[only],)))
    busy = mixed(5, 0, 0, 5, tokens=(99, 0, 0, 99))
    assert decide(policy, request(960, 10, *ids), busy) == (3, "separate, prefix")
    assert decide(policy, request(960, 4000, *ids), busy) == (0, "colocated, prefix")


def test_deepflow_goes_by_load_within_the_kind_once_that_is_unbalanced() -> None:
    policy = PolicySpec.parse("deepflow", "dispatch").build(0)
    ids = tuple(range(60))
    decide(policy, request(960, 10, *ids), FakeCluster((mixed().instances[3],)))
    overloaded = mixed(0, 0, 7, 40, tokens=(0, 0, 70, 400))
    assert decide(policy, request(960, 10, *ids), overloaded) == (2, "separate, unbalanced")
    other_kind = mixed(0, 90, 7, 8, tokens=(0, 900, 70, 400))
    assert decide(policy, request(960, 10, *ids), other_kind)[1] == "separate, prefix", "the other kind does not count"


def test_deepflow_goes_by_load_where_no_prefix_matches() -> None:
    policy = PolicySpec.parse("deepflow", "dispatch").build(0)
    assert decide(policy, request(960, 10, *range(60)), mixed(tokens=(0, 0, 9, 5))) == (3, "separate, no prefix")
    assert decide(policy, request(960, 10), mixed(tokens=(0, 0, 5, 9))) == (2, "separate, no prefix")

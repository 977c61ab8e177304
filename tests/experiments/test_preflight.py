"""What a comparison names is looked up before its first case runs, and nothing is left behind where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.compare import compare
from experiments.compare_config import CompareConfig
from experiments.config_base import ConfigError
from experiments.config_file import parse
from experiments.preflight import check_out

BASE = {"workload": {"trace": "bundled:sharegpt-like", "max_requests": 5}, "slo": {"ttft_s": 1.0}}
TWO: dict[str, Any] = {"old": {}, "new": {"policies": {"dispatch": "random"}}}


def _config(**changes: Any) -> CompareConfig:
    return parse(CompareConfig, {"base": BASE, "variants": TWO, "seeds": [0, 1], **changes}, "judge.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": {**TWO, "third": {"policies": {"batch": "unified"}}}},
            r"judge\.yaml: variant 'third', workload 'default': unknown batch policy 'unified'; did you mean",
        ),
        ({"variants": {**TWO, "third": {"fleet": {"model": "gpt-5"}}}}, "variant 'third'.*unknown model 'gpt-5'"),
        ({"variants": {**TWO, "third": {"fleet": {"tp": 7}}}}, "variant 'third'.*tensor parallelism 7"),
        ({"variants": {**TWO, "third": {"fleet": {"pp": 33}}}}, "variant 'third'.*pipeline parallelism 33"),
        ({"workloads": {"a": {}, "b": {"workload": {"trace": "no.csv"}}}}, r"workload 'b': no\.csv: not a file"),
        ({"pairing": {"kind": "windows", "length_s": 1e6}}, "workload 'default': .*no request between"),
        ({"metrics": {"atainment": {"better": "higher"}}}, "metrics: 'atainment' is no figure of a run; did you mean"),
        ({"base": {**BASE, "slo": None}}, "variant 'old'.*metric attainment needs an SLO, for instance slo: {ttft_s"),
        ({"metrics": {"attainment_tpot": {}}}, r"metric attainment_tpot needs slo\.tpot_s"),
        ({"metrics": {"fluidity_mean": {}}}, r"metric fluidity_mean needs slo\.tpot_s, and of each class too"),
        ({"metrics": {"cost": {}}}, r"metric cost needs fleet\.price_per_device_hour; there is no price by default"),
        ({"metrics": {"attainmen[class=fast]": {"better": "higher"}}}, r"'attainmen\[class=fast\]' is no figure"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(_config(**changes), tmp_path / "out", source="judge.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_may_be_judged_by_the_figures_of_a_class(tmp_path: Path) -> None:
    slo = {"ttft_s": 1.0, "tpot_s": 0.1, "classes": {"fast": {"ttft_s": 0.1, "tpot_s": 0.1}}}
    config = _config(base={**BASE, "slo": slo}, metrics={"attainment[class=fast]": {}, "fluidity_mean": {}})
    assert config.higher_is_better("attainment[class=fast]")
    assert [judgement.difference is None for judgement in compare(config).judgements] == [True, False]


def test_a_page_of_somebody_elses_is_not_overwritten(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<title>Quarterly figures</title>", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"report\.html: is no report of semiflow's"):
        check_out(tmp_path, page)
    page.write_text("<title>Mine · semiflow</title>", encoding="utf-8")
    check_out(tmp_path, page)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="is no folder that can be written to"):
        check_out(tmp_path / "out" / "deeper", tmp_path / "out" / "deeper" / "report.html")

"""The page: complete in itself, escaped, the same for the same comparison, and honest about gaps."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from experiments.cases.model import Case, Outcome
from experiments.compare import Comparison, compare
from experiments.compare_config import CompareConfig
from experiments.config_file import parse
from experiments.report import Note, NoteTable, Part, horizon_text, render, write_report
from experiments.report.axis import axis_of, telling_point
from experiments.report.labels import metric_label, number
from experiments.report.matrix import save_matrix
from experiments.report.theme import COLOURS, palette, panels, plain_ticks, policy_colours
from experiments.settled import LEGEND
from policies.registry import BUILTIN

TWO = {"old": {"policies": {"dispatch": "round_robin"}}, "new": {"policies": {"dispatch": "random"}}}
PROVENANCE = {
    "semiflow": "0.1.0",
    "python": "3.11",
    "cost_models": {"roofline": "analytic, uncalibrated"},
    "trace": {"name": "some trace", "licence": "CC-BY-4.0"},
}


def _outcome(case: Case) -> Outcome:
    rng = np.random.default_rng(case.seed)
    late = 1.0 + (case.rate or 1.0) * (case.variant == "old") + 0.01 * rng.random()
    metrics = {"attainment": 1 / late, "offered_rps": 3 * (case.rate or 1.0)}
    metrics |= {f"{family}_{p}_ms": 100 * late for family in ("ttft", "tpot") for p in ("p50", "p99")}
    latencies = (100 * late * rng.lognormal(size=50)).tolist()
    timeline = {"time_s": [0.0, 1.0, 2.0], "running": [0.0, 2.0, 1.0], "waiting": [1.0, 0.0, 0.0]}
    return Outcome(metrics, {"ttft_ms": latencies, "e2e_ms": latencies}, timeline, PROVENANCE)


def _comparison(runner: Callable[[Case], Outcome] = _outcome, **changes: Any) -> Comparison:
    content: dict[str, Any] = {"base": {"slo": {"ttft_s": 1.0, "tpot_s": 0.1}}, "variants": TWO, "seeds": [0, 1, 2]}
    content |= {"rates": [1, 2, 4], "rate_key": "rate_scale"}
    return compare(parse(CompareConfig, {**content, **changes}, "test"), runner=runner)


@pytest.fixture(scope="module")
def page() -> str:
    return render(Part(_comparison()))


def test_the_page_needs_no_network_and_no_scripts(page: str) -> None:
    assert "<script" not in page
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    links = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert all(link.startswith("#") for link in links)
    assert "default-src 'none'" in page


def test_every_figure_is_inline_and_well_formed(page: str) -> None:
    figures = re.findall(r'<svg class="figure".*?</svg>', page, re.DOTALL)
    assert len(figures) == 5
    for figure in figures:
        assert ElementTree.fromstring(figure).attrib["aria-label"]


def test_text_in_figures_stays_text(page: str) -> None:
    figure = re.findall(r'<svg class="figure".*?</svg>', page, re.DOTALL)[0]
    assert "offered rate (requests/s)" in figure


def test_the_page_says_what_how_sure_and_on_what_grounds(page: str) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for expected in (
        "new: better at 3 of 3 points",
        "TTFT ≤ 1,000 ms and TPOT ≤ 100 ms",
        "95 % interval",
        "analytic, uncalibrated",
        "CC-BY-4.0",
        "a request with one output token has no TPOT",
        "policies.dispatch",
    ):
        assert expected in text


def test_a_policy_has_the_same_colour_everywhere(page: str) -> None:
    colours = palette(_comparison().config)
    figures = re.findall(r'<svg class="figure".*?</svg>', page, re.DOTALL)
    assert all(colours["new"] in figure for figure in figures)
    assert f"border-top-color:{colours['new']}" in page


def test_a_policy_has_the_same_colour_on_all_pages_under_any_name() -> None:
    one, other = _comparison().config, _comparison(variants={"third": {}, "newer": TWO["new"]}).config
    assert palette(one)["new"] == palette(other)["newer"] == policy_colours(["random"])["random"]


def test_built_in_policies_of_a_kind_have_different_colours_that_parameters_do_not_change() -> None:
    for table in BUILTIN.values():
        assert len({policy_colours([name])[name] for name in table}) == len(table)
    assert policy_colours(["vtc"])["vtc"] == policy_colours(["vtc:output_weight=3"])["vtc:output_weight=3"]


def test_policies_of_one_page_never_share_a_colour_and_their_order_decides_nothing() -> None:
    shown = [*BUILTIN["dispatch"], "least_loaded:metric=tokens", "mine:One"]
    colours = policy_colours(shown)
    assert len(set(colours.values())) == len(shown) == len(COLOURS)
    assert policy_colours(reversed(shown)) == colours
    assert all(colours[name] == policy_colours([name])[name] for name in BUILTIN["dispatch"])


def test_colours_are_told_apart_with_any_colour_vision() -> None:
    """Euclidean distance in CIELAB as seen by each; 2.3 is just noticeable. Matrices: Machado et al. 2009."""
    seen = np.array(
        [
            np.eye(3),
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        ]
    )
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(seen @ linear.T, 0, 1).swapaxes(1, 2) @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    apart = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)
    assert apart[:, ~np.eye(len(COLOURS), dtype=bool)].min() > 15


def test_a_policy_has_the_same_colour_in_every_part() -> None:
    first = _comparison(rates=[1])
    second = _comparison(rates=[2], variants={"new": TWO["new"], "third": {}}, baseline="third")
    colours = palette(first.config, second.config)
    assert colours["new"] == palette(first.config)["new"] == palette(second.config)["new"]
    assert len(set(colours.values())) == 3
    _, one, two = re.split(r'<h2 class="part" id="part-\d">', render(Part(first), Part(second)))
    for part, absent in ((one, "third"), (two, "old")):
        figures = re.findall(r'<svg class="figure".*?</svg>', part, re.DOTALL)
        assert len(figures) == 5
        assert all(colours["new"] in figure and colours[absent] not in figure for figure in figures)


def test_several_parts_share_a_title_and_what_they_rest_on() -> None:
    parts = (Part(_comparison(title="One"), (Note("On one", "x"),)), Part(_comparison(title="Two", rates=[1])))
    found = render(*parts, title="Both")
    assert "<h1>Both</h1>" in found
    assert found.index("On one") < found.index('id="part-2"') < found.index("How far to trust it")
    assert found.count("analytic, uncalibrated") == found.count("Definitions of the metrics") == 1
    assert [link for link in re.findall(r'href="([^"]*)"', found) if link.startswith("#part")] == ["#part-1", "#part-2"]
    assert "Configuration: One" in found
    assert "Configuration: Two" in found


def test_everything_that_the_runs_assumed_of_a_cost_model_is_shown() -> None:
    def swept(case: Case) -> Outcome:
        return Outcome({"attainment": 0.5}, provenance={"cost_models": {"lanes": f"assumed gamma {case.rate:g}"}})

    found = render(Part(_comparison(swept, rates=[1])), Part(_comparison(swept, rates=[1, 2])))
    assert [found.count(f"assumed gamma {rate}") for rate in (1, 2)] == [1, 1]


def test_equal_comparisons_give_equal_pages(page: str) -> None:
    assert render(Part(_comparison())) == page


def test_names_of_users_are_escaped() -> None:
    name = "<script>alert(1)</script> & $x_1$"
    part = Part(_comparison(title=name, variants={name: {}, "new": TWO["new"]}, rates=[1]), (Note(name, name),))
    found = render(part, part, title=name)
    assert "<script" not in found
    assert "&lt;script&gt;" in found
    figures = re.findall(r'<svg class="figure".*?</svg>', found, re.DOTALL)
    assert any("$x_1$" in "".join(ElementTree.fromstring(figure).itertext()) for figure in figures)


def test_names_in_any_script_are_drawn() -> None:
    assert "比較" in render(Part(_comparison(variants={"比較": {}, "new": TWO["new"]}, rates=[1])))


def test_a_sweep_becomes_the_axis() -> None:
    workloads = {f"gamma {g}": {"contention": {"gamma_decode": g}} for g in (0.0, 0.4, 0.2)}
    sweep = {"label": "assumed gamma", "values": {name: float(name.split()[1]) for name in workloads}}
    comparison = _comparison(workloads=workloads, sweep=sweep, rates=[])
    ((_, points),) = axis_of(comparison).panels
    assert [point.x for point in points] == [0.0, 0.2, 0.4]
    assert "SLO attainment against assumed gamma" in render(Part(comparison))


def test_the_axis_shows_the_rate_that_was_offered_not_the_scale() -> None:
    ((_, points),) = axis_of(_comparison()).panels
    assert [point.x for point in points] == [3.0, 6.0, 12.0]


def test_the_axis_shows_a_rate_that_was_set_as_it_was_set() -> None:
    ((_, points),) = axis_of(_comparison(rate_key="rate_rps")).panels
    assert [point.x for point in points] == [1.0, 2.0, 4.0]


def test_points_whose_load_was_still_growing_are_hollow_and_starred() -> None:
    def growing(case: Case) -> Outcome:
        found = _outcome(case)
        unsettled = case.variant == "new" and case.rate == 4
        return Outcome({**found.metrics, "load_growing": float(unsettled)}, found.curves)

    settled, found = render(Part(_comparison())), render(Part(_comparison(growing)))
    for said in (LEGEND, "Hollow points: the load was still growing at the last arrival."):
        assert said in found
        assert said not in settled
    assert found.count(f'<span title="{LEGEND}">*</span>') == 2  # in the matrix and in the table of all metrics
    hollow = re.compile(r'fill: #ffffff; stroke: ([^;"]*)')
    figures = re.findall(r'<svg class="figure".*?</svg>', found, re.DOTALL)
    assert palette(_comparison().config)["new"] in hollow.findall(figures[0])
    assert not hollow.findall(settled)


def test_the_horizon_of_the_runs_is_stated() -> None:
    def long(case: Case) -> Outcome:
        return Outcome({"attainment": 0.5, "arrived": 5000.0, "offered_rps": 50.0 / (case.rate or 1)})

    comparison = _comparison(long)
    assert horizon_text(comparison) == "5,000 requests per run, 100 to 400 s of arrivals"
    assert horizon_text(comparison) in render(Part(comparison))


def test_a_note_may_have_a_table_with_verdicts() -> None:
    table = NoteTable(("gamma", "verdict"), (("0.1", ("worse", "-0.2 <b>")),))
    found = render(Part(_comparison(rates=[1]), (Note("On gamma", "swept", table),)))
    assert '<td data-label="gamma">0.1</td>' in found
    assert '<span class="badge worse">worse</span> <span class="interval">-0.2 &lt;b&gt;</span>' in found


@pytest.mark.parametrize(("low", "high"), [(15, 70), (18, 26), (20, 1000), (1, 100_000)])
def test_a_log_scale_has_a_handful_of_plain_ticks(low: float, high: float) -> None:
    ax = panels(1, 1, 2).axes[0]
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    plain_ticks(ax.yaxis, crowded=300)
    shown = [value for value in ax.get_yticks() if low <= value <= high]
    assert 4 <= len(shown) <= 9


def test_details_are_shown_where_the_variants_differ_most() -> None:
    assert telling_point(_comparison()).rate == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": []},
        {"seeds": [7]},
        {"rates": [], "workloads": {name: {} for name in "abcd"}},
        {"variants": {f"policy {number}": {} for number in range(10)}, "rates": [1]},
        {"base": {}},
    ],
    ids=["one rate", "one seed", "many workloads", "many variants", "no slo"],
)
def test_other_shapes_are_drawn_too(changes: dict[str, Any]) -> None:
    figures = 5 + ("variants" in changes)
    assert render(Part(_comparison(**changes))).count('<svg class="figure"') == figures


def test_figures_without_data_are_left_out() -> None:
    found = render(Part(_comparison(lambda case: Outcome({"attainment": 0.5}), rates=[1])))
    assert found.count('<svg class="figure"') == 2
    assert "not stated by the runs" in found


def test_a_metric_that_no_run_has_is_said_to_be_inconclusive() -> None:
    found = render(Part(_comparison(lambda case: Outcome({}), rates=[1])))
    assert "new: inconclusive at 1 of 1 point." in found
    assert "fewer than two seeds" in found


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "report.html", Part(_comparison(rates=[1])))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    assert (tmp_path / "new" / "report.html").read_text().endswith("</html>")


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (None, False, "–"),
        (0.0, True, "0"),
        (-0.00001, True, "0"),
        (0.12345, True, "+0.123"),
        (-0.0042, True, "−0.0042"),
        (7.125, False, "7.12"),
        (1234.5, False, "1,234"),
    ],
)
def test_numbers_are_short_and_without_exponents(value: float | None, signed: bool, text: str) -> None:
    assert number(value, signed=signed) == text


def test_figures_of_groups_and_of_cost_are_in_a_table_with_their_definitions() -> None:
    def figures(case: Case) -> Outcome:
        more = {"attainment[class=fast <b>]": 0.25, "service_gap": 1234.0 + case.seed}
        return Outcome({**_outcome(case).metrics, **(more if case.variant == "new" else {})})

    found = render(Part(_comparison(figures, rates=[1])))
    assert "Further figures: 1 × recorded rate" in found
    row = re.search(r"<tr><td>SLO attainment, class fast &lt;b&gt;</td>(.*?)</tr>", found, re.DOTALL)
    assert row is not None
    assert re.findall(r">([^<>]+)</td>", row[1]) == ["–", "0.250"]
    assert re.search(r"service gap \(weighted tokens\)</td>.*?>1,235</td>", found)
    assert "<code>service_gap</code>" in found


def test_metrics_are_named_as_people_do() -> None:
    assert metric_label("ttft_p99_ms") == "TTFT p99 (ms)"
    assert metric_label("attainment_trimmed") == "SLO attainment, after warm-up"
    assert metric_label("kv_blocks_moved") == "kv blocks moved"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_of_all_policies_is_drawn_the_same_twice(tmp_path: Path, suffix: str) -> None:
    variants: dict[str, Any] = {f"policy {number}": {} for number in range(3)}
    found = _comparison(variants=variants, rates=[], metrics={"attainment": {}, "ttft_p50_ms": {"min_effect": 1.0}})
    for name in "ab":
        save_matrix(found, tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second
    assert len(first) > 10_000


def test_a_page_of_many_policies_begins_with_all_of_them_at_a_glance() -> None:
    def slower(case: Case) -> Outcome:
        metrics = {"attainment": 0.1 * (1 + int(case.variant)), "offered_rps": 1.0}
        return Outcome(metrics, {}, {"time_s": [0.0]}, PROVENANCE)

    variants = {str(number): {"fleet": {"max_sequences": 100 + number}} for number in range(9)}
    page = render(Part(_comparison(slower, variants=variants, rates=[], baseline="4")))
    picture = page[page.index("9 policies at a glance") :].split("</svg>")[0]
    rows = [text for text in re.findall(r">([^<>]+)</text>", picture) if text.split()[0] in variants]
    assert rows == ["4 (baseline)", "8", "7", "6", "5", "3", "2", "1", "0"]
    few = render(Part(_comparison()))
    assert "at a glance" not in few

"""Client profiles: the published rates and lengths, one draw per field, holes said."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from workloads.errors import TraceError
from workloads.formats import Reading, open_file, parse_bytes
from workloads.formats.renewal import FAMILIES, arrivals_s
from workloads.settle import Invalid
from workloads.trace import Trace

RATES = "0,20,1,Gamma,1.0,0.05\n600,0,0,,0,0\n1200,10,2,Gamma,0.25,0.4\n"
LENGTHS = {"0": {"input_tokens": "{10: 0.5, 1000: 0.5}", "output_tokens": "{1: 0.5, 100: 0.5}"}}


def tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"data/x/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def profile(rates: str = RATES, lengths: object = LENGTHS) -> dict[str, str]:
    return {"chunk-3-trace.csv": rates, "chunk-3-dataset.json": json.dumps(lengths)}


def read(files: dict[str, str], window: tuple[float, float] = (0.0, 600.0), invalid: Invalid = "error") -> Trace:
    return parse_bytes("p.tar.gz", tar(files), invalid, Reading(window_s=window, seed=5))


@pytest.mark.parametrize(("family", "shape"), [("Gamma", 0.05), ("Gamma", 4.0), ("Weibull", 0.4), ("Weibull", 2.0)])
def test_the_mean_number_of_arrivals_is_rate_times_length_from_the_start_on(family: str, shape: float) -> None:
    rng = np.random.default_rng(1)
    counts = np.array([len(arrivals_s(FAMILIES[family], shape, 2.0, 10.0, rng)) for _ in range(4_000)])
    assert counts.mean() == pytest.approx(20.0, abs=4 * counts.std() / np.sqrt(len(counts)))


@pytest.mark.parametrize(("family", "law"), [("Gamma", stats.gamma(0.5)), ("Weibull", stats.weibull_min(0.5))])
def test_gaps_have_the_published_family_and_shape(family: str, law: object) -> None:
    times = arrivals_s(FAMILIES[family], 0.5, 3.0, 10_000.0, np.random.default_rng(2))
    gaps = np.diff(times)
    scaled = gaps / gaps.mean() * law.mean()  # type: ignore[attr-defined]
    assert stats.kstest(scaled[scaled > 1e-9], law.cdf).pvalue > 0.01  # type: ignore[attr-defined]


def test_a_stretch_has_the_published_rate_and_each_field_its_own_draw() -> None:
    trace = read(profile())
    assert len(trace) == pytest.approx(12_000, rel=0.05)
    assert set(trace.tenant or ()) == {"client-3"}
    assert set(trace.prompt_tokens.tolist()) == {10, 1000}
    assert (trace.prompt_tokens == 10).mean() == pytest.approx(0.5, abs=0.03)
    together = np.corrcoef(trace.prompt_tokens == 10, trace.output_tokens == 1)[0, 1]
    assert abs(together) < 4 / np.sqrt(len(trace)), "one draw for all fields would give 1"
    assert "each field by its own draw" in trace.metadata["arrivals"]


def test_a_window_starts_at_zero_and_leaves_pauses_empty() -> None:
    trace = read(profile(), (300.0, 1500.0))
    assert trace.arrival_s[0] >= 0.0
    assert trace.arrival_s[-1] < 1200.0
    assert not ((trace.arrival_s > 300.0) & (trace.arrival_s < 900.0)).any()


def test_profiles_need_a_window() -> None:
    with pytest.raises(TraceError, match=r"profiles of clients, not requests; .*--window 79200:82800"):
        parse_bytes("p.tar.gz", tar(profile()))


HOLES = [
    ({"chunk-3-trace.csv": RATES}, "client 3, dataset.json: None .*lengths for every client with traffic"),
    (profile(lengths={"0": {"input_tokens": "{10: 1.0}"}}), "client 3, output_tokens: None"),
    (
        profile(lengths={"0": {"input_tokens": "{10: 0.5}", "output_tokens": "{1: 1.0}"}}),
        "input_tokens: '1 values, sum",
    ),
    (profile(lengths={"0": {"input_tokens": "{}", "output_tokens": "{1: 1.0}"}}), "input_tokens"),
    (profile(lengths={"0": {"input_tokens": "__import__('os')", "output_tokens": "{1: 1.0}"}}), "input_tokens"),
    (profile(lengths={"0": {"image_tokens": "{10: 1.0}"}}), "images, audio or video"),
    (profile(lengths=[1]), "dataset.json"),
    (profile(rates="0,20,1,Pareto,1.0,0.05\n600,0,0,,0,0\n"), "trace.csv line 1.*Pareto.*Gamma of shape"),
    (profile(rates="0,20,1\n"), "six cells"),
    (profile(rates="0,x,1,Gamma,1,1\n600,0,0,,0,0\n"), "line 1: 'x'"),
    (profile(rates="600,1,1,Gamma,1,1\n0,0,0,,0,0\n"), "ascending starts"),
    (profile(rates="0,1,1,Gamma,1,1\n60,0,0,,0,0\n"), "inside the profile: 0 to 120 s"),
    (profile(rates=""), "inside the profile: nothing"),
]


@pytest.mark.parametrize(("files", "message"), HOLES)
def test_a_hole_in_a_profile_is_refused_or_the_client_left_out_and_counted(files: dict[str, str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read(files)
    whole = {name.replace("chunk-3", "chunk-4"): text for name, text in profile().items()}
    trace = read(files | whole, invalid="drop")
    assert (trace.metadata["clients"], trace.metadata["clients_left_out"]) == ("2", "1")
    assert trace.metadata["clients_left_out_examples"].startswith("client 3: ")
    assert set(trace.tenant or ()) == {"client-4"}


def test_no_traffic_in_the_window_is_refused() -> None:
    with pytest.raises(TraceError, match="no client has traffic"):
        read(profile(), (700.0, 800.0))


def test_the_published_profile_gives_the_published_hour(traces_folder: Path) -> None:
    trace = open_file(
        traces_folder / "raw" / "servegen_deepseek-r1.tar.gz", reading=Reading(window_s=(79_200.0, 82_800.0))
    )
    assert trace.mean_rate_rps == pytest.approx(35.1, rel=0.03)
    assert np.median(trace.prompt_tokens) == pytest.approx(284, rel=0.05)
    assert np.median(trace.output_tokens) == pytest.approx(529, rel=0.05)

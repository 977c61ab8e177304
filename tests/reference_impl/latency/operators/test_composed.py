"""An iteration composed of fitted operators, by hand; and the profiles that come with semiflow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reference_impl.latency.api import Work
from reference_impl.latency.backends import Backend
from reference_impl.latency.collective import all_reduce_s
from reference_impl.latency.devices import HARDWARE, hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.operators import profile
from reference_impl.latency.operators.costs import DecodeCosts, GemmCosts, PrefillCosts
from reference_impl.latency.operators.engines import ENGINES, engine
from reference_impl.latency.operators.model import Composed
from reference_impl.latency.operators.profile import SHIPPED, Grid, Operators, open_operators, weight_bytes

NO_LAUNCH = replace(hardware("h100"), elementwise_launch_s=0.0, hbm_bytes_per_s=1e30)
ERRORS = {name: {"median": 0.01, "p90": 0.02} for name in ("gemm bf16", "prefill attention", "decode attention")}
EXACT = Operators(
    name="exact",
    hardware=NO_LAUNCH,
    gemms={"bf16": GemmCosts((1, 101), ((1e-6, 1e-12, 0.0, 0.0, 0.0), (2e-6, 2e-12, 0.0, 0.0, 0.0)), 132)},
    prefill=PrefillCosts(1e-5, 1e-12, 2e-12, 1e-15),
    decode=DecodeCosts(2e-5, 1e-10, 1e-12),
    grid=Grid((1, 101), (512, 65536), (512, 65536), ((32, 8), (8, 2)), (128,), (1, 16384), (2, 131072), (1, 2048)),
    source="nowhere",
    errors=ERRORS,
)
DENSE = ("llama-2-7b", "llama-2-13b", "llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "qwen3-14b", "qwen3-32b", "opt-13b")
LLAMA = model("llama-3.1-8b")
WEIGHTS = 4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096
HEAD = 4096 * 128256


def opened(name: str) -> tuple[Operators, str]:
    found = open_operators(name)
    assert found is not None
    return found


def test_a_decode_iteration_by_hand() -> None:
    layer = 4e-6 + 1e-12 * WEIGHTS + 2e-5 + 1024 * (1e-10 + 1e-12 * 700)
    assert Composed(EXACT, LLAMA).iteration_s(Work((), 1, 700)) == pytest.approx(32 * layer + 1e-6 + 1e-12 * HEAD)


def test_a_mixed_iteration_by_hand() -> None:
    """51 tokens lie half-way between the two numbers of rows that have coefficients; four sequences get a token."""
    dense = 4 * 1.5e-6 + 1.5e-12 * WEIGHTS
    prefill = 1e-5 + 49 * 4096 * 1e-12 + (40 + 9 + 30) * 1024 * 2e-12
    prefill += 4096 * 1e-15 * (40 * 41 / 2 + 9 * (30 + 5))
    decode = 2e-5 + 1024 * (2 * 1e-10 + 1e-12 * 500)
    head = 1.03e-6 + 1.03e-12 * HEAD
    found = Composed(EXACT, LLAMA).iteration_s(Work(((40, 0), (9, 30)), 2, 500))
    assert found == pytest.approx(32 * (dense + prefill + decode) + head)


def test_tensor_parallelism_divides_matrices_and_adds_all_reduces() -> None:
    layer = 4e-6 + 1e-12 * WEIGHTS / 4 + 2e-5 + 256 * (1e-10 + 1e-12 * 700) + 2 * all_reduce_s(NO_LAUNCH, 4, 8192)
    expected = 32 * layer + 1e-6 + 1e-12 * HEAD / 4
    assert Composed(EXACT, LLAMA, 4).iteration_s(Work((), 1, 700)) == pytest.approx(expected)


def test_an_engine_adds_its_overhead_and_fp8_kv_reads_half() -> None:
    work = Work((), 8, 5600)
    plain = Composed(EXACT, LLAMA).iteration_s(work)
    slow = Composed(EXACT, LLAMA, backend=Backend("slow", 1e-3, 1e-4, "made up")).iteration_s(work)
    assert slow - plain == pytest.approx(1e-3 + 8e-4)
    assert plain - Composed(EXACT, LLAMA, kv_dtype="fp8").iteration_s(work) == pytest.approx(32 * 1024 * 5600 * 0.5e-12)


def test_extrapolation_is_named() -> None:
    told = Composed(EXACT, LLAMA).provenance
    assert "head matrix of 128256 columns (tables: 512 to 65536)" in told
    assert "prompts above 16384 tokens" in told
    assert "contexts above" not in told
    odd = Composed(EXACT, model("llama-2-7b"), 8).provenance
    assert "attention of 4 heads over 4 KV heads per device" in odd
    assert "prompts above" not in odd


def test_what_a_profile_cannot_do_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"exact has no matrices in 'fp8'; it has bf16"):
        Composed(EXACT, LLAMA, dtype="fp8")
    with pytest.raises(ProfileError, match=r"tensor parallelism 3"):
        Composed(EXACT, LLAMA, 3)
    with pytest.raises(ProfileError, match=r"take 4 bytes each"):
        Composed(EXACT, replace(LLAMA, bytes_per_value=4))
    with pytest.raises(ProfileError, match=r"deepseek-v2-lite has latent attention or experts; .* take the roofline"):
        Composed(EXACT, model("deepseek-v2-lite"))
    with pytest.raises(ProfileError, match=r"backend 'vllm-v0' .* choose one of none, vllm, sglang, trtllm"):
        engine("vllm-v0", "bf16")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_serves_every_dense_model(name: str) -> None:
    operators, dtype = opened(name)
    assert operators.hardware in HARDWARE.values()
    for shape in map(model, DENSE):
        cost = Composed(operators, shape, 1, dtype)
        times = [cost.iteration_s(work) for work in (Work((), 1, 10), Work((), 64, 64_000), Work(((2048, 0),), 0, 0))]
        assert times == sorted(times)
        assert 1e-4 < times[0] < times[-1] < 20


def test_shipped_profiles_name_source_licence_and_inputs() -> None:
    assert SHIPPED == ("a100", "h100", "h200")
    for name in SHIPPED:
        path = Path(profile.__file__).parent / "profiles" / f"{name}.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["licence"] == "Apache-2.0"
        assert "aiconfigurator" in data["url"]
        assert all(len(digest) == 64 for digest in data["inputs"].values())


def test_the_composition_of_llama_agrees_with_the_tables() -> None:
    """GEMM and attention of 32 layers looked up in the H100 tables, without head: decode and prefill in ms."""
    operators, _ = opened("h100")
    bare = replace(operators, hardware=NO_LAUNCH)
    cost, head_ms = Composed(bare, LLAMA), 0.36
    looked_up = {(1, 512): 5.45, (32, 1024): 7.7, (64, 2048): 11.8, (64, 4096): 17.1, (128, 2048): 17.1}
    for (decodes, context), expected in looked_up.items():
        assert 1e3 * cost.iteration_s(Work((), decodes, decodes * context)) - head_ms == pytest.approx(
            expected, rel=0.06
        )
    for tokens, expected in {512: 9.6, 1024: 19.3, 2048: 37.0, 4096: 79.6, 8192: 187.1}.items():
        assert 1e3 * cost.iteration_s(Work(((tokens, 0),), 0, 0)) - head_ms == pytest.approx(expected, rel=0.06)


def test_a_dtype_follows_the_name() -> None:
    assert opened("h100")[1] == "bf16"
    assert opened("h200:fp8")[1] == "fp8"
    assert open_operators("h300") is None
    assert open_operators("profile.csv:fp8") is None


def test_a_damaged_profile_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for content, said in (
        ({"format": "semiflow-operators", "version": 2}, "version 2"),
        ({"format": "semiflow-operators", "version": 1, "name": "x"}, "'hardware'"),
    ):
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ProfileError, match=rf"mine\.json: .*{said}"):
            open_operators(path)
    path.write_text(json.dumps({"format": "semiflow-profile"}), encoding="utf-8")
    assert open_operators(path) is None


def test_quantised_weights_are_smaller() -> None:
    assert weight_bytes(LLAMA, "bf16") == LLAMA.weight_bytes
    embeddings = 2 * 128256 * 4096
    assert weight_bytes(LLAMA, "fp8") == (LLAMA.parameters - embeddings) + 2 * embeddings


def test_every_engine_says_where_its_constant_comes_from() -> None:
    for (name, _), (backend, kv_dtype) in ENGINES.items():
        assert kv_dtype in ("bf16", "fp8")
        assert name == "none" or "semiflow validate table" in backend.source

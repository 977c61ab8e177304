"""Operator tables that a known model made give that model back; tables that leave it open are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.operators.costs import gemm_terms
from reference_impl.latency.operators.fit import fit_decode, fit_gemm, fit_prefill
from reference_impl.latency.operators.tables import Columns

SMS = 100
L2 = 50e6
GEMM = {1: (3e-6, 6e-13, 1e-11, 2e-11, 1e-10), 128: (4e-6, 7e-13, 2e-11, 3e-11, 2e-10)}
SIZES = (512, 1024, 4096, 7168, 16384, 51200)
HEADS = ((8, 2), (32, 8), (32, 4), (64, 8))


def table(rows: list[dict[str, Any]]) -> Columns:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def gemm(sizes: tuple[int, ...] = SIZES) -> Columns:
    return table(
        [
            {"gemm_dtype": "fp8", "m": m, "n": n, "k": k, "seconds": float(np.dot(costs, gemm_terms(m, n, k, SMS)))}
            for m, costs in GEMM.items()
            for n in sizes
            for k in sizes
        ]
    )


def attention(contexts: tuple[int, ...], decode: bool, batches: tuple[int, ...] = (1, 4, 32)) -> Columns:
    rows = []
    for heads, kv_heads in HEADS:
        for batch in batches:
            for context in contexts:
                queries, keys = 128 * heads, 128 * kv_heads
                if decode:
                    seconds = 1e-5 + batch * keys * (2e-10 + 1e-12 * context)
                else:
                    pairs = batch * context * (context + 1) / 2
                    seconds = 2e-5 + batch * context * (2e-12 * queries + 7e-12 * keys) + 6e-15 * pairs * queries
                shape = {"num_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 128, "batch_size": batch}
                length = {"isl": 1, "step": context - 1} if decode else {"isl": context}
                rows.append({**shape, **length, "seconds": seconds})
    return table(rows)


def test_gemm_coefficients_are_found_at_each_number_of_rows() -> None:
    fitted = fit_gemm(gemm(), "fp8", SMS, seed=0)
    assert fitted.costs.rows == tuple(GEMM)
    for found, made in zip(fitted.costs.seconds, GEMM.values(), strict=True):
        assert found == pytest.approx(made, rel=1e-6, abs=0)
    assert fitted.error.p90 < 1e-9
    assert fitted.error.groups == len(SIZES) ** 2 // 4


def test_attention_coefficients_are_found() -> None:
    prefill = fit_prefill(attention((16, 512, 4096, 16384), decode=False), seed=0)
    costs = prefill.costs
    assert (costs.launch_s, costs.query_s, costs.key_s, costs.pair_s) == pytest.approx(
        (2e-5, 2e-12, 7e-12, 6e-15), rel=1e-6, abs=0
    )
    decode = fit_decode(attention((2, 64, 8192, 131072), decode=True), L2, seed=0)
    found = (decode.costs.launch_s, decode.costs.sequence_s, decode.costs.context_s)
    assert found == pytest.approx((1e-5, 2e-10, 1e-12), rel=1e-6, abs=0)
    assert max(prefill.error.p90, decode.error.p90) < 1e-9


def test_rows_that_the_cache_serves_decide_nothing() -> None:
    """A layer that is measured again and again finds up to 50 MB of KV in the cache; a served model never does."""
    made = attention((2, 64, 1024, 8192, 131072), decode=True)
    kv_bytes = 4 * 128 * made["batch_size"] * made["num_key_value_heads"] * (made["isl"] + made["step"])
    cached = (kv_bytes > L2 / 16) & (kv_bytes < 2 * L2)
    assert cached.any()
    flattered = {**made, "seconds": np.where(cached, made["seconds"] / 3, made["seconds"])}
    assert fit_decode(flattered, L2, seed=0).costs.context_s == pytest.approx(1e-12, rel=1e-6, abs=0)


def test_noise_shows_in_the_error() -> None:
    rows = dict(gemm())
    rows["seconds"] = rows["seconds"] * np.random.default_rng(0).uniform(0.5, 1.5, len(rows["seconds"]))
    assert fit_gemm(rows, "fp8", SMS, seed=0).error.median > 0.1


def test_a_table_of_too_few_shapes_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"gemm in fp8 at m = 1: 9 rows for 5 coefficients .* measure more"):
        fit_gemm(gemm(SIZES[:3]), "fp8", SMS, seed=0)


def test_a_table_of_one_size_is_refused() -> None:
    rows = gemm()
    with pytest.raises(ProfileError, match=r"gemm in fp8 at m = 1: (inner|wave|weight) "):
        fit_gemm({**rows, "k": np.full_like(rows["k"], 4096)}, "fp8", SMS, seed=0)


def test_a_dtype_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(ProfileError, match=r"no rows of 'bfloat16' .* it has fp8"):
        fit_gemm(gemm(), "bfloat16", SMS, seed=0)


def test_decodes_of_one_batch_and_one_context_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"decode attention: sequence and context always change together"):
        fit_decode(attention((131072,), decode=True, batches=(1, 4, 32)), L2, seed=0)

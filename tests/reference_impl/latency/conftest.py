"""A small profile in LLMServingSim's format, and the shared calibration data where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from reference_impl.latency.interpolate import Curve

DENSE = {
    "embedding": 3.0,
    "layernorm": 2.0,
    "qkv_proj": 30.0,
    "rotary_emb": 3.0,
    "o_proj": 20.0,
    "gate_up_proj": 150.0,
    "act_fn": 3.0,
    "down_proj": 80.0,
    "final_layernorm": 2.0,
}


def attention_us(chunk: int, before: int, decodes: int, context: int) -> float:
    """What the small profile holds: a chunk makes every decode dearer."""
    pairs = chunk * (before + chunk / 2)
    return 5.0 + 1e-4 * pairs + (2e-3 if chunk else 1e-3) * decodes * context


def write_csv(path: Path, header: str, rows: Sequence[tuple[object, ...]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")


def write_profile(folder: Path, skew: bool = True, tp: int = 1) -> Path:
    """Write the small profile; ``skew`` with a table of alphas."""
    tokens = (1, 16, 256, 2048)
    rows = [(layer, n, base + 0.1 * n) for layer, base in DENSE.items() for n in tokens]
    write_csv(folder / "profile_dense.csv", "layer,tokens,time_us", rows)
    heads = [(layer, n, base + 0.5 * n) for layer, base in (("lm_head", 700.0), ("sampler", 20.0)) for n in (1, 8, 64)]
    write_csv(folder / "profile_per_sequence.csv", "layer,sequences,time_us", heads)
    grid = [
        (chunk, before, decodes, context, attention_us(chunk, before, decodes, context))
        for chunk in (0, 16, 256, 2048)
        for before in ((0,) if chunk == 0 else (0, 64, 1024, 8192))
        for decodes in (0, 1, 8, 64)
        for context in ((0,) if decodes == 0 else (16, 256, 1024, 4096))
        if chunk or decodes
    ]
    write_csv(folder / "profile_attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", grid)
    meta: dict[str, object] = {"model": "meta-llama/Llama-3.1-8B", "hardware": "RTXPRO6000"}
    if skew:
        meta["skew_fit"] = _skew_meta(tp)
        _write_skew(folder)
    (folder / "profile_meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    return folder


def _skew_meta(tp: int) -> dict[str, object]:
    return {
        "enabled": True,
        "bucket_axes": {
            "n_bins": [0, 8, 1000000],
            "n_labels": ["n<=8", "n>8"],
            "skew_rate_bins": [-0.01, 0.4, 1.01],
            "skew_rate_labels": ["sr<=40%", "sr>40%"],
            "kv_big_bins": [0, 1024, 1000000000],
            "kv_big_labels": ["kvB<=1k", "kvB>1k"],
            "kp_bins": [-1, 0, 1000000000],
            "kp_labels": ["kp=0", "kp>0"],
        },
        "per_tp": {tp: {"alpha_default": 0.05, "n_samples": 2}, tp + 1: {"alpha_default": 0.9, "n_samples": 3}},
    }


def _write_skew(folder: Path) -> None:
    fitted = [
        (chunk, decodes, rate, largest, "kp=0", alpha * part)
        for chunk, alpha in ((0, 0.2), (16, 0.4), (256, 0.8), (2048, -0.3))
        for decodes in ("n<=8", "n>8")
        for rate in ("sr<=40%", "sr>40%")
        for largest, part in (("kvB<=1k", 1.0), ("kvB>1k", 0.5))
    ]
    write_csv(folder / "profile_skew_fit.csv", "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha", fitted)
    write_csv(folder / "profile_skew.csv", "n,alpha", [(2, 0.2), (4, 0.1), (8, "")])


@pytest.fixture
def small_profile(tmp_path: Path) -> Callable[..., Path]:
    """Write the small profile into a folder of its own and return the folder."""

    def write(skew: bool = True, tp: int = 1) -> Path:
        folder = tmp_path / f"profile-{skew}-{tp}"
        folder.mkdir()
        return write_profile(folder, skew, tp)

    return write


@pytest.fixture(scope="session")
def session_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small profile with skew, written once."""
    return write_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="session")
def small_attention_us() -> Callable[[int, int, int, int], float]:
    """The function behind the small profile's attention table."""
    return attention_us


@pytest.fixture(scope="session")
def calibration() -> Path:
    """The shared calibration folder; tests that need it are skipped where it is not at hand."""
    folder = os.environ.get("SEMIFLOW_CALIBRATION")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SEMIFLOW_CALIBRATION does not name the folder of calibration data")
    return Path(folder)


@pytest.fixture
def ramp() -> Curve:
    """A curve that bends at 10."""
    return (0.0, 10.0, 20.0), (1.0, 2.0, 5.0)

"""Hardware by name or from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_impl.latency.devices import HARDWARE, hardware
from reference_impl.latency.errors import ProfileError


@pytest.mark.parametrize("name", ["a100-40g", "a100-80g", "h100", "h200", "rtx-pro-6000", "A100-80G", "RTX_PRO_6000"])
def test_a_known_device_is_found_in_any_case(name: str) -> None:
    assert hardware(name).name == name.lower().replace("_", "-")


def test_an_unknown_device_shows_the_choices() -> None:
    with pytest.raises(ProfileError, match=r"unknown hardware 'tpu'.*a100-80g.*h200"):
        hardware("tpu")


@pytest.mark.parametrize(
    ("name", "tflops", "fp8_tflops", "tb_per_s", "gb", "link_gb_per_s", "cores"),
    [
        ("a800", 312, None, 2.039, 85.1, 200, 108),
        ("h800", 989.4, 1978.9, 3.35, 85.0, 200, 132),
        ("l40s", 362.05, 733, 0.864, 47.7, 31.5, 142),
        ("ascend-910b", 376, None, 1.6, 68.7, 196, 24),
    ],
)
def test_peaks_are_those_of_the_named_source(
    name: str, tflops: float, fp8_tflops: float | None, tb_per_s: float, gb: float, link_gb_per_s: float, cores: int
) -> None:
    found = hardware(name)
    assert found.bf16_flops == pytest.approx(tflops * 1e12)
    assert found.fp8_flops == (None if fp8_tflops is None else pytest.approx(fp8_tflops * 1e12))
    assert found.hbm_bytes_per_s == pytest.approx(tb_per_s * 1e12)
    assert found.memory_bytes == pytest.approx(gb * 1e9, rel=1e-3)
    assert (found.link_bytes_per_s, found.sm_count) == (link_gb_per_s * 1e9, cores)


def test_what_the_910b_is_not_known_by_is_said() -> None:
    source = hardware("Ascend 910B").source
    for word in ("no public data sheet", "msmodeling", "280 and 313", "400", "assumed"):
        assert word in source


@pytest.mark.parametrize("item", HARDWARE.values(), ids=lambda item: item.name)
def test_every_device_names_its_sources(item: object) -> None:
    assert "data sheet" in getattr(item, "source", "")


def test_yaml_may_start_from_a_known_device(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: h100\nname: h100-pcie\nhbm_bytes_per_s: 2e12\nsm_count: 114\n", encoding="utf-8")
    mine = hardware(path)
    assert (mine.name, mine.hbm_bytes_per_s, mine.sm_count) == ("h100-pcie", 2e12, 114)
    assert mine.bf16_flops == hardware("h100").bf16_flops


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: h100\nhbm: 2e12\n", "unknown key 'hbm'; allowed: base, name"),
        ("name: mine\n", "key 'bf16_flops' is missing"),
        ("base: h100\nsm_count: many\n", "sm_count is 'many'; it must be a number"),
        ("base: h100\ngemm_efficiency: 1.5\n", r"gemm_efficiency is 1.5; it must be in \(0, 1\]"),
        ("base: h100\nmemory_bytes: 0\n", "memory_bytes is 0.0; it must be positive"),
        ("base: h100\nmemory_bytes: .nan\n", "memory_bytes is nan; it must be positive"),
        ("base: nothing\n", "unknown hardware 'nothing'"),
        ("- a\n- b\n", "must hold a mapping"),
        ("a: [\n", "cannot read hardware file"),
    ],
)
def test_a_bad_file_is_named_with_its_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        hardware(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read hardware file"):
        hardware(tmp_path / "none.yaml")

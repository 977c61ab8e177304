"""KV over a link."""

from __future__ import annotations

import pytest

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.links import LINKS, link


def test_a_transfer_takes_latency_plus_bytes_over_bandwidth() -> None:
    wire = link("RoCE-200G")
    payload = 1000 * model("llama-3-8b").kv_bytes_per_token
    assert wire.transfer_s(payload) == pytest.approx(50e-6 + 131_072_000 / 25e9)
    assert wire.transfer_s(0) == wire.latency_s


def test_faster_links_are_faster() -> None:
    times = [LINKS[name].transfer_s(1e9) for name in ("nvlink", "pcie", "roce-200g", "roce-100g")]
    assert times == sorted(times)


def test_an_unknown_link_shows_the_choices() -> None:
    with pytest.raises(ProfileError, match=r"unknown link 'string'; choose one of nvlink3, nvlink"):
        link("string")

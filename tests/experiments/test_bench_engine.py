"""``semiflow bench engine`` on the tiny model: what it claims, and that it would tell."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from experiments.bench import engine_exact, engine_speed
from experiments.bench.engine_hf import ContinuousSettings
from experiments.bench.engine_host import Served
from experiments.bench.engine_load import mixed, sharegpt_like
from reference_impl.engine.weights import ModelSource, ensure_weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
    reason="the extra serve is not installed",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_weights(ModelSource("tiny"), tmp_path_factory.mktemp("weights"))


def test_the_engines_tokens_are_generates_with_all_that_can_happen_on_the_way(tiny: Path) -> None:
    figures = engine_exact.exactness(tiny, quick=True)
    assert [figure.value for figure in figures] == [0.0, 0.0]
    assert all("WRONG" not in figure.note for figure in figures)


@pytest.mark.parametrize(("gap", "wrong"), [(0.3, 1.0), (1e-7, 0.0)])
def test_another_token_is_wrong_unless_it_is_as_likely(
    gap: float, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = mixed(3, 100)
    right = [(7,) * request.output_tokens for request in requests]
    given = [right[0], (7, 7, 8, *right[1][3:]), right[2]]
    served = Served(given, cpu_s=1.0, iterations=9, preemptions=1, hit_tokens=16, unfinished_chunks=2)
    monkeypatch.setattr(engine_exact, "_gap", lambda model, tokens: gap)
    figure = engine_exact._figure(None, requests, right, served, ahead=False)
    assert figure.value == wrong
    assert "request 1 from token 2 on" in figure.note
    assert ("WRONG" in figure.note) == bool(wrong)


def test_a_run_in_which_nothing_was_preempted_proves_nothing() -> None:
    requests = mixed(1, 100)
    served = Served([(7,) * requests[0].output_tokens], 1.0, 9, preemptions=0, hit_tokens=16, unfinished_chunks=2)
    assert engine_exact._figure(None, requests, served.tokens, served, ahead=False).value == 1.0


def test_throughput_compares_with_the_better_of_two_tuned_baselines(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [request._replace(output_tokens=6) for request in sharegpt_like(6, 4096)]
    monkeypatch.setattr(engine_speed, "sharegpt_like", lambda requests, vocab: few)
    grid = engine_speed.Grid((2, 6), (ContinuousSettings(num_blocks=16, max_batch_tokens=128, page_tokens=256),))
    monkeypatch.setattr(engine_speed, "_QUICK", grid)
    ours, static, continuous, ratio = engine_speed.throughput(tiny, True, lambda _: None)
    assert ratio.value == pytest.approx(ours.value / max(static.value, continuous.value))
    assert static.name in ("throughput, generate, batch 2", "throughput, generate, batch 6")


def test_workers_share_one_copy_of_the_weights(tiny: Path) -> None:
    from experiments.bench.engine_memory import weights_memory

    figure = weights_memory(tiny, workers=3)
    assert 0.3 < figure.value <= 1.15


def test_a_decode_iteration_is_compared_for_several_batch_sizes(tiny: Path) -> None:
    from experiments.bench.engine_decode import decode_overhead

    (figure,) = decode_overhead(tiny, quick=True)
    assert figure.floor == 1.25
    assert "1 rows" in figure.note
    assert "4 rows" in figure.note
    assert figure.value > 0


def test_workloads_are_within_their_limits_and_repeatable() -> None:
    requests = sharegpt_like(64, 4096)
    assert requests == sharegpt_like(64, 4096)
    assert max(len(request.prompt) for request in requests) <= 512
    assert max(request.output_tokens for request in requests) <= 128
    assert min(min(request.prompt) for request in requests) >= 3
    assert json.dumps(mixed(8, 100)) == json.dumps(mixed(8, 100))

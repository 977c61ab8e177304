"""``semiflow calibrate``: coefficients that the simulator takes, errors on rows kept aside, clear refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.cli import run
from experiments.profiling.shapes import Shape
from reference_impl.latency.measured import Coefficients, Measured
from reference_impl.latency.operators.profile import open_operators
from reference_impl.latency.operators.tables import DECODE, GEMM, PREFILL
from reference_impl.latency.profile import profile

KNOWN = Coefficients(1e-3, (0, 4, 16), (2e-4, 1e-4, 5e-5), 1e-5, 4e-5, 1e-8, 1e-7, 2e-7)


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["calibrate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def write_profile(path: Path, shapes: list[Shape]) -> Path:
    """What ``semiflow profile`` keeps of an engine that behaves as KNOWN."""
    cost = Measured(KNOWN, "tiny")
    timings = [(0, 0, number, 0, cost.iteration_s(shape.work)) for number, shape in enumerate(shapes)]
    content = {"format": "semiflow-profile", "version": 1, "model": "tiny", "dtype": "float32"}
    path.write_text(json.dumps({**content, "shapes": shapes, "timings": timings}), encoding="utf-8")
    return path


def varied_shapes() -> list[Shape]:
    rng = np.random.default_rng(0)
    shapes = []
    for number in range(60):
        decodes = () if number % 3 == 0 else tuple(rng.integers(8, 400, 1 + number % 20).tolist())
        chunks = () if number % 3 == 1 else tuple((int(rng.integers(1, 90)), int(rng.integers(0, 300))) for _ in "ab")
        shapes.append(Shape(chunks[: 1 + number % 2], decodes))
    return shapes


def write_tables(folder: Path, latency_ms: float | None = None) -> Path:
    """Small operator tables of one system; ``latency_ms`` in place of every time."""

    def put(file: str, rows: list[dict[str, Any]]) -> None:
        both = {"system": "h100_sxm", "source": "made up 1.0"}
        made = [{**row, **both} | ({} if latency_ms is None else {"latency_ms": latency_ms}) for row in rows]
        pq.write_table(pa.Table.from_pylist(made), folder / file)

    sizes = (512, 1024, 4096, 7168, 16384, 51200)
    gemm = [(m, n, k, 3e-3 + 6e-10 * n * k + 1e-8 * n) for m in (1, 128) for n in sizes for k in sizes]
    put(GEMM, [{"gemm_dtype": "bfloat16", "m": m, "n": n, "k": k, "latency_ms": ms} for m, n, k, ms in gemm])
    shapes = [(heads, kv, batch) for heads, kv in ((8, 2), (32, 8), (32, 4)) for batch in (1, 4, 32)]
    for file, lengths in ((PREFILL, (16, 512, 4096)), (DECODE, (2, 8192, 131072))):
        rows = []
        for heads, kv, batch in shapes:
            for length in lengths:
                tokens = batch * length
                ms = 1e-2 + 1e-8 * batch * kv + 1e-7 * tokens * (kv + heads) + 1e-9 * tokens * length * heads
                row = {"batch_size": batch, "num_heads": heads, "num_key_value_heads": kv, "head_dim": 128}
                step = {"isl": 1, "step": length - 1} if file == DECODE else {"isl": length, "step": 0}
                rows.append({**row, **step, "latency_ms": ms})
        put(file, rows)
    return folder


def test_a_profile_of_a_known_engine_gives_it_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_profile(tmp_path / "tiny.json", varied_shapes()), tmp_path / "out.json"
    assert run(["calibrate", str(source), "--out", str(out), "--json", "--seed", "7"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert max(error["p90"] for error in summary["errors"].values()) < 1e-3
    assert summary["config"]["seed"] == 7
    assert summary["environment"]["semiflow"]
    assert "kept_aside" in summary
    assert len(summary["inputs_sha256"]["tiny.json"]) == 64
    cost, known = profile(out), Measured(KNOWN, "tiny")
    for shape in varied_shapes():
        assert cost.iteration_s(shape.work) == pytest.approx(known.iteration_s(shape.work), rel=1e-6)


def test_a_profile_without_prompts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decodes = [replace_chunks(shape) for shape in varied_shapes() if shape.contexts]
    source = write_profile(tmp_path / "tiny.json", decodes)
    said = failing(capsys, str(source), "--out", str(tmp_path / "out.json"))
    assert "tiny.json: chunk is 0 in every row" in said
    assert list(tmp_path.iterdir()) == [source]


def replace_chunks(shape: Shape) -> Shape:
    return shape._replace(chunks=())


def test_operator_tables_give_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.json"
    arguments = ["calibrate", str(write_tables(tmp_path)), "--system", "h100_sxm", "--out", str(out)]
    assert run(arguments) == 0
    assert "gemm bf16" in capsys.readouterr().out
    found = open_operators(out)
    assert found is not None
    assert found[0].gemms["bf16"].rows == (1, 128)
    assert found[0].source == "AIConfigurator's operator tables (h100_sxm, made up 1.0)"
    first = out.read_bytes()
    assert "exists already" in failing(capsys, *arguments[1:])
    assert run([*arguments, "--force"]) == 0
    assert out.read_bytes() == first


def test_tables_without_a_system_ask_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = str(write_tables(tmp_path)), str(tmp_path / "out.json")
    assert "--system: missing; say of which system the tables in" in failing(capsys, folder, "--out", out)
    assert "has no rows of system 'h200_sxm'; it has h100_sxm" in failing(
        capsys, folder, "--out", out, "--system", "h200_sxm"
    )


def test_a_latency_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write_tables(tmp_path, latency_ms=0.0))
    said = failing(capsys, folder, "--out", str(tmp_path / "out.json"), "--system", "h100_sxm")
    assert "a latency_ms of h100_sxm is 0; it must be above 0" in said


def test_what_is_no_profile_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.json")
    assert "no such profile; allowed: a folder of operator tables" in failing(
        capsys, str(tmp_path / "none"), "--out", out
    )
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    assert "no timings of semiflow profile" in failing(capsys, str(tmp_path / "odd.json"), "--out", out)
    assert "has no meta.yaml" in failing(capsys, str(tmp_path), "--out", out)
    assert "--system is for a folder of operator tables" in failing(
        capsys, str(tmp_path), "--out", out, "--system", "h100_sxm"
    )


@pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")
def test_the_shipped_coefficients_are_reproduced(tmp_path: Path) -> None:
    from reference_impl.latency.operators import profile as shipped

    out = tmp_path / "a100.json"
    assert run(["calibrate", os.environ["SEMIFLOW_CALIBRATION"], "--system", "a100_sxm", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == json.loads(
        (Path(shipped.__file__).parent / "profiles" / "a100.json").read_text()
    )


@pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")
def test_a_profile_in_llmservingsims_format_is_calibrated(tmp_path: Path) -> None:
    folder = Path(os.environ["SEMIFLOW_CALIBRATION"]) / "vllm_runs" / "rtxpro6000_llama-3.1-8b"
    out = tmp_path / "rtx.json"
    assert run(["calibrate", str(folder), "--out", str(out)]) == 0
    errors = json.loads(out.read_text())["errors"]
    assert set(errors) == {"dense", "head", "attention"}
    assert isinstance(profile(out), Measured)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("out.txt", "allowed: a name that ends with .json"),
        ("none/out.json", "there is no folder"),
        ("a.json", "exists"),
    ],
)
def test_where_coefficients_go_is_looked_at_before_the_fit(
    out: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").touch()
    assert expected in failing(capsys, str(tmp_path / "a.json"), "--out", str(tmp_path / out))

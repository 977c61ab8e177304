"""Measured benchmarks against their simulation: coverage with reasons, whole groups, a constant that is found again."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from experiments.cli import run
from experiments.config_base import ConfigError
from experiments.table_validation import validate_table
from experiments.table_validation.fit import fit_overhead, fitted_groups
from experiments.table_validation.predict import Engine, predict, why_uncovered
from experiments.table_validation.rows import Group, Row, read_rows

COLUMNS = (
    *("id", "backend", "model_path", "system", "precision", "mode", "isl", "osl", "gemm_quant_mode", "batch_size"),
    *("tp_size", "pp_size", "silicon_ttft_ms", "silicon_tpot_ms"),
)
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
VALUES = ("a", "vllm", LLAMA, "h100_sxm", "", "agg", 512, 64, "", 4.0, 1.0, 1.0, 50, 9)
DEFAULTS = dict(zip(COLUMNS, VALUES, strict=True))


def table(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows({**DEFAULTS, **row} for row in rows)
    return path


def row(path: Path, **cells: object) -> Row:
    return read_rows(table(path / "one.csv", cells))[0]


def measured_with(path: Path, engine: Engine, *rows: dict[str, object]) -> Path:
    """A table whose TPOT and TTFT are what the simulation says with this engine."""
    made = []
    for cells, each in zip(rows, read_rows(table(path, *rows)), strict=True):
        found = predict(each, engine)
        made.append({**cells, "silicon_tpot_ms": found.tpot_ms, "silicon_ttft_ms": found.ttft_ms})
    return table(path, *made)


def test_a_row_is_read(tmp_path: Path) -> None:
    read = row(tmp_path, precision="fp8", gemm_quant_mode="fp8_block", model_path="nvidia/Llama-3.1-8B-Instruct-FP8")
    assert read.group == Group("vllm", "llama-3.1-8b", 1)
    assert (read.precision, read.dtype, read.concurrency) == ("fp8", "fp8_block", 4)
    assert row(tmp_path).dtype == "bf16"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"isl": "many"}, r"line 2: isl is 'many'; it must be a number above 0"),
        ({"batch_size": 1.5}, r"line 2: batch_size is '1.5'; it must be a whole number"),
        ({"silicon_tpot_ms": -1}, r"line 2: silicon_tpot_ms is '-1'"),
    ],
)
def test_a_bad_cell_is_named(cells: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        row(tmp_path, **cells)


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,backend\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"column 'model_path' is missing"):
        read_rows(tmp_path / "t.csv")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.csv"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"has no rows"):
        read_rows(table(tmp_path / "empty.csv"))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"system": "b200_sxm"}, "no shipped profile of b200_sxm"),
        ({"backend": "lmdeploy"}, "backend lmdeploy is not modelled"),
        ({"mode": "disagg"}, "mode is disagg; simulated: agg"),
        ({"pp_size": 2}, "pp_size is 2; simulated: 1"),
        ({"osl": 1}, "one output token has no TPOT"),
        ({"model_path": "org/unheard-of"}, "unknown model 'org/unheard-of'"),
        ({"system": "a100_sxm", "precision": "fp8"}, "profile a100 has no matrices in 'fp8'"),
        ({"model_path": "meta-llama/Llama-3.1-70B"}, "does not fit 1 x h100"),
        ({"isl": 200_000}, "a request of 200064 tokens exceeds the KV pool or the context"),
    ],
)
def test_an_uncovered_row_has_a_reason(cells: dict[str, object], reason: str, tmp_path: Path) -> None:
    assert reason in str(why_uncovered(row(tmp_path, **cells)))
    assert why_uncovered(row(tmp_path)) is None


def test_the_split_is_by_whole_groups_and_knows_no_order() -> None:
    groups = [Group(backend, model, tp) for backend in ("b", "a") for model in ("y", "x") for tp in (1, 2, 8)]
    fitted = fitted_groups([*groups, *groups])
    assert fitted == fitted_groups(reversed(groups))
    assert {(model, tp) for _, model, tp in fitted} == {("x", 1), ("x", 8), ("y", 2)}
    assert len(fitted) == len(groups) // 2


def test_a_constant_is_found_again(tmp_path: Path) -> None:
    for engine in (Engine("iteration", "bf16", 2e-3), Engine("sequence", "bf16", 1e-4)):
        rows = read_rows(measured_with(tmp_path / "t.csv", engine, {}, {"isl": 300, "batch_size": 3}, {"osl": 100}))
        assert fit_overhead(rows, engine.per, "bf16").engine.overhead_s == pytest.approx(engine.overhead_s, rel=0.01)


def test_an_engine_faster_than_its_kernels_gets_no_negative_constant(tmp_path: Path) -> None:
    rows = read_rows(table(tmp_path / "t.csv", {"silicon_tpot_ms": 1.0}))
    assert fit_overhead(rows, "iteration", "bf16").engine.overhead_s == 0.0


def test_what_the_model_made_is_predicted_and_the_rest_is_counted(tmp_path: Path) -> None:
    engine = Engine("sequence", "bf16", 1e-4)
    known: list[dict[str, object]] = [{"tp_size": tp, "batch_size": users} for tp in (1, 2, 4) for users in (2, 12)]
    path = measured_with(tmp_path / "t.csv", engine, *known, {"backend": "sglang"})
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, lines[-1].replace("h100", "b200")]) + "\n", encoding="utf-8")
    found = validate_table(path)
    assert found["coverage"] == {"rows": 8, "covered": 7, "uncovered": {"no shipped profile of b200_sxm": 1}}
    assert found["test"]["rows"] == 2
    assert found["test"]["tpot_error"]["median"] < 1e-3
    (vllm,) = [each for each in found["overheads"] if each["backend"] == "vllm"]
    assert (vllm["per"], vllm["precision"]) == ("sequence", "bf16")
    assert vllm["overhead_s"] == pytest.approx(1e-4, rel=0.01)
    parts = {(each["model"], each["tp"]): each["part"] for each in found["groups"] if each["backend"] == "vllm"}
    assert parts == {("llama-3.1-8b", 1): "fit", ("llama-3.1-8b", 2): "test", ("llama-3.1-8b", 4): "fit"}


def test_a_precision_that_is_never_fitted_is_no_prediction(tmp_path: Path) -> None:
    fp8 = {"precision": "fp8", "tp_size": 2}
    path = measured_with(tmp_path / "t.csv", Engine("iteration", "bf16"), {}, {"tp_size": 2}, fp8)
    assert validate_table(path)["coverage"]["uncovered"] == {"no group of vllm in fp8 to fit its constant": 1}


def test_one_group_cannot_be_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "t.csv", {"osl": 8})
    assert run(["validate", "table", str(path)]) == 2
    assert "no covered group of (backend, model, TP) is left to test" in capsys.readouterr().err


def test_the_command_prints_json_alone_with_its_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "t.csv", {"osl": 8}, {"osl": 8, "tp_size": 2})
    assert run(["validate", "table", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["command"] == f"semiflow validate table {path} --json"
    assert run(["validate", "table", str(path)]) == 0
    assert "2 of 2 rows covered" in capsys.readouterr().out


def test_the_shipped_constants_are_those_of_the_recorded_result() -> None:
    from reference_impl.latency.operators.engines import engine

    path = Path(__file__).parents[3] / "results" / "validation" / "measured_ttft_tpot.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))
    assert recorded["test"]["tpot_error"]["median"] <= recorded["bar"]["tpot_median_error_of_test"]
    for each in recorded["overheads"]:
        backend, kv_dtype = engine(each["backend"], each["precision"])
        assert (each["per"], each["kv_dtype"]) == ("sequence", kv_dtype)
        assert backend.sequence_overhead_s == pytest.approx(each["overhead_s"], rel=1e-3)


@pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")
def test_every_row_of_the_measured_table_is_covered() -> None:
    rows = read_rows(Path(os.environ["SEMIFLOW_CALIBRATION"]) / "measured_ttft_tpot.csv")
    assert len(rows) == 530
    assert {why_uncovered(row) for row in rows} == {None}

"""The fused kernel: interpreted on a CPU, and compiled for a GPU that is not there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton; Linux only)"
)
CHECK = """
import torch
from torch.nn.functional import scaled_dot_product_attention
from reference_impl.engine.device.triton_paged import paged_decode

torch.manual_seed(0)
for rows, kv_heads, group, head_dim, size, longest, dtype, tolerance in (
    (3, 2, 2, 64, 16, 150, torch.float32, 1e-5),
    (2, 1, 1, 80, 16, 70, torch.float32, 1e-5),
    (2, 3, 7, 32, 8, 300, torch.float32, 1e-5),
    (2, 2, 4, 128, 16, 100, torch.float16, 2e-3),
    (1, 2, 2, 16, 1, 40, torch.float32, 1e-5),
    (40, 2, 1, 16, 4, 20, torch.float32, 1e-5),
):
    width = -(-longest // size)
    blocks = rows * width + 3
    kv = torch.randn(2, blocks * size, kv_heads, head_dim).to(dtype)
    query = torch.randn(kv_heads * group, rows, head_dim).to(dtype).transpose(0, 1)
    tables = torch.randperm(blocks)[: rows * width].view(rows, width).int()
    lengths = torch.randint(1, longest + 1, (rows,)).int()
    lengths[0] = longest
    lengths[-1] = longest if rows == 1 else 1
    found = paged_decode(query, kv, tables, lengths, 0.1, size)
    for row in range(rows):
        slots = (tables[row].long()[:, None] * size + torch.arange(size)).flatten()[: lengths[row]]
        keys, values = kv[:, slots].float().transpose(1, 2)
        asked = query[row].float().view(kv_heads, group, head_dim)
        wanted = scaled_dot_product_attention(asked, keys, values, scale=0.1).view(-1, head_dim)
        assert (found[row].float() - wanted).abs().max() < tolerance, (rows, row, dtype)
print("all equal")
"""
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from reference_impl.engine.device.triton_paged import _attend_part, _join_parts

kind = sys.argv[1]
tensors = {"query": f"*{kind}", "kv": f"*{kind}", "tables": "*i32", "lengths": "*i32"}
tensors |= {"sums": "*fp32", "stats": "*fp32"}
numbers = {"scale": "fp32", "values_at": "i64", **dict.fromkeys(("query_row", "query_head", "table_row"), "i32")}
numbers |= {"kv_heads": "i32", "group": "i32"}
constants = {"head_dim": 64, "GROUP": 16, "DIM": 64, "BLOCK_TOKENS": 16, "TILE": 64, "PARTS": 8}
hopper = GPUTarget("cuda", 90, 32)
signature = {**tensors, **numbers, **dict.fromkeys(constants, "constexpr")}
triton.compile(ASTSource(fn=_attend_part, signature=signature, constexprs=constants), target=hopper)
constants = {"head_dim": 64, "DIM": 64, "PARTS": 8}
signature = {"sums": "*fp32", "stats": "*fp32", "out": f"*{kind}", **dict.fromkeys(constants, "constexpr")}
triton.compile(ASTSource(fn=_join_parts, signature=signature, constexprs=constants), target=hopper)
print("compiled")
"""


def run(code: str, *arguments: str, **variables: str) -> str:
    """In a process of its own: whether Triton interprets is decided when it is imported."""
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_interpreted_kernel_gives_plain_attention() -> None:
    assert run(CHECK, TRITON_INTERPRET="1") == "all equal\n"


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
def test_the_kernel_compiles_for_hopper(kind: str, tmp_path: Path) -> None:
    assert run(COMPILE, kind, TRITON_CACHE_DIR=str(tmp_path)) == "compiled\n"

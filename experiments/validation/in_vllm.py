"""Run by an interpreter that has vLLM: its scheduler over given requests, step by step, without a model or a GPU.

``python in_vllm.py`` reads one JSON task from stdin and writes one JSON answer as the last line of stdout; see
``scheduler.py`` beside it for both. Imports nothing of ours. Written for vLLM 0.19 (V1 scheduler).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import vllm
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 32000,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
"""Nothing of it is computed; the scheduler reads the longest context."""
_TOKEN = 7


def make_scheduler(task: dict[str, Any], folder: str) -> Scheduler:
    """vLLM's own scheduler with the task's limits; a model's configuration is written to ``folder``."""
    Path(folder, "config.json").write_text(json.dumps(_MODEL), encoding="utf-8")
    model = ModelConfig(model=folder, skip_tokenizer_init=True, dtype="bfloat16", seed=0)
    limits = SchedulerConfig(
        max_num_seqs=task["max_num_seqs"],
        max_num_batched_tokens=task["max_num_batched_tokens"],
        max_model_len=model.max_model_len,
        is_encoder_decoder=False,
        enable_chunked_prefill=True,
        async_scheduling=task["asynchronous"],
    )
    cache = CacheConfig(block_size=task["block_tokens"], enable_prefix_caching=task["prefix_caching"])
    config = VllmConfig(
        model_config=model,
        scheduler_config=limits,
        cache_config=cache,
        parallel_config=ParallelConfig(),
        device_config=DeviceConfig(device="cpu"),
    )
    cache.num_gpu_blocks = task["kv_blocks"] + 1  # one of them is the null block, which no request gets
    layer = FullAttentionSpec(block_size=task["block_tokens"], num_kv_heads=1, head_size=1, dtype=model.dtype)
    return (AsyncScheduler if task["asynchronous"] else Scheduler)(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(cache.num_gpu_blocks, [], [KVCacheGroupSpec(["layer"], layer)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=task["block_tokens"],
    )


def make_request(number: int, prompt_tokens: int, output_tokens: int, block_hasher: Any) -> Request:
    """No two prompts share a block: each begins with its own number."""
    return Request(
        request_id=str(number),
        prompt_token_ids=[number, *([0] * (prompt_tokens - 1))],
        sampling_params=SamplingParams(max_tokens=output_tokens, ignore_eos=True),
        pooling_params=None,
        block_hasher=block_hasher,
    )


def run(scheduler: Scheduler, task: dict[str, Any]) -> list[list[Any]]:
    """Step until every request is finished; one row a step, taken when it has been scheduled."""
    init_none_hash(sha256)
    block_hasher = get_request_block_hasher(task["block_tokens"], sha256)
    pool = scheduler.kv_cache_manager.block_pool
    to_come = list(enumerate(task["requests"]))
    rows: list[list[Any]] = []
    under_way: list[tuple[Any, list[str]]] = []
    depth = 2 if task["asynchronous"] else 1
    while to_come or scheduler.has_unfinished_requests():
        while to_come and to_come[0][1][0] <= len(rows):
            number, (_, prompt_tokens, output_tokens) = to_come.pop(0)
            scheduler.add_request(make_request(number, prompt_tokens, output_tokens, block_hasher))
        step = scheduler.schedule()
        tokens = step.num_scheduled_tokens
        preempted = sorted(int(number) for number in step.preempted_req_ids or ())
        used = task["kv_blocks"] - pool.get_num_free_blocks()
        rows.append([len(scheduler.running), len(scheduler.waiting), used, sum(tokens.values()), preempted])
        under_way.append((step, [number for number in tokens if not scheduler.requests[number].is_prefill_chunk]))
        while under_way and (len(under_way) >= depth or not tokens):
            complete(scheduler, *under_way.pop(0))
    return rows


def complete(scheduler: Scheduler, step: Any, sampled: list[str]) -> None:
    """What a model runner would report: a token for each request whose tokens so far are all computed."""
    ids = list(step.num_scheduled_tokens)
    output = ModelRunnerOutput(
        req_ids=ids,
        req_id_to_index={number: place for place, number in enumerate(ids)},
        sampled_token_ids=[[_TOKEN] if number in sampled else [] for number in ids],
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
    )
    scheduler.update_from_output(step, output)


def main() -> None:
    task = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(make_scheduler(task, folder), task)
    sys.stdout.write("\n" + json.dumps({"version": vllm.__version__, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()

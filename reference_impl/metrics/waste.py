"""Work that was refused, and work that was done twice."""

from __future__ import annotations

from reference_impl.metrics.log import RunLog
from reference_impl.metrics.requests import RequestTable
from reference_impl.metrics.token_log import TokenLog


def rejected_work(table: RequestTable, rebuilt: TokenLog | None) -> dict[str, float]:
    """Tokens of rejected requests: of their prompts, and those that they had been given before."""
    found = {"rejected_prompt_tokens": float(table.prompt_tokens[table.rejected].sum())}
    if rebuilt is not None:
        given = rebuilt.counts(int(table.request.max(initial=-1)) + 1)
        found["rejected_output_tokens"] = float(given[table.request[table.rejected]].sum())
    return found


def recomputed(run: RunLog, table: RequestTable) -> dict[str, float]:
    """``recomputed_tokens``; nothing where the log does not say what instances computed."""
    runs = run.rows["run"]
    computed = runs.ints("tokens")
    if not len(runs) or (computed < 0).any():
        return {}
    if not len(run.rows["preempt"]) and not len(run.rows["lost"]):
        return {"recomputed_tokens": 0.0}
    once = int((table.prompt_tokens - table.cached_tokens)[table.admitted].sum())
    return {"recomputed_tokens": float(max(int(computed.sum()) - once, 0))}

"""One forward of a model over the paged cache."""

from __future__ import annotations

import torch
from torch import nn

from reference_impl.engine.attention import PagedAttention
from reference_impl.engine.batch import Arrangement


def forward(
    model: nn.Module, tokens: torch.Tensor, positions: torch.Tensor, keep: torch.Tensor, paged: PagedAttention
) -> torch.Tensor:
    """Logits [rows of ``keep``, vocabulary] of the rows ``tokens`` at ``positions``, both [1, rows]."""
    found = model(input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=keep, paged=paged)
    logits: torch.Tensor = found.logits[0]
    return logits


def logits_of(model: nn.Module, arrangement: Arrangement, paged: PagedAttention, device: torch.device) -> torch.Tensor:
    """[yielded tokens, vocabulary], in the outcome's order."""
    tokens = torch.tensor([arrangement.tokens], device=device)
    positions = torch.tensor([arrangement.positions], device=device)
    keep = torch.tensor(arrangement.keep, dtype=torch.long, device=device)
    return forward(model, tokens, positions, keep, paged)

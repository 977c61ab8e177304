"""What one layer of a model multiplies and moves on each of ``tp`` devices."""

from __future__ import annotations

from typing import NamedTuple

from reference_impl.latency.experts import Experts
from reference_impl.latency.shapes import ModelShape


class Product(NamedTuple):
    """``rows x inner`` times ``inner x columns``, over all matrices that take part, in one kernel."""

    inner: float
    columns: float
    rows: float = 1
    """Per token of the iteration."""
    matrices: float = 1
    """Weight matrices of ``inner x columns`` that are read."""


class Block(NamedTuple):
    """Attention's projections, or a feed-forward network."""

    products: tuple[Product, ...]
    values: float
    """Per token of the iteration, that element-wise operators read and write."""


def attention_block(model: ModelShape, tp: int) -> Block:
    """The projections around attention, and the layer's norms and residuals. A latent one's down-projections are
    repeated on every device."""
    query, kv = model.query_dim // tp, model.kv_values_per_device(tp)
    values = 2 * 4 * model.hidden + 2 * query + kv
    if model.latent is None:
        return Block((Product(model.hidden, query + kv), Product(query, model.hidden)), values)
    products = model.latent.products(model.hidden, model.heads // tp)
    return Block(tuple(Product(*product) for product in products), values)


def dense_block(model: ModelShape, width: float, tp: int) -> Block:
    """A plain feed-forward network, ``width`` wide, split over the devices."""
    inner = width / tp
    up = 2 * inner if model.gated_mlp else inner
    return Block((Product(model.hidden, up), Product(inner, model.hidden)), up + inner)


def expert_block(model: ModelShape, experts: Experts, tp: int, expert_parallel: bool, tokens: int) -> Block:
    """Router, routed and shared experts of an iteration of so many tokens.

    Each expert is split over the devices; with ``expert_parallel`` each device holds whole ones, and has its even part
    of the tokens' choices. The shared experts are split in both cases.
    """
    split, spread = (1, tp) if expert_parallel else (tp, 1)
    inner = experts.intermediate / split
    rows, matrices = experts.per_token / spread, experts.touched(tokens) / spread
    routed = (
        Product(model.hidden, experts.routed),
        Product(model.hidden, 2 * inner, rows, matrices),
        Product(inner, model.hidden, rows, matrices),
    )
    if not experts.shared_intermediate:
        return Block(routed, rows * 3 * inner)
    shared = dense_block(model, experts.shared_intermediate, tp)
    return Block(routed + shared.products, rows * 3 * inner + shared.values)

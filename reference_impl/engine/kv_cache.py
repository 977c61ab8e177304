"""The paged KV cache of one instance: its shape in bytes (no torch needed), and the memory itself.

One array ``[layers, 2, blocks, block_tokens, kv_heads, head_dim]``, keys before values, without a header: whoever knows
the layout and the number of blocks can map a pool's file and move blocks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from reference_impl.engine.api import EngineError

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "bfloat16", "float16"]
ITEM_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class KvLayout:
    """What one KV block is, for every layer of a model."""

    layers: int
    kv_heads: int
    head_dim: int
    block_tokens: int
    dtype: Dtype

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "block_tokens"):
            if getattr(self, name) < 1:
                raise EngineError(f"KV layout: {name} is {getattr(self, name)}; allowed: 1 or more")
        if self.dtype not in get_args(Dtype):
            raise EngineError(f"KV layout: dtype is {self.dtype!r}; allowed: {', '.join(get_args(Dtype))}")

    @property
    def piece_bytes(self) -> int:
        """One block's keys, or its values, of one layer: the largest contiguous part of a block."""
        return self.block_tokens * self.kv_heads * self.head_dim * ITEM_BYTES[self.dtype]

    @property
    def block_bytes(self) -> int:
        """One block's keys and values of all layers."""
        return 2 * self.layers * self.piece_bytes

    @property
    def bytes_per_token(self) -> int:
        return self.block_bytes // self.block_tokens

    def pool_bytes(self, blocks: int) -> int:
        """Size of a pool's file."""
        return blocks * self.block_bytes

    def shape(self, blocks: int) -> tuple[int, int, int, int, int, int]:
        """Of a pool's array."""
        return self.layers, 2, blocks, self.block_tokens, self.kv_heads, self.head_dim

    def offset(self, layer: int, part: Literal[0, 1], block: int, blocks: int) -> int:
        """Where in a pool of ``blocks`` blocks a piece starts, in bytes; ``part`` 0: keys, 1: values."""
        return ((layer * 2 + part) * blocks + block) * self.piece_bytes


class KvPool:
    """The memory of ``blocks`` KV blocks: private, or a file that other processes map too."""

    __slots__ = ("blocks", "layout", "path", "tensor")

    def __init__(self, layout: KvLayout, blocks: int, tensor: torch.Tensor, path: Path | None) -> None:
        self.layout = layout
        self.blocks = blocks
        self.tensor = tensor
        self.path = path

    @classmethod
    def create(cls, path: Path | None, layout: KvLayout, blocks: int, device: str = "cpu") -> KvPool:
        """Zeroed memory; with a ``path`` (a folder in memory such as /dev/shm) a new file of exactly that size.

        All of it is reserved now: a full device is an error here and not a crash later.
        """
        import torch

        _check_blocks(layout, blocks)
        if path is None:
            return cls(layout, blocks, torch.zeros(layout.shape(blocks), dtype=_dtype(layout), device=device), None)
        if device != "cpu":
            raise EngineError(f"a KV pool on {device!r} cannot be a file ({path}); allowed: device cpu, or no path")
        reserve_file(path, layout.pool_bytes(blocks))
        return cls.open(path, layout, blocks)

    @classmethod
    def open(cls, path: Path, layout: KvLayout, blocks: int) -> KvPool:
        """Map the file of another process's pool; what one writes, all see."""
        import torch

        _check_blocks(layout, blocks)
        expected = layout.pool_bytes(blocks)
        found = path.stat().st_size if path.exists() else None
        if found != expected:
            state = "does not exist" if found is None else f"has {found} bytes"
            raise EngineError(f"KV pool {path} {state}; {blocks} blocks of {layout} are {expected} bytes")
        items = expected // ITEM_BYTES[layout.dtype]
        flat = torch.from_file(str(path), shared=True, size=items, dtype=_dtype(layout))
        return cls(layout, blocks, flat.view(layout.shape(blocks)), path)

    def unlink(self) -> None:
        """Remove the file's name; the memory goes when the last process that maps it has let go."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _check_blocks(layout: KvLayout, blocks: int) -> None:
    if blocks < 1:
        raise EngineError(f"a KV pool of {blocks} blocks of {layout.block_tokens} tokens; allowed: 1 or more")


def _dtype(layout: KvLayout) -> torch.dtype:
    import torch

    dtype = getattr(torch, layout.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def reserve_file(path: Path, size: int) -> None:
    """Make a file of ``size`` zero bytes whose memory is really there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise EngineError(f"cannot create KV pool {path}: {error.strerror}; it must be a new file") from error
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        free = os.statvfs(path.parent)
        raise EngineError(
            f"KV pool {path} of {size} bytes: {error.strerror}, {free.f_bavail * free.f_frsize} bytes are free there;"
            " give the instance fewer KV blocks"
        ) from error
    finally:
        os.close(descriptor)

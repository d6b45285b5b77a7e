"""ViTDet's windows for the attention of timm's plain transformers. Knows torch; holds no parameters and no state.

As in ViTDet (arXiv 2203.16527; detectron2, `modeling/backbone/vit.py`) only the attention is computed in windows: the
grid is padded at the bottom and at the right with zeros after the norm, and these are attended to. Norms, MLP and
stochastic depth see whole images.

ViTDet has no prefix tokens and no rotary positions. Here each window gets a copy of the prefix tokens, and their mean
over the windows goes on; a window gets the rows of the rotary table that belong to its patches. So a window as large as
the grid is what the network computes without windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad


def spread_evenly(depth: int) -> tuple[int, ...]:
    """The blocks that ViTDet leaves global: the last one of each quarter."""
    return tuple(sorted({(i + 1) * depth // 4 - 1 for i in range(4)} - {-1}))


@dataclass(frozen=True)
class WindowedBlock:
    """A block of a transformer for images of one size. It is called as the block is.

    Gradient checkpointing calls it again in the backward pass: so it knows the size by itself.
    """

    block: torch.nn.Module
    grid: tuple[int, int]
    window: int
    prefix: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        attention: Callable[..., torch.Tensor] = self.block.attn
        shadows = vars(self.block)  # looked up before parameters and modules, which stay as they are
        shadows["attn"] = WindowedAttention(attention, self.grid, self.window, self.prefix)
        try:
            return self.block(*args, **kwargs)
        finally:
            del shadows["attn"]


@dataclass(frozen=True)
class WindowedAttention:
    """An attention over [B, prefix + H*W, C] that sees one window at a time."""

    attention: Callable[..., torch.Tensor]
    grid: tuple[int, int]
    window: int
    prefix: int

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rope = kwargs.get("rope")
        if rope is not None:
            kwargs["rope"] = self.rope_of_windows(rope, len(x))
        first, patches = x[:, : self.prefix], self.cut(x[:, self.prefix :])
        windows = patches.shape[1]
        copies = first[:, None].expand(-1, windows, -1, -1)
        out = self.attention(torch.cat([copies, patches], dim=2).flatten(0, 1), *args, **kwargs)
        out = out.unflatten(0, (len(x), windows))
        return torch.cat([out[:, :, : self.prefix].mean(1), self.joined(out[:, :, self.prefix :])], dim=1)

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """[B, H*W, C] as [B, windows, window*window, C], padded with zeros."""
        height, width = self.grid
        size = self.window
        grid = pad(x.unflatten(1, self.grid), (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = grid.shape[1] // size, grid.shape[2] // size
        grid = grid.unflatten(2, (columns, size)).unflatten(1, (rows, size)).transpose(2, 3)
        return grid.reshape(len(x), rows * columns, size * size, -1)

    def joined(self, windows: torch.Tensor) -> torch.Tensor:
        """What `cut` does, undone."""
        (height, width), size = self.grid, self.window
        columns = -(-width // size)
        grid = windows.unflatten(2, (size, size)).unflatten(1, (-1, columns)).transpose(2, 3)
        return grid.flatten(3, 4).flatten(1, 2)[:, :height, :width].flatten(1, 2)

    def rope_of_windows(self, rope: torch.Tensor, batch: int) -> torch.Tensor:
        """A rotary table [H*W, D] or [heads, H*W, D] as [B*windows, heads or 1, window*window, D]."""
        table = rope if rope.dim() == 3 else rope[None]
        cut = self.cut(table).transpose(0, 1)
        return cut.repeat(batch, 1, 1, 1)

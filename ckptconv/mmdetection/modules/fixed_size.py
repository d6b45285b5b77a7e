"""Tables of positions of networks that take images of one size, resized when a file for another size is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ckptconv.mmdetection.modules import positions, relative_positions

_TIMM_WAY = positions.complete({"mode": "bicubic", "antialias": True})


def resized(backbone: Any, state: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Each table of a file that has another size than the network's, for the network's size.

    A table of positions is resized as ``position_resampling`` says, a relative position bias as BEiT's authors do it;
    the file's must be that of a square window.
    """
    for name, own in backbone.state_dict().items():
        value = state.get(prefix + name)
        if not isinstance(value, torch.Tensor) or value.shape == own.shape:
            continue
        if name == "pos_embed" and value.dim() == own.dim() == 3 and value.shape[2] == own.shape[2]:
            tokens = own.shape[1] - math.prod(backbone.grid)
            old = _grid(value.shape[1] - tokens, backbone.grid_of_file)
            if old is not None:
                how = backbone.position_resampling or _TIMM_WAY
                yield name, positions.resampled(value, old, backbone.grid, tokens, how)
        elif name.endswith("relative_position_bias_table") and value.shape[1:] == own.shape[1:]:
            window = tuple(backbone.get_submodule(name.rpartition(".")[0]).window_size)
            rows = value.shape[0] - own.shape[0] + (2 * window[0] - 1) * (2 * window[1] - 1)
            side = (math.isqrt(max(rows, 0)) + 1) // 2
            if (2 * side - 1) ** 2 == rows:
                yield name, relative_positions.resampled(value, (side, side), window)


def _grid(rows: int, expected: tuple[int, int]) -> tuple[int, int] | None:
    """The grid of a table's rows: the expected one, or a square; None if it is neither."""
    side = math.isqrt(rows)
    return expected if math.prod(expected) == rows else (side, side) if side * side == rows else None

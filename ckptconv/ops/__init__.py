"""The closed set of changes that rules may make to tensors. Each op knows the shape of its result.

An op is data: the plan asks it for a TensorSpec, the transform asks it for an array. `moving` has those that only move
elements, `arithmetic` those that compute with them, `resizing` those that resample, `composing` those made of others.
"""

from __future__ import annotations

from ckptconv.ops.arithmetic import AddRow, Cast, Scale, SelectChannels, add_row, cast, scale, select_channels
from ckptconv.ops.composing import Composed, chain, compose
from ckptconv.ops.interface import Op, OpError
from ckptconv.ops.moving import (
    Chunk,
    Concat,
    ConcatWithZeros,
    Permute,
    Regroup,
    Reshape,
    Take,
    Zeros,
    chunk,
    concat,
    concat_with_zeros,
    permute,
    regroup,
    reshape,
    take,
    zeros,
)
from ckptconv.ops.resizing import ResizeGrid, ResizePatch, resize_grid, resize_patch

__all__ = [
    "AddRow",
    "Cast",
    "Chunk",
    "Composed",
    "Concat",
    "ConcatWithZeros",
    "Op",
    "OpError",
    "Permute",
    "Regroup",
    "Reshape",
    "ResizeGrid",
    "ResizePatch",
    "Scale",
    "SelectChannels",
    "Take",
    "Zeros",
    "add_row",
    "cast",
    "chain",
    "chunk",
    "compose",
    "concat",
    "concat_with_zeros",
    "permute",
    "regroup",
    "reshape",
    "resize_grid",
    "resize_patch",
    "scale",
    "select_channels",
    "take",
    "zeros",
]

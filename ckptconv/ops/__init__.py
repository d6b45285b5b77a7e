"""The closed set of changes that rules may make to tensors. Each op knows the shape of its result.

An op is data: the plan asks it for a TensorSpec, the transform asks it for an array. `moving` has those that only move
elements, `arithmetic` those that compute with them, `resizing` those that resample, `composing` those made of others.
"""

from __future__ import annotations

from ckptconv.ops.arithmetic import Cast, Scale, SelectChannels, cast, scale, select_channels
from ckptconv.ops.composing import Composed, chain, compose
from ckptconv.ops.interface import Op, OpError
from ckptconv.ops.moving import (
    Chunk,
    Concat,
    ConcatWithZeros,
    Permute,
    Regroup,
    Reshape,
    chunk,
    concat,
    concat_with_zeros,
    permute,
    regroup,
    reshape,
)
from ckptconv.ops.resizing import ResizeGrid, ResizePatch, resize_grid, resize_patch

__all__ = [
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
]

"""The closed set of changes that may be made to tensors, beyond their names. Each knows its output's shape.

An op is data: the plan asks it for a TensorSpec, the transform asks it for an array. `moving` has those that look into
no element, `arithmetic` those that read numbers, `composing` those that are made of others.
"""

from __future__ import annotations

from ckptconv.ops.arithmetic import Cast, Scale, cast, scale
from ckptconv.ops.composing import Over, chain, compose
from ckptconv.ops.interface import Op, OpError
from ckptconv.ops.moving import Concat, Permute, Regroup, Reshape, concat, permute, regroup, reshape

__all__ = [
    "Cast",
    "Concat",
    "Op",
    "OpError",
    "Over",
    "Permute",
    "Regroup",
    "Reshape",
    "Scale",
    "cast",
    "chain",
    "compose",
    "concat",
    "permute",
    "regroup",
    "reshape",
    "scale",
]

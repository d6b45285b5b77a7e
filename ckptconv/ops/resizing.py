"""Ops that resample a vision transformer's position embedding and patch embedding.

Both work on each axis of a square separately, and sum the products one after another in float64: the result has the
same bytes on every machine. They need four times the memory of the new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptconv import fields
from ckptconv.ops.arithmetic import CASTABLE, numbers_of, stored_as
from ckptconv.ops.interface import Op, OpError
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    from ckptconv.ops.interface import Array


@dataclass(frozen=True)
class ResizeGrid(Op):
    """Resize the rows of a table (1, rows, channels) to another square grid; the rows of the first ``tokens`` stay.

    Bicubic as `torch.nn.functional.interpolate(size=..., mode='bicubic', align_corners=False)`, without antialias:
    what MMPretrain's `resize_pos_embed`, ViTDet's `get_abs_pos` and MAE's `interpolate_pos_embed` do. DINO and DINOv2
    add 0.1 to the side and give a factor, by which their numbers differ a little.
    """

    tokens: int
    side: int

    def __post_init__(self) -> None:
        fields.set_fields(
            self, tokens=fields.integer("tokens", self.tokens, 0), side=fields.integer("side", self.side, 1)
        )

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        rows = part.shape[1] - self.tokens if len(part.shape) == 3 and part.shape[0] == 1 else 0
        if rows <= 0 or math.isqrt(rows) ** 2 != rows or part.dtype.name not in CASTABLE:
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec((1, self.tokens + self.side**2, part.shape[2]), part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        (table,) = parts
        had = math.isqrt(table.shape[1] - self.tokens)
        grid = numbers_of(table[0, self.tokens :]).reshape(had, had, -1)
        weights = _cubic(had, self.side)
        grown = _along(_along(grid, weights, 0), weights, 1).reshape(1, self.side**2, -1)
        made: Array = np.concatenate([table[:, : self.tokens], stored_as(table, grown)], axis=1)
        return made

    def __str__(self) -> str:
        return f"resize to {self.side}x{self.side}"


@dataclass(frozen=True)
class ResizePatch(Op):
    """Give a kernel (out, in, side, side) another side, so that patches resized with their image give the same numbers.

    FlexiViT (arXiv:2212.08013, section 3.4) and timm's `resample_patch_embed`: where B resizes a patch, the kernel is
    multiplied by the pseudo-inverse of B's transpose. B is bicubic with antialias. Larger patches give just what the
    old ones gave; for smaller ones, it is the nearest.
    """

    side: int

    def __post_init__(self) -> None:
        fields.set_fields(self, side=fields.integer("side", self.side, 1))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        square = len(part.shape) == 4 and part.shape[2] == part.shape[3] > 0
        if not square or part.dtype.name not in CASTABLE:
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec((*part.shape[:2], self.side, self.side), part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        (kernel,) = parts
        # of both axes at once, B is the Kronecker product of each one's: so is its pseudo-inverse
        weights = np.linalg.pinv(_antialiased(kernel.shape[-1], self.side).T)
        weights = weights.round(12)  # what lies below is another processor's order of adding
        return stored_as(kernel, _along(_along(numbers_of(kernel), weights, 2), weights, 3))

    def __str__(self) -> str:
        return f"resize to {self.side}x{self.side}"


def _along(array: Array, weights: Array, axis: int) -> Array:
    """The array with one axis multiplied by a matrix (new length, old length), a row of which is mostly zeros."""
    import numpy as np

    lined = np.moveaxis(array, axis, 0)
    made = np.zeros((len(weights), *lined.shape[1:]))
    for row, place in zip(weights, made, strict=True):
        for at in np.flatnonzero(row):
            place += row[at] * lined[at].astype(np.float64)
    moved: Array = np.moveaxis(made, 0, axis)
    return moved


def _keys(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (1981)."""
    import numpy as np

    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    weights: Array = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return weights


def _cubic(old: int, new: int) -> Array:
    """(new, old): torch's bicubic weights, four a row; what lies outside is the edge's own value.

    Places are rounded to float32, as torch's are: else the numbers would differ from its in the fifth digit.
    """
    import numpy as np

    weights = np.zeros((new, old))
    half = np.float32(0.5)
    centers = (np.arange(new, dtype=np.float32) + half) * (np.float32(old) / np.float32(new)) - half
    first = np.floor(centers).astype(int) - 1
    for tap in range(4):
        places = first + tap
        np.add.at(weights, (np.arange(new), places.clip(0, old - 1)), _keys(centers.astype(np.float64) - places, -0.75))
    return weights


def _antialiased(old: int, new: int) -> Array:
    """(new, old): torch's bicubic weights with antialias, which are Pillow's; what lies outside does not count."""
    import numpy as np

    scale = old / new
    wide = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    places = np.arange(old)
    weights = _keys((places + 0.5 - centers[:, None]) / wide, -0.5)
    weights[(places < np.floor(centers - 2 * wide + 0.5)[:, None])] = 0
    weights[(places >= np.floor(centers + 2 * wide + 0.5)[:, None])] = 0
    scaled: Array = weights / weights.sum(axis=1, keepdims=True)
    return scaled


def resize_grid(tokens: int, side: int) -> ResizeGrid:
    return ResizeGrid(tokens, side)


def resize_patch(side: int) -> ResizePatch:
    return ResizePatch(side)

"""Ops that resample a vision transformer's position embedding and patch embedding.

Both work on each axis of a square separately, and sum the products one after another in float64: the result has the
same bytes on every machine. They need four times the memory of the new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ckptconv import fields
from ckptconv.ops.arithmetic import CASTABLE, numbers_of, stored_as
from ckptconv.ops.interface import Op, OpError
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    from ckptconv.ops.interface import Array


@dataclass(frozen=True)
class ResizeGrid(Op):
    """Resize the rows of a table (1, rows, channels) to another square grid; the rows of the first ``tokens`` stay.

    As `torch.nn.functional.interpolate` with these arguments. Bicubic without antialias is what MMPretrain's
    `resize_pos_embed`, ViTDet's `get_abs_pos` and MAE's `interpolate_pos_embed` do. With an ``offset``, a factor
    is given in place of the size, that of a side longer by so much: as DINO's and DINOv2's `interpolate_pos_encoding`.
    """

    tokens: int
    side: int
    mode: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = False
    align_corners: bool = False
    offset: float = 0.0

    def __post_init__(self) -> None:
        fields.choice("mode", self.mode, ("bicubic", "bilinear"))
        fields.boolean("antialias", self.antialias)
        fields.boolean("align_corners", self.align_corners)
        fields.set_fields(
            self,
            tokens=fields.integer("tokens", self.tokens, 0),
            side=fields.integer("side", self.side, 1),
            offset=fields.number("offset", self.offset) if self.offset else 0.0,
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
        weights = self._weights(had)
        grown = _along(_along(grid, weights, 0), weights, 1).reshape(1, self.side**2, -1)
        made: Array = np.concatenate([table[:, : self.tokens], stored_as(table, grown)], axis=1)
        return made

    def _weights(self, old: int) -> Array:
        """(new, old): what each new row takes of the old ones. Steps are rounded to float32, as torch's are."""
        import numpy as np

        new, single = self.side, np.float32
        if self.align_corners:
            step, first = single((old - 1) / (new - 1) if new > 1 else 0), single(0)
        else:
            step = single(1 / ((new + self.offset) / old)) if self.offset else single(old) / single(new)
            first = single(0.5)
        if self.antialias:
            return _antialiased(old, new, float(step), self.mode)
        return _interpolated(old, (np.arange(new, dtype=single) + first) * step - first, self.mode)

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
        weights = np.linalg.pinv(_antialiased(kernel.shape[-1], self.side, kernel.shape[-1] / self.side).T)
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


def _triangle(distance: Array) -> Array:
    import numpy as np

    weights: Array = np.maximum(1 - np.abs(distance), 0.0)
    return weights


def _interpolated(old: int, centers: Array, mode: str) -> Array:
    """(new, old): torch's weights without antialias, around each center; what lies outside is the edge's own value."""
    import numpy as np

    taps = 4 if mode == "bicubic" else 2
    weights = np.zeros((len(centers), old))
    first = np.floor(centers).astype(int) + 1 - taps // 2
    for tap in range(taps):
        places = first + tap
        away = centers.astype(np.float64) - places
        share = _keys(away, -0.75) if mode == "bicubic" else _triangle(away)
        np.add.at(weights, (np.arange(len(centers)), places.clip(0, old - 1)), share)
    return weights


def _antialiased(old: int, new: int, step: float, mode: str = "bicubic") -> Array:
    """(new, old): torch's weights with antialias, which are Pillow's; what lies outside does not count."""
    import numpy as np

    wide = max(step, 1.0)
    reach = (2 if mode == "bicubic" else 1) * wide
    centers = (np.arange(new) + 0.5) * step
    places = np.arange(old)
    away = (places + 0.5 - centers[:, None]) / wide
    weights = _keys(away, -0.5) if mode == "bicubic" else _triangle(away)
    weights[(places < np.floor(centers - reach + 0.5)[:, None])] = 0
    weights[(places >= np.floor(centers + reach + 0.5)[:, None])] = 0
    scaled: Array = weights / weights.sum(axis=1, keepdims=True)
    return scaled


def resize_grid(
    tokens: int,
    side: int,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
    antialias: bool = False,
    align_corners: bool = False,
    offset: float = 0.0,
) -> ResizeGrid:
    return ResizeGrid(tokens, side, mode, antialias, align_corners, offset)


def resize_patch(side: int) -> ResizePatch:
    return ResizePatch(side)

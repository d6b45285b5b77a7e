"""Tables of positions for images of another size. Knows torch; knows no network, and no names but those of tables."""

from __future__ import annotations

from typing import TypedDict, cast

import torch
from torch.nn.functional import interpolate


class Resampling(TypedDict, total=False):
    """How a method's own code resizes its table: the fields of `backbones.interface.PositionResampling`, as JSON."""

    mode: str
    antialias: bool
    align_corners: bool
    offset: float
    square: bool


_DEFAULTS = Resampling(mode="bicubic", antialias=False, align_corners=False, offset=0.0, square=False)


def complete(given: Resampling) -> Resampling:
    """All fields. Raises ValueError for another one."""
    unknown = sorted(set(given) - set(_DEFAULTS))
    if unknown:
        raise ValueError(f"position_resampling has no {unknown[0]!r}: it has {', '.join(_DEFAULTS)}")
    return cast("Resampling", {**_DEFAULTS, **given})


def resampled(
    table: torch.Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int, how: Resampling
) -> torch.Tensor:
    """A table [1, prefix + H*W, C] for another grid; for the same grid, the table itself.

    The rows of ``prefix`` tokens stay. It is computed in float32 and has the table's type.

    Source of ``offset``: ``interpolate_pos_encoding`` of facebookresearch/dino and dinov2. A scale that is a bit too
    large keeps the size from being rounded down; the values are then taken at places that are a bit off, too.
    Source of ``square``: ``_get_pos_embeddings`` of NVlabs/RADIO, radio/vit_patch_generator.py.
    """
    if old == new:
        return table
    first, patches = table[:, :prefix], table[:, prefix:]
    grid = patches.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    offset, wanted = how["offset"], (max(new), max(new)) if how["square"] else new
    size = (
        {"scale_factor": tuple((n + offset) / o for n, o in zip(wanted, old, strict=True))}
        if offset
        else {"size": wanted}
    )
    grid = interpolate(grid, mode=how["mode"], antialias=how["antialias"], align_corners=how["align_corners"], **size)
    grid = grid[:, :, : new[0], : new[1]]
    rows = grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1)
    return torch.cat([first, rows.to(table.dtype)], dim=1)

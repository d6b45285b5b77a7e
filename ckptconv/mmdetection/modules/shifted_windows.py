"""Windows of timm's Swins that follow the image, as in their authors' code. Knows torch; holds no parameters.

timm decides once, for the size of images that a network is built with, how large the windows of each stage are and
whether they are shifted: a map that one window covers needs no shift. Images of detectors are larger, and there the
authors' code shifts windows that timm leaves where they are (`SwinTransformerBlock` of `models/swin_transformer.py` and
`swin_transformer_v2.py` of microsoft/Swin-Transformer: a map whose shorter side is at most a window's has windows of
that side and no shift). A map that windows do not divide is padded with zeros before the shift, as in MMDetection's
Swin and the authors' detectors; timm pads after it, and its masks do not fit.

Windows of version 1 stay as large as their table of biases. Version 2 computes its biases of coordinates, so that every
stage gets the network's window where its map is large enough; coordinates are then divided by the window of the file,
as with the authors' ``pretrained_window_sizes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from ckptconv.mmdetection.modules.timm_network import shadowed


def follow_images(model: torch.nn.Module) -> None:
    """Let the windows of a Swin depend on each image. Any other network, and one told otherwise, stays as it is."""
    blocks = [one for one in model.modules() if getattr(one, "dynamic_mask", False) and not one.always_partition]
    largest = max((side for block in blocks for side in block.window_size), default=0)
    for block in blocks:
        vars(block)["_attn"] = FollowingAttention(block, largest)  # looked up before the method of its class


@dataclass(frozen=True)
class FollowingAttention:
    """A block's attention over maps [B, H, W, C], with the norms and the shift that its class has."""

    block: Any
    largest: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        block, (height, width) = self.block, x.shape[1:3]
        shortest = min(height, width)
        computed = hasattr(block.attn, "cpb_mlp")
        window = self.largest if computed else min(block.window_size)
        shift = window // 2 if shortest > window and any(block.target_shift_size) else 0
        side = min(window, shortest) if computed else window
        sizes = {"window_size": (side, side), "window_area": side * side, "shift_size": (shift, shift)}
        whole = pad(x, (0, 0, 0, -width % side, 0, -height % side))
        with shadowed(block, **sizes), shadowed(block.attn, **_tables(block.attn, side) if computed else {}):
            out: torch.Tensor = type(block)._attn(block, whole)
        return out[:, :height, :width].contiguous()


def _tables(attention: Any, side: int) -> dict[str, Any]:
    """The coordinates in a window of this side, for version 2; none if it has them."""
    own, table = attention.window_size, attention.relative_coords_table
    if own == (side, side):
        return {}
    trained = own if not any(attention.pretrained_window_size) else attention.pretrained_window_size
    with shadowed(attention, window_size=(side, side), pretrained_window_size=trained):
        coordinates, index = attention._make_pair_wise_relative_positions(device=table.device, dtype=table.dtype)
    return {"window_size": (side, side), "relative_coords_table": coordinates, "relative_position_index": index}

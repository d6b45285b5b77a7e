"""ViTDet's neck: a pyramid from the one map of a plain transformer. Knows mmengine and mmcv, and no backbone.

Source: section 3 of arXiv 2203.16527, and ``SimpleFeaturePyramid`` of detectron2, `modeling/backbone/vit.py`, whose
layers and numbers it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import nn
from torch.nn.functional import max_pool2d


@MODELS.register_module()
class LayerNorm2d(nn.LayerNorm):  # type: ignore[misc]  # mypy does not read torch
    """A layer norm over the channels of maps [B, C, H, W], for ``norm_cfg`` of necks and heads."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The maps, each position normed by itself."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


_NORM: Mapping[str, Any] = {"type": LayerNorm2d, "eps": 1e-6}


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):  # type: ignore[misc]  # mmengine has no annotations
    """Maps of several strides from one map: with stride 16, and the usual scales, of strides 4, 8, 16, 32 and 64.

    From a map of stride 14, as DINOv2 gives it, they have strides 3.5, 7, 14, 28 and 56.

    Args:
        in_channels: of the one map that it is given.
        out_channels: of each map that it gives.
        scales: 4, 2, 1 and 0.5, or some of them in this order: how much larger each map is than the given one.
        num_outs: how many maps it gives. Those beyond ``scales`` are the last one at every second place, and so on.
        norm_cfg: the norm after each convolution. None: no norm, and convolutions with a bias.
        init_cfg: what mmengine initialises it with.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int = 5,
        norm_cfg: Mapping[str, Any] | None = _NORM,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        known = (4, 2, 1, 0.5)
        if not scales or [scale for scale in known if scale in scales] != list(scales):
            raise ValueError(f"scales are some of 4, 2, 1 and 0.5, in this order: not {tuple(scales)}")
        if num_outs < len(scales):
            raise ValueError(f"num_outs={num_outs} is less than the {len(scales)} scales: leave out scales")
        norm = None if norm_cfg is None else dict(norm_cfg)
        self.num_outs = num_outs
        self.stages = nn.ModuleList(_stage(in_channels, out_channels, scale, norm) for scale in scales)

    def forward(self, inputs: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The pyramid of a map [B, C, H, W], or of the one map that a backbone gives, from fine to coarse."""
        if not isinstance(inputs, torch.Tensor):
            if len(inputs) != 1:
                raise ValueError(
                    f"SimpleFeaturePyramid takes one map, and the backbone gives {len(inputs)}: use an FPN"
                )
            (inputs,) = inputs
        maps = [stage(inputs) for stage in self.stages]
        while len(maps) < self.num_outs:
            maps.append(max_pool2d(maps[-1], 1, stride=2))
        return tuple(maps)


def _stage(channels: int, out_channels: int, scale: float, norm: dict[str, Any] | None) -> nn.Sequential:
    """The layers that give one map."""
    layers: list[nn.Module] = []
    if scale == 4:
        between = [] if norm is None else [build_norm_layer(norm, channels // 2)[1]]
        layers = [nn.ConvTranspose2d(channels, channels // 2, 2, 2), *between, nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels // 2, channels // 4, 2, 2))
    elif scale == 2:
        layers = [nn.ConvTranspose2d(channels, channels // 2, 2, 2)]
    elif scale == 0.5:
        layers = [nn.MaxPool2d(2, 2)]
    inner = channels // int(scale) if scale > 1 else channels
    for kernel, given in ((1, inner), (3, out_channels)):
        layers.append(ConvModule(given, out_channels, kernel, padding=kernel // 2, norm_cfg=norm, act_cfg=None))
    return nn.Sequential(*layers)

"""ViTDet's neck against the numbers of detectron2's."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

# Every sixth part of each map of `SimpleFeaturePyramid` of facebookresearch/detectron2 (modeling/backbone/vit.py), by
# its size: 8 channels in, 6 out, scales 4 to 1/2 and `LastLevelMaxPool`'s map, norm "LN". The i-th parameter is
# sin((1.3 + i) n) for n = 0, 1, …; the map, of 3 x 4, is cos(0.7 n).
OFFICIAL = {
    (12, 16): [0.0, -0.14724, -0.9864, -1.23357, 0.55883, -0.89901],
    (6, 8): [0.0, 1.54313, -0.26756, -2.55751, 0.11097, 1.48333],
    (3, 4): [0.0, 1.14441, 0.99339, -0.56949, -1.82814, -1.20361],
    (1, 2): [0.0, 0.85963, 1.09017, 0.21392, 0.32498, -1.57225],
    (1, 1): [0.0, 0.85963, 1.09017, 0.21392, 0.32498, -1.57225],
}


def neck(**options: Any) -> Any:
    from ckptconv.mmdetection.modules import SimpleFeaturePyramid

    torch.manual_seed(0)
    return SimpleFeaturePyramid(8, **{"out_channels": 6, **options})


def one_map(height: int = 3, width: int = 4) -> torch.Tensor:
    return torch.arange(8 * height * width, dtype=torch.float32).mul(0.7).cos().reshape(1, 8, height, width)


def test_its_numbers_are_those_of_detectron2():
    ours = neck()
    with torch.no_grad():
        for i, parameter in enumerate(ours.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).float().mul(1.3 + i).sin().reshape(parameter.shape))
        maps = ours((one_map(),))
    assert [tuple(one.shape[1:]) for one in maps] == [(6, *size) for size in OFFICIAL]
    for one, expected in zip(maps, OFFICIAL.values(), strict=True):
        found = one.flatten()[:: max(1, one.numel() // 6)]
        assert torch.allclose(found, torch.tensor(expected), atol=5e-5)


def test_scales_and_maps_are_chosen():
    sizes = [tuple(one.shape[2:]) for one in neck(scales=(2, 1, 0.5), num_outs=5)((one_map(8, 8),))]
    assert sizes == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert [tuple(one.shape[2:]) for one in neck(scales=(1,), num_outs=1)(one_map())] == [(3, 4)]


def test_norms():
    with_norm, without = (neck(norm_cfg=norm) for norm in ({"type": "BN"}, None))
    assert sum(isinstance(one, torch.nn.BatchNorm2d) for one in with_norm.modules()) == 9
    assert not any("norm" in type(one).__name__.lower() for one in without.modules() if not list(one.children()))
    convolutions = [one for one in without.modules() if isinstance(one, torch.nn.Conv2d)]
    assert all(one.bias is not None for one in convolutions)


def test_heads_can_name_its_norm():
    from mmcv.cnn import build_norm_layer
    from mmengine.registry import DefaultScope

    neck()
    with DefaultScope.overwrite_default_scope("mmdet"):
        name, norm = build_norm_layer({"type": "LayerNorm2d"}, 4)
    x = one_map()[:, :4]
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    assert name == "ln"
    assert torch.allclose(norm(x), (x - mean) / (var + norm.eps).sqrt(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scales": (1, 2)}, "scales are some of 4, 2, 1 and 0.5, in this order: not (1, 2)"),
        ({"scales": (8, 4)}, "scales are some of 4, 2, 1 and 0.5, in this order: not (8, 4)"),
        ({"scales": ()}, "scales are some of 4, 2, 1 and 0.5, in this order: not ()"),
        ({"num_outs": 3}, "num_outs=3 is less than the 4 scales: leave out scales"),
    ],
)
def test_pyramids_that_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        neck(**options)


def test_a_backbone_of_several_maps_has_another_neck():
    with pytest.raises(ValueError, match="takes one map, and the backbone gives 2: use an FPN"):
        neck()((one_map(), one_map()))

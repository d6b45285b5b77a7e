"""What a ResNet is for each target: why one cannot hold a member, its names there, timm's model.

Most use torchvision's names; detectron2 and transformers have their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptconv.backbones import transformers_stages
from ckptconv.backbones.interface import CANONICAL, Dialect, TimmModel
from ckptconv.rules import keep

if TYPE_CHECKING:
    from ckptconv.backbones.resnet import ResNet

_MMDET_DEPTHS = (18, 34, 50, 101, 152)  # arch_settings of mmdet/models/backbones/resnet.py, 3.3.0


def obstacle(member: ResNet, target: str) -> str:
    """Why a target cannot hold it, and what works instead; '' if it can."""
    if target == "torchvision":
        return _unlike_torchvision(member)
    if target == "timm":
        return _unlike_timm(member)
    if target == "detectron2":
        return _unlike_detectron2(member)
    if target == "transformers":
        return transformers_stages.unlike_resnet(member)
    if target != "mmdet":
        return ""
    if member.stem_kernel != 7:
        return (
            f"its stem is {member.stem_kernel}x{member.stem_kernel}, for small images; MMDetection's ResNet has a 7x7 "
            "stem, which would start from random weights"
        )
    if member.layers not in _MMDET_DEPTHS:
        return f"MMDetection's ResNet has the depths {', '.join(map(str, _MMDET_DEPTHS))} only"
    if member.groups == 1 and member.inner_channels != member.planes:
        return "MMDetection's ResNet has no wider inner convolutions without groups (torchvision's wide_resnet)"
    if member.groups > 1 and not member.bottleneck:
        return "MMDetection's ResNeXt has bottleneck blocks only"
    return ""


def _unlike_torchvision(member: ResNet) -> str:
    """Why torchvision's class cannot hold it. A 3x3 stem can be: users replace ``conv1``."""
    if member.in_channels != 3:
        return (
            f"its stem takes {member.in_channels} channel{'s' * (member.in_channels != 1)}, and torchvision's ResNet "
            "always takes 3"
        )
    if (member.stem_channels, member.planes) != (64, 64):
        return (
            f"its stem has {member.stem_channels} channels and its first stage {member.planes}, and torchvision's "
            "ResNet always has 64"
        )
    return ""


def _unlike_timm(member: ResNet) -> str:
    """Why timm's class cannot hold it."""
    if member.stem_kernel != 7:
        return (
            f"its stem is {member.stem_kernel}x{member.stem_kernel}, for small images, and timm's ResNet has a 7x7 stem"
        )
    if member.stem_channels != 64:
        return f"its stem has {member.stem_channels} channels, and that of timm's ResNet always has 64"
    if member.inner_channels * 64 % (member.planes * member.groups):
        return "the channels of its groups are not a whole share of its planes, which timm's ResNet needs"
    return ""


def _unlike_detectron2(member: ResNet) -> str:
    """Why no config of detectron2 builds it: `build_resnet_backbone` of its modeling/backbone/resnet.py."""
    if member.stem_kernel != 7:
        return f"its stem is {member.stem_kernel}x{member.stem_kernel}, and that of detectron2's ResNet is 7x7"
    if member.layers not in _MMDET_DEPTHS:
        return f"detectron2's ResNet has the depths {', '.join(map(str, _MMDET_DEPTHS))} only"
    return ""


def dialect(target: str) -> Dialect:
    """How a target names any ResNet."""
    if target == "transformers":
        return transformers_stages.RESNET
    return _DETECTRON2 if target == "detectron2" else CANONICAL


_DETECTRON2 = Dialect(
    rules=(
        keep("conv1.{p}", "stem.conv1.{p}"),
        keep("bn1.{p}", "stem.conv1.norm.{p}"),
        *(
            rule
            for stage in range(1, 5)
            for rule in (
                keep(f"layer{stage}.{{b}}.conv{{n}}.{{p}}", f"res{stage + 1}.{{b}}.conv{{n}}.{{p}}"),
                keep(f"layer{stage}.{{b}}.bn{{n}}.{{p}}", f"res{stage + 1}.{{b}}.conv{{n}}.norm.{{p}}"),
                keep(f"layer{stage}.{{b}}.downsample.0.{{p}}", f"res{stage + 1}.{{b}}.shortcut.{{p}}"),
                keep(f"layer{stage}.{{b}}.downsample.1.{{p}}", f"res{stage + 1}.{{b}}.shortcut.norm.{{p}}"),
            )
        ),
    ),
    section="model",
)
"""detectron2/modeling/backbone/resnet.py: a norm is a child of its convolution, stages are counted from the stem."""
_TIMM = {
    (50, 1, 128): "wide_resnet50_2",
    (101, 1, 128): "wide_resnet101_2",
    (50, 32, 4): "resnext50_32x4d",
    (101, 32, 4): "resnext101_32x4d",
    (101, 32, 8): "resnext101_32x8d",
    (101, 32, 16): "resnext101_32x16d",
    (101, 32, 32): "resnext101_32x32d",
    (101, 64, 4): "resnext101_64x4d",
}
"""Models of timm/models/resnet.py 1.0.31, by depth, groups and the width of a group in the first stage's 64 planes."""


def timm_model(member: ResNet) -> TimmModel | None:
    """Timm's model; None where an obstacle says why."""
    if _unlike_timm(member):
        return None
    base_width = member.inner_channels * 64 // (member.planes * member.groups)
    name = _TIMM.get((member.layers or 0, member.groups, base_width), "")
    arguments: dict[str, Any] = {}
    if not name:
        name = f"resnet{member.layers}" if member.layers else f"resnet{50 if member.bottleneck else 18}"
        if not member.layers:
            arguments["layers"] = list(member.depths)
        if member.groups > 1:
            arguments["cardinality"] = member.groups
        if base_width != 64:
            arguments["base_width"] = base_width
    if member.planes != 64:
        arguments["channels"] = [member.planes << stage for stage in range(4)]
    if member.in_channels != 3:
        arguments["in_chans"] = member.in_channels
    return TimmModel(name, arguments)

"""Methods that compare views through the clusters they fall into."""

from __future__ import annotations

from ckptconv.methods.interface import Layout, Method, Release
from ckptconv.rules import drop, keep

_RELEASES = (
    "swav_800ep",
    "swav_400ep",
    "swav_200ep",
    "swav_100ep",
    "swav_200ep_bs256",
    "swav_400ep_bs256",
    "swav_400ep_2x224",
    "swav_RN50w2_400ep",
    "swav_RN50w4_400ep",
    "swav_RN50w5_400ep",
    "deepclusterv2_800ep",
    "deepclusterv2_400ep",
    "deepclusterv2_400ep_2x224",
    "selav2_400ep",
    "selav2_400ep_2x224",
)

SWAV = Method(
    name="swav",
    title="SwAV, DeepCluster-v2, SeLa-v2",
    paper="https://arxiv.org/abs/2006.09882",
    repository="facebookresearch/swav",
    layouts=(
        Layout(  # releases are bare, training checkpoints are wrapped; src/resnet50.py pads its stem to torchvision's
            title="release or training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("projection_head.{p...}", "the projection head"),
                drop("prototypes.{p...}", "the prototypes"),
                keep("{key...}", "{key...}"),
            ),
        ),
    ),
    releases=tuple(
        Release(name, f"https://dl.fbaipublicfiles.com/deepcluster/{name}_pretrain.pth.tar") for name in _RELEASES
    ),
)

METHODS = (SWAV,)

"""Network architectures that no target supports, recognised by a part of their names. For messages only.

A mark is specific: names that must be present, names that must be absent, and shapes where names are not enough. A
network that a family describes is refused by its family, with its obstacle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ckptconv.arguments import argument

Shapes = Mapping[str, tuple[int, ...] | None]
"""The names of a file with the shapes of their tensors; None if an entry is not a tensor or its shape is unknown."""


@dataclass(frozen=True)
class Sign:
    """How an architecture is recognised.

    ``present`` are expressions each of which matches some name; the error shows the name that matches the first.
    ``absent`` are expressions that match no name. ``axes`` is the number of axes of the tensor that is shown, None for
    any. ``gated`` asks for MLPs whose first layer is twice as wide as the input of the second.
    ``what`` says what the network is, why no target supports it, and what to use instead.
    """

    what: str
    present: tuple[str, ...]
    absent: tuple[str, ...] = ()
    axes: int | None = None
    gated: bool = False


_ROPE = "with rotary position embeddings (RoPE), which no target supports"
_STEM = r"(^|\.)patch_embed\.proj\.\d+\.weight$"
_MOST_NAMES = 6_000  # of a section that is planned
_FC1 = r"(^|\.)blocks\.\d+\.mlp\.fc1\.weight$"
_FC2 = r"(^|\.)blocks\.\d+\.mlp\.fc2\.weight$"

MARKS = (
    # torch/distributed/fsdp/_flat_param.py; older versions write no underscore
    Sign(
        "one rank's shard of an FSDP network. Gather the shards where it was trained, with "
        "StateDictType.FULL_STATE_DICT",
        (r"(^|\.)_?flat_param(_\d+)?$",),
    ),
    # Separius/SimCLRv2-Pytorch resnet.py, vissl/models/trunks/resnext_selective_kernels.py
    Sign(
        "a ResNet with selective kernels (SimCLRv2's sk1). MMDetection has none, and timm's differs: SimCLRv2 averages "
        "the shortcut of the first stage, too. Use SimCLRv2's networks without selective kernels",
        (r"\.mixing_conv\.",),
    ),
    # openai/CLIP clip/model.py; facebookresearch/perception_models core/vision_encoder/pe.py has the same names
    Sign(
        "the ViT of a CLIP, which is trained with texts and which no method reads. Use a Perception Encoder",
        (
            r"(^|\.)ln_pre\.weight$",
            r"(^|\.)ln_post\.weight$",
            r"(^|\.)transformer\.resblocks\.\d+\.attn\.in_proj_weight$",
        ),
        absent=(r"(^|\.)attn_pool\.",),
    ),
    # timm/layers/squeeze_excite.py in timm/models/resnet.py; moskomule/senet.pytorch senet/se_resnet.py
    Sign(
        "a ResNet with squeeze and excitation (SE-ResNet), which MMDetection does not support. Use a plain ResNet",
        (r"(^|\.)layer[1-4]\.\d+\.(se|se_module)\.",),
    ),
    # timm/models/resnet.py, stem_type 'deep'; ResNeSt's and SE-ResNets' stems are such, too
    Sign(
        "a ResNet with a stem of three convolutions (ResNet-C or -D, timm's resnet50d), which no target supports. Use "
        "a plain ResNet",
        (r"(^|\.)conv1\.[03]\.weight$", r"(^|\.)layer1\.0\.conv1\.weight$"),
        absent=(r"(^|\.)layer[1-4]\.\d+\.(se|se_module)\.", r"(^|\.)layer[1-4]\.\d+\.conv2\.\w+\."),
    ),
    # vissl/models/trunks/alexnet_*.py
    Sign(
        "an AlexNet (of VISSL's zoo), which MMDetection does not support. Use VISSL's ResNets",
        (r"(^|\.)_feature_blocks\.\d\.0\.weight$",),
        absent=(r"(^|\.)_feature_blocks\.(layer|res)\d\.",),
    ),
    # MCG-NJU/VideoMAE modeling_pretrain.py, NASA-IMPACT/Prithvi, transformers/models/videomae and vjepa2: nn.Conv3d
    Sign(
        "a ViT for videos or image series (VideoMAE, V-JEPA, Prithvi): its patches have a time axis, which no target "
        "supports. Use the ViTs of MAE or DINOv2",
        (r"(^|\.)patch_embed\w*(\.\w+)*\.weight$",),
        axes=5,
    ),
    # sustainlab-group/SatMAE models_mae_group_channels.py
    Sign(
        "a ViT with a patch embedding for each group of bands and a channel embedding (SatMAE), which no target "
        "supports. Use MAE's ViTs",
        (r"(^|\.)patch_embed\.\d+\.proj\.weight$", r"(^|\.)channel_embed$"),
    ),
    # facebookresearch/capi model.py
    Sign(
        f"CAPI's ViT, {_ROPE}. Use the ViTs of DINOv2 or DINOv3",
        (r"\.fn\.rope\.freqs$",),
    ),
    # facebookresearch/fairseq examples/data2vec/models/modalities/modules.py, AltBlock
    Sign(
        "data2vec 2.0, whose blocks normalise their outputs, while every target normalises the inputs. Use the first "
        f"data2vec ({argument('method', 'data2vec')})",
        (r"(^|\.)modality_encoders\.IMAGE\.",),
    ),
    # transformers/models/hiera/modeling_hiera.py
    Sign(
        "a Hiera in transformers' names, which no method reads yet. Use the authors' files "
        f"({argument('method', 'hiera')})",
        (r"(^|\.)encoder\.stages\.\d+\.layers\.\d+\.attn\.qkv\.weight$", r"\.layers\.\d+\.layernorm_before\.weight$"),
    ),
    # Meituan-AutoML/Twins gvt.py, timm/models/twins.py
    Sign(
        "a Twins, which MMDetection does not support. Use a Swin",
        (r"(^|\.)pos_block\.\d+\.proj\.", r"(^|\.)patch_embeds\.\d+\.proj\.weight$"),
    ),
    # Alpha-VL/ConvMAE models_convmae.py; of a PVT patch_embed4 has a proj
    Sign(
        "ConvMAE's encoder, two stages of convolutions before a ViT, which MMDetection does not support. Use "
        "MAE's ViTs",
        (r"(^|\.)patch_embed4\.weight$", r"(^|\.)blocks3\.\d+\.attn\.qkv\.weight$"),
    ),
    # sunsmarterjie/iTPN itpn_pixel/models/models_itpn.py, mmpretrain/models/backbones/hivit.py
    Sign(
        "a HiViT (iTPN's), which MMDetection does not support. Use MAE's ViTs",
        (r"(^|\.)blocks\.\d+\.reduction\.weight$",),
    ),
    # Xiyue-Wang/TransPath ctran.py, ConvStem
    Sign(
        "a Swin with a stem of convolutions (CTransPath's), which no target supports. Use a plain Swin",
        (
            _STEM,
            r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$",
        ),
    ),
    # facebookresearch/moco-v3 vits.py, ConvStem
    Sign(
        "a ViT with a stem of convolutions (MoCo v3's vit_conv), which no target supports. Use MoCo v3's plain ViTs",
        (_STEM, r"(^|\.)blocks\.\d+\.attn\.qkv\.weight$"),
        absent=(r"(^|\.)layers\.\d+\.blocks\.", r"(^|\.)local_mp\."),
    ),
    # microsoft/esvit models/cvt_v4_transformer.py
    Sign(
        "a CvT (EsViT's): its attention has convolutions, which MMDetection does not support. Use EsViT's Swins",
        (r"\.fn\.qkv\.dw\.weight$",),
    ),
    # microsoft/esvit models/vision_longformer.py
    Sign(
        "a Vision Longformer (EsViT's), which MMDetection does not support. Use EsViT's Swins",
        (r"(^|\.)layer\d\.0\.norm_embed\.",),
    ),
)


def name_shown(mark: Sign, shapes: Shapes) -> str:
    """The name by which a file is recognised; '' if it does not match the mark."""
    return _name_shown(mark, shapes, "\n".join(shapes))


def _name_shown(mark: Sign, shapes: Shapes, together: str) -> str:
    if not all(re.search(pattern, together, re.M) for pattern in mark.present):
        return ""
    if any(re.search(pattern, together, re.M) for pattern in mark.absent) or (mark.gated and not _gated(shapes)):
        return ""
    first = (name for name in shapes if re.search(mark.present[0], name))
    if mark.axes is not None:
        first = (name for name in first if len(shapes[name] or ()) == mark.axes)
    return next(first, "")


def _gated(shapes: Shapes) -> bool:
    """Whether the first layer of an MLP has twice as many outputs as the second has inputs."""
    for name, shape in shapes.items():
        if shape and re.search(_FC1, name):
            second = shapes.get(name.replace(".mlp.fc1.", ".mlp.fc2."))
            return second is not None and len(second) == 2 and shape[0] == 2 * second[1]
    return False


def unsupported_network(shapes: Shapes) -> tuple[str, str]:
    """The name by which an unsupported network is recognised, and what it is; two empty texts for any other."""
    if len(shapes) > _MOST_NAMES:
        return "", ""
    together = "\n".join(shapes)
    for mark in MARKS:
        name = _name_shown(mark, shapes, together)
        if name:
            return name, mark.what
    return "", ""

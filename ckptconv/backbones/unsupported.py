"""Networks that are known by a part of their names, and that no target can hold. For messages only.

A mark says all that it needs to be sure: names that must be there, names that must not be, and shapes where names alone
do not tell. A network that a family can describe is refused by its family, with its obstacle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ckptconv.arguments import argument

Shapes = Mapping[str, tuple[int, ...] | None]
"""The names of a file with the shapes of their tensors; None where an entry is no tensor or its shape is not known."""


@dataclass(frozen=True)
class Mark:
    """How a network is recognised.

    ``has`` are expressions that each must be found in some name, the first of them in the name that is shown.
    ``lacks`` are expressions that no name may have. ``axes`` is how many axes the tensor of the first name has, if that
    tells. ``gated`` asks for MLPs whose first layer is twice as wide as the second one's input.
    ``what`` the network is, why no target holds it, and what can be used in its place.
    """

    what: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    axes: int | None = None
    gated: bool = False


_ROTATIONS = "whose positions are rotations inside of the attention (RoPE), which no target has"
_DINOV3 = f"{_ROTATIONS}: of DINOv3 the ConvNeXts can be used, of DINOv2 the ViTs without registers"
_EVA02 = f"EVA-02, {_ROTATIONS}: the first EVA can be used ({argument('method', 'eva')})"
_HIERA = "a Hiera, which MMDetection and MMPretrain do not have: MAE's ViTs can be used"
_STEM = r"(^|\.)patch_embed\.proj\.\d+\.weight$"
_MOST_NAMES = 6_000  # of a section that is planned
_FC1 = r"(^|\.)blocks\.\d+\.mlp\.fc1\.weight$"
_FC2 = r"(^|\.)blocks\.\d+\.mlp\.fc2\.weight$"

MARKS = (
    # torch/distributed/fsdp/_flat_param.py; older versions write no underscore
    Mark(
        "one rank's shard of a network that FSDP cut up: gather it where it was trained, with "
        "StateDictType.FULL_STATE_DICT",
        (r"(^|\.)_?flat_param(_\d+)?$",),
    ),
    # Separius/SimCLRv2-Pytorch resnet.py, vissl/models/trunks/resnext_selective_kernels.py
    Mark(
        "a ResNet with selective kernels (SimCLRv2's sk1), which MMDetection does not have",
        (r"\.mixing_conv\.",),
    ),
    # classy_vision/models/regnet.py, in vissl/models/trunks/regnet.py
    Mark(
        "a RegNetY (SEER's), which MMDetection does not have: its RegNet is without squeeze and excitation",
        (r"\.se\.excitation\.", r"(^|\.)block\d+-\d+\."),
    ),
    # timm/layers/squeeze_excite.py in timm/models/resnet.py; moskomule/senet.pytorch senet/se_resnet.py
    Mark(
        "a ResNet with squeeze and excitation (SE-ResNet), which MMDetection does not have: plain ResNets can be used",
        (r"(^|\.)layer[1-4]\.\d+\.(se|se_module)\.",),
    ),
    # timm/models/resnet.py, stem_type 'deep'; ResNeSt's and SE-ResNets' stems are such, too
    Mark(
        "a ResNet with a stem of three convolutions (ResNet-C or -D, timm's resnet50d), which no target here has: "
        "plain ResNets can be used",
        (r"(^|\.)conv1\.[03]\.weight$", r"(^|\.)layer1\.0\.conv1\.weight$"),
        lacks=(r"(^|\.)layer[1-4]\.\d+\.(se|se_module)\.", r"(^|\.)layer[1-4]\.\d+\.conv2\.\w+\."),
    ),
    # vissl/models/trunks/alexnet_*.py
    Mark(
        "an AlexNet (of VISSL's zoo), which MMDetection does not have: its ResNets can be used",
        (r"(^|\.)_feature_blocks\.\d\.0\.weight$",),
        lacks=(r"(^|\.)_feature_blocks\.(layer|res)\d\.",),
    ),
    # MCG-NJU/VideoMAE modeling_pretrain.py, NASA-IMPACT/Prithvi, transformers/models/videomae and vjepa2: nn.Conv3d
    Mark(
        "a ViT of videos or series of images (VideoMAE, V-JEPA, Prithvi), whose patches have a third axis, time, which "
        "no target has: MAE's and DINOv2's ViTs can be used",
        (r"(^|\.)patch_embed\w*(\.\w+)*\.weight$",),
        axes=5,
    ),
    # sustainlab-group/SatMAE models_mae_group_channels.py
    Mark(
        "a ViT with a patch embedding for each group of bands and an embedding of channels (SatMAE), which no target "
        "has: MAE's ViTs can be used",
        (r"(^|\.)patch_embed\.\d+\.proj\.weight$", r"(^|\.)channel_embed$"),
    ),
    # transformers/models/dinov3_vit/modeling_dinov3_vit.py; DINOv2's have positions, and these names in version 5
    Mark(
        f"a DINOv3 ViT (in transformers' names), {_DINOV3}",
        (r"(^|\.)layer\.\d+\.attention\.o_proj\.", r"(^|\.)register_tokens$"),
        lacks=(r"(^|\.)position_embeddings$",),
    ),
    # timm/models/eva.py vit_*_dinov3: no positions, no periods
    Mark(
        f"a DINOv3 ViT (in timm's names), {_DINOV3}",
        (r"(^|\.)blocks\.\d+\.gamma_1$", r"(^|\.)reg_token$", r"(^|\.)blocks\.\d+\.attn\.qkv\.weight$"),
        lacks=(r"(^|\.)pos_embed$",),
    ),
    # baaivision/EVA EVA-02/asuka/rope.py
    Mark(_EVA02, (r"(^|\.)rope\.freqs_cos$",)),
    # timm/models/eva.py eva02_*: SwiGLU in small ones packed, in larger ones as two layers
    Mark(_EVA02, (r"(^|\.)blocks\.\d+\.mlp\.fc1_g\.weight$", r"(^|\.)cls_token$", r"(^|\.)blocks\.\d+\.attn\.q_")),
    Mark(
        _EVA02,
        (_FC1, _FC2, r"(^|\.)blocks\.\d+\.attn\.q_bias$"),
        lacks=(r"relative_position_bias", r"(^|\.)reg_token$"),
        gated=True,
    ),
    # timm/layers/mlp.py SwiGLUPacked, in DINOv2's giant and in ViTs of pathology (UNI 2, H-optimus, Virchow)
    Mark(
        "a ViT with gated MLPs (SwiGLU) in timm's names (DINOv2's giant, UNI 2, H-optimus, Virchow), which no method "
        "here reads yet: of DINOv2's own files those without registers can be used",
        (_FC1, _FC2, r"(^|\.)blocks\.\d+\.attn\.qkv\."),
        lacks=(r"(^|\.)blocks\.\d+\.attn\.q_bias$",),
        gated=True,
    ),
    # facebookresearch/capi model.py
    Mark(
        f"CAPI's ViT, {_ROTATIONS}: of DINOv2 the ViTs without registers can be used",
        (r"\.fn\.rope\.freqs$",),
    ),
    # facebookresearch/fairseq examples/data2vec/models/modalities/modules.py, AltBlock
    Mark(
        "data2vec 2.0, whose blocks norm what they put out, where every target's norm what they take in: the first "
        f"data2vec can be used ({argument('method', 'data2vec')})",
        (r"(^|\.)modality_encoders\.IMAGE\.",),
    ),
    # facebookresearch/hiera hiera/hiera.py, HieraBlock, and timm/models/hiera.py; MViT's have pools in the attention
    Mark(
        _HIERA,
        (r"(^|\.)blocks\.\d+\.proj\.weight$", r"(^|\.)blocks\.\d+\.attn\.qkv\.weight$"),
        lacks=(r"\.pool_q\.",),
    ),
    # transformers/models/hiera/modeling_hiera.py
    Mark(
        _HIERA,
        (r"(^|\.)encoder\.stages\.\d+\.layers\.\d+\.attn\.qkv\.weight$", r"\.layers\.\d+\.layernorm_before\.weight$"),
    ),
    # Meituan-AutoML/Twins gvt.py, timm/models/twins.py
    Mark(
        "a Twins, which MMDetection does not have: Swins can be used",
        (r"(^|\.)pos_block\.\d+\.proj\.", r"(^|\.)patch_embeds\.\d+\.proj\.weight$"),
    ),
    # Alpha-VL/ConvMAE models_convmae.py; of a PVT patch_embed4 has a proj
    Mark(
        "ConvMAE's encoder, two stages of convolutions before a ViT, which MMDetection does not have: MAE's ViTs can "
        "be used",
        (r"(^|\.)patch_embed4\.weight$", r"(^|\.)blocks3\.\d+\.attn\.qkv\.weight$"),
    ),
    # sunsmarterjie/iTPN itpn_pixel/models/models_itpn.py, mmpretrain/models/backbones/hivit.py
    Mark(
        "a HiViT (iTPN's), which MMDetection does not have: MAE's ViTs can be used",
        (r"(^|\.)blocks\.\d+\.reduction\.weight$",),
    ),
    # torchvision/models/swin_transformer.py, swin_v2_*
    Mark(
        "a Swin V2 in torchvision's names, which MMDetection does not have: plain Swins can be used",
        (r"(^|\.)features\.\d+\.\d+\.attn\.logit_scale$", r"(^|\.)features\.\d+\.\d+\.attn\.cpb_mlp\.0\."),
    ),
    # Xiyue-Wang/TransPath ctran.py, ConvStem
    Mark(
        "a Swin with a stem of convolutions (CTransPath's), which no target has: plain Swins can be used",
        (
            _STEM,
            r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$",
        ),
    ),
    # facebookresearch/moco-v3 vits.py, ConvStem
    Mark(
        "a ViT with a stem of convolutions (MoCo v3's vit_conv), which no target has: its plain ViTs can be used",
        (_STEM, r"(^|\.)blocks\.\d+\.attn\.qkv\.weight$"),
        lacks=(r"(^|\.)layers\.\d+\.blocks\.", r"(^|\.)local_mp\."),
    ),
    # facebookresearch/xcit xcit.py, vissl/models/trunks/xcit.py
    Mark(
        "an XCiT (DINO's and VISSL's), whose attention is between channels, which no target has: DINO's ViTs can be "
        "used",
        (r"(^|\.)local_mp\.", r"(^|\.)attn\.temperature$"),
    ),
    # microsoft/esvit models/cvt_v4_transformer.py
    Mark(
        "a CvT (EsViT's), whose attention has convolutions, which MMDetection does not have: EsViT's Swins can be used",
        (r"\.fn\.qkv\.dw\.weight$",),
    ),
    # microsoft/esvit models/vision_longformer.py
    Mark(
        "a Vision Longformer (EsViT's), which MMDetection does not have: EsViT's Swins can be used",
        (r"(^|\.)layer\d\.0\.norm_embed\.",),
    ),
)


def shown_by(mark: Mark, shapes: Shapes) -> str:
    """The name by which a file shows that it holds such a network; '' if it does not."""
    return _shown_by(mark, shapes, "\n".join(shapes))


def _shown_by(mark: Mark, shapes: Shapes, together: str) -> str:
    if not all(re.search(has, together, re.M) for has in mark.has):
        return ""
    if any(re.search(lacks, together, re.M) for lacks in mark.lacks) or (mark.gated and not _gated(shapes)):
        return ""
    first = (name for name in shapes if re.search(mark.has[0], name))
    if mark.axes is not None:
        first = (name for name in first if len(shapes[name] or ()) == mark.axes)
    return next(first, "")


def _gated(shapes: Shapes) -> bool:
    """Whether the first layer of an MLP puts out twice as much as the second one takes in."""
    for name, shape in shapes.items():
        if shape and re.search(_FC1, name):
            second = shapes.get(name.replace(".mlp.fc1.", ".mlp.fc2."))
            return second is not None and len(second) == 2 and shape[0] == 2 * second[1]
    return False


def stranger(shapes: Shapes) -> tuple[str, str]:
    """The first name that tells such a network, and what the network is; two empty texts if none does."""
    if len(shapes) > _MOST_NAMES:
        return "", ""
    together = "\n".join(shapes)
    for mark in MARKS:
        name = _shown_by(mark, shapes, together)
        if name:
            return name, mark.what
    return "", ""

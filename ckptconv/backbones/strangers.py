"""Networks that are known by a part of their names, and that MMDetection has no place for. For messages only.

Each row is an expression for a name that only such a network has, what the network is and why it has no place, and what
comes nearest. A network that a family can describe is refused by its family, with its obstacle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ROTATIONS = "whose positions are rotations inside of the attention (RoPE), which no target has"

MARKS = (
    # Separius/SimCLRv2-Pytorch resnet.py, vissl/models/trunks/resnext_selective_kernels.py
    (r"\.mixing_conv\.", "a ResNet with selective kernels (SimCLRv2's sk1), which MMDetection has not"),
    # classy_vision/models/regnet.py, in vissl/models/trunks/regnet.py
    (
        r"\.se\.excitation\.",
        "a RegNetY (SEER's), which MMDetection has not: its RegNet is without squeeze and excitation",
    ),
    # vissl/models/trunks/alexnet_*.py
    (
        r"(^|\.)_feature_blocks\.\d\.0\.weight$",
        "an AlexNet (of VISSL's zoo), which MMDetection has not: its ResNets can be used",
    ),
    # torch/distributed/fsdp/_flat_param.py; older versions write no underscore
    (
        r"(^|\.)_?flat_param(_\d+)?$",
        (
            "one rank's shard of a network that FSDP cut up: gather it where it was trained, with "
            "StateDictType.FULL_STATE_DICT"
        ),
    ),
    # transformers/models/dinov3_vit/modeling_dinov3_vit.py; in version 5 DINOv2's have them below `encoder`
    (
        r"(^|(?<!encoder)\.)layer\.\d+\.attention\.o_proj\.",
        (
            f"a DINOv3 ViT (in transformers' names), {_ROTATIONS}: of DINOv3 the ConvNeXts can be used, of DINOv2 the "
            "ViTs without registers"
        ),
    ),
    # baaivision/EVA EVA-02/asuka/rope.py
    (
        r"(^|\.)rope\.freqs_cos$",
        f"EVA-02, {_ROTATIONS}: the first EVA can be used (--selfsup eva)",
    ),
    # facebookresearch/capi model.py
    (
        r"\.fn\.rope\.freqs$",
        f"CAPI's ViT, {_ROTATIONS}: of DINOv2 the ViTs without registers can be used",
    ),
    # facebookresearch/fairseq examples/data2vec/models/modalities/modules.py, AltBlock
    (
        r"(^|\.)modality_encoders\.IMAGE\.",
        (
            "data2vec 2.0, whose blocks norm what they put out, where every target's norm what they take in: the first "
            "data2vec can be used (--selfsup data2vec)"
        ),
    ),
    # facebookresearch/hiera hiera/hiera.py, HieraBlock
    (
        r"(^|\.)blocks\.\d+\.proj\.weight$",
        "a Hiera, which MMDetection and MMPretrain have not: MAE's ViTs can be used",
    ),
    # Alpha-VL/ConvMAE models_convmae.py
    (
        r"(^|\.)patch_embed4\.",
        "ConvMAE's encoder, two stages of convolutions before a ViT, which MMDetection has not: MAE's can be used",
    ),
    # sunsmarterjie/iTPN itpn_pixel/models/models_itpn.py, mmpretrain/models/backbones/hivit.py
    (
        r"(^|\.)blocks\.\d+\.reduction\.weight$",
        "a HiViT (iTPN's), which MMDetection has not: MAE's ViTs can be used",
    ),
    # facebookresearch/moco-v3 vits.py, ConvStem
    (
        r"(^|\.)patch_embed\.proj\.\d+\.weight$",
        "a ViT with a stem of convolutions (MoCo v3's vit_conv), which no target has: its plain ViTs can be used",
    ),
    # facebookresearch/xcit xcit.py, vissl/models/trunks/xcit.py
    (
        r"(^|\.)local_mp\.",
        (
            "an XCiT (DINO's and VISSL's), whose attention is between channels, which no target has: DINO's ViTs can "
            "be used"
        ),
    ),
    # microsoft/esvit models/cvt_v4_transformer.py
    (
        r"\.fn\.qkv\.dw\.weight$",
        "a CvT (EsViT's), whose attention has convolutions, which MMDetection has not: EsViT's Swins can be used",
    ),
    # microsoft/esvit models/vision_longformer.py
    (
        r"(^|\.)layer\d\.0\.norm_embed\.",
        "a Vision Longformer (EsViT's), which MMDetection has not: EsViT's Swins can be used",
    ),
)


def stranger(names: Iterable[str]) -> tuple[str, str]:
    """The first name that tells such a network, and what the network is; two empty texts if none does."""
    names = list(names)
    together = "\n".join(names)
    for mark, what in MARKS:
        if re.search(mark, together, re.M):
            return next((name for name in names if re.search(mark, name)), ""), what
    return "", ""

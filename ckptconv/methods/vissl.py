"""VISSL's runs and its model zoo (`MODEL_ZOO.md`). Its ResNets are torchvision's in a ModuleDict: trunks/resnext.py.

Files called `converted_vissl_*.torch` are of two kinds: the zoo's were converted to VISSL and hold
`model_state_dict`; those of its script `convert_vissl_to_torchvision.py` have torchvision's bare names.
"""

from __future__ import annotations

from ckptconv.methods import naming_schemes
from ckptconv.methods.interface import IMAGENET, Layout, Method, Published
from ckptconv.methods.naming_stages import CLASSY_REGNET
from ckptconv.rules import drop, keep, under

VISSL = Method(
    name="vissl",
    title="VISSL's model zoo and runs",
    aliases=("simclr", "npid", "pirl", "deepcluster", "deepcluster-v2", "jigsaw", "rotnet"),
    repository="facebookresearch/vissl",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("classy_state_dict.base_model.model.trunk", "model_state_dict", ""),
            rules=(
                keep("_feature_blocks.{key...}", "{key...}"),
                keep("base_model._feature_blocks.{key...}", "{key...}"),
                drop("heads.{key...}", "the pretext task's heads"),
            ),
            families=("ResNet",),
        ),
        Layout(  # trunks/vision_transformer.py has timm's names
            title="training checkpoint of a ViT",
            sections=("classy_state_dict.base_model.model.trunk",),
            rules=(drop("patch_masking.masked_embed", "the mask token"), keep("{key...}", "{key...}")),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("vissl"),
    norm=True,  # lastMAP in vissl/models/trunks/vision_transformer.py
    # extra_scripts/convert_vissl_to_torchvision.py and convert_vissl_to_detectron2.py
    converted=(*naming_schemes.TORCHVISION.layouts, *naming_schemes.DETECTRON2.layouts),
)

SEER = Method(
    name="seer",
    title="SEER, RegNets that VISSL trains with SwAV",
    paper="https://arxiv.org/abs/2103.01988",
    repository="facebookresearch/vissl",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("classy_state_dict.base_model.model.trunk",),
            rules=under("_feature_blocks.", CLASSY_REGNET),
            families=("RegNetY",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("seer"),
)

_DINO_HEADS = (
    drop("momentum_teacher.module.heads.{key...}", "the teacher's heads"),
    drop("momentum_teacher.heads.{key...}", "the teacher's heads"),
    drop("center", "the centre of the teacher's outputs"),
)

VISSL_DINO = Method(
    name="vissl-dino",
    title="DINO as VISSL trains it, the teacher",
    paper="https://arxiv.org/abs/2104.14294",
    repository="facebookresearch/vissl",
    layouts=(
        Layout(  # the student is in the trunk's section, as in any VISSL run; the teacher is a part of the loss
            title="training checkpoint, teacher",
            sections=("classy_state_dict.loss",),
            rules=(
                keep("momentum_teacher.module.trunk._feature_blocks.{key...}", "{key...}"),
                keep("momentum_teacher.trunk._feature_blocks.{key...}", "{key...}"),
                *_DINO_HEADS,
            ),
            families=("ResNet",),
        ),
        Layout(
            title="training checkpoint of a ViT, teacher",
            sections=("classy_state_dict.loss",),
            rules=(
                *_DINO_HEADS,
                keep("momentum_teacher.module.trunk.{key...}", "{key...}"),
                keep("momentum_teacher.trunk.{key...}", "{key...}"),
            ),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    norm=VISSL.norm,
)

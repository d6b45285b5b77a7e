"""VISSL's runs and its model zoo (`MODEL_ZOO.md`). Its ResNets are torchvision's in a ModuleDict: trunks/resnext.py.

Files called `converted_vissl_*.torch` are of two kinds: the zoo's were converted to VISSL and hold
`model_state_dict`; those that its script `convert_vissl_to_torchvision.py` writes have torchvision's bare names.
"""

from __future__ import annotations

from ckptconv.methods import naming_schemes
from ckptconv.methods.interface import IMAGENET, Layout, Method, Release
from ckptconv.rules import drop, keep

_ZOO = "https://dl.fbaipublicfiles.com/vissl/model_zoo/"
_RUNS = (
    ("jigsaw_rn50_100perm", "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_17_07_20.db174a43", 104),
    ("jigsaw_rn50_2kperm", "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_17_07_20.cccee144", 104),
    ("jigsaw_rn50_10kperm", "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_20_07_20.3d706467", 104),
    ("rotnet_rn50", "rotnet_rn50_in1k_ep105_rotnet_8gpu_resnet_17_07_20.46bada9f", 125),
    ("npid_rn50_200ep", "npid_1node_200ep_4kneg_npid_8gpu_resnet_23_07_20.9eb36512", 199),
    ("npid_pp_rn50_800ep", "npid_pp/4node_800ep_32kneg_cosine_resnet_23_07_20.75432662", 799),
    ("pirl_rn50_200ep", "pirl_jigsaw_4node_200ep_pirl_jigsaw_4node_resnet_22_07_20.ffd17b75", 199),
    ("pirl_rn50_800ep", "pirl_jigsaw_4node_pirl_jigsaw_4node_resnet_22_07_20.34377f59", 799),
    ("simclr_rn50_100ep", "simclr_rn50_100ep_simclr_8node_resnet_16_07_20.8edb093e", 99),
    ("simclr_rn50_200ep", "simclr_rn50_200ep_simclr_8node_resnet_16_07_20.a816c0ef", 199),
    ("simclr_rn50_400ep", "simclr_rn50_400ep_simclr_8node_resnet_16_07_20.36b338ef", 399),
    ("simclr_rn50_800ep", "simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1", 799),
    ("simclr_rn50_1000ep", "simclr_rn50_1000ep_simclr_8node_resnet_16_07_20.afe428c7", 999),
    ("simclr_rn50w2_100ep", "simclr_rn50w2_100ep_simclr_8node_resnet_16_07_20.05b37ec3", 99),
    ("simclr_rn50w2_1000ep", "simclr_rn50w2_1000ep_simclr_8node_resnet_16_07_20.e1e3bbf0", 999),
    ("simclr_rn50w4_1000ep", "simclr_rn50w4_1000ep_bs32_16node_simclr_8node_resnet_28_07_20.9e20b0ae", 999),
    ("simclr_rn101_100ep", "simclr_rn101_100ep_simclr_8node_resnet_16_07_20.1ff6cb4b", 99),
    ("simclr_rn101_1000ep", "simclr_rn101_1000ep_simclr_8node_resnet_16_07_20.35063cea", 999),
    ("moco_v2_rn50_200ep", "moco_v2_1node_lr.03_step_b32_zero_init", 199),
    ("swav_rn50_100ep", "swav_in1k_rn50_100ep_swav_8node_resnet_27_07_20.7e6fc6bf", 99),
    ("swav_rn50_200ep", "swav_in1k_rn50_200ep_swav_8node_resnet_27_07_20.bd595bb0", 199),
    ("swav_rn50_400ep", "swav_in1k_rn50_400ep_swav_8node_resnet_27_07_20.a5990fc9", 399),
    ("swav_rn50_800ep", "swav_in1k_rn50_800ep_swav_8node_resnet_27_07_20.a0a6b676", 799),
    ("swav_rn50_200ep_bs256", "swav_4gpu_bs64_200ep_2x224_6x96_queue_swav_8node_resnet_28_07_20.a8f2c735", 199),
    ("swav_rn50_400ep_bs256", "swav_4gpu_bs64_400ep_2x224_6x96_queue_swav_8node_resnet_28_07_20.5e967ca0", 399),
    ("swav_rn50_400ep_2x224", "swav_8node_2x224_rn50_in1k_swav_8node_resnet_30_07_20.c8fd7169", 399),
    ("swav_rn50w2_400ep", "swav_rn50w2_in1k_bs32_16node_400ep_swav_8node_resnet_30_07_20.93563e51", 399),
    ("swav_rn50w4_400ep", "swav_rn50w4_in1k_bs40_8node_400ep_swav_8node_resnet_30_07_20.1736135b", 399),
)

_NETWORKS = (
    ("rn50", "ResNet-50"),
    ("rn50w2", "ResNet-50, width x2"),
    ("rn50w4", "ResNet-50, width x4"),
    ("rn101", "ResNet-101"),
)

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
    releases=(
        *(
            Release(
                f"vissl_{name}",
                f"{_ZOO}{folder}/model_final_checkpoint_phase{last}.torch",
                backbone=next(backbone for part, backbone in _NETWORKS if f"_{part}_" in f"_{name}_"),
            )
            for name, folder, last in _RUNS
        ),
        Release(
            "vissl_barlow_twins_rn50_1000ep",
            f"{_ZOO}barlow_twins/barlow_twins_32gpus_4node_imagenet1k_1000ep_resnet50.torch",
            backbone="ResNet-50",
        ),
    ),
    # extra_scripts/convert_vissl_to_torchvision.py and convert_vissl_to_detectron2.py
    converted=(*naming_schemes.TORCHVISION.layouts, *naming_schemes.DETECTRON2.layouts),
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
        Layout(  # the student is in the trunk's section, as of any other VISSL run; the teacher is a part of the loss
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
)

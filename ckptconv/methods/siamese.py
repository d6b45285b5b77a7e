"""Siamese methods without negatives: they use a prediction head, a momentum teacher, or decorrelated features."""

from __future__ import annotations

from dataclasses import replace

from ckptconv.methods import naming_schemes, openmmlab
from ckptconv.methods.interface import DINO_RESAMPLING, IMAGENET, Layout, Method, Published
from ckptconv.methods.naming_resnet import NUMBERED
from ckptconv.methods.naming_stages import XCIT
from ckptconv.rules import drop, keep, under

_BARE = Layout(title="released backbone", sections=("",), rules=(keep("{key...}", "{key...}"),), families=("ResNet",))

SIMSIAM = Method(
    name="simsiam",
    title="SimSiam",
    paper="https://arxiv.org/abs/2011.10566",
    repository="facebookresearch/simsiam",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("encoder.fc.{p...}", "the projection head"),
                keep("encoder.{key...}", "{key...}"),
                drop("predictor.{key...}", "the prediction head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("simsiam"),
)

BARLOWTWINS = Method(
    name="barlowtwins",
    title="Barlow Twins",
    aliases=("barlow",),
    paper="https://arxiv.org/abs/2103.03230",
    repository="facebookresearch/barlowtwins",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("projector.{key...}", "the projection head"),
                drop("bn.{key...}", "the batch norm before the cross-correlation"),
            ),
            families=("ResNet",),
        ),
        _BARE,
    ),
    pixels=IMAGENET,
    releases=Published("barlowtwins"),
)

VICREG = Method(
    name="vicreg",
    title="VICReg",
    paper="https://arxiv.org/abs/2105.04906",
    repository="facebookresearch/vicreg",
    layouts=(
        Layout(  # resnet.py pads its stem outside the convolution: the result is torchvision's
            title="training checkpoint",
            sections=("model",),
            rules=(keep("backbone.{key...}", "{key...}"), drop("projector.{key...}", "the expander")),
            families=("ResNet",),
        ),
        _BARE,
    ),
    pixels=IMAGENET,
    releases=Published("vicreg"),
)

_DINO_RULES = (
    *under("backbone.", XCIT),
    keep("backbone.{key...}", "{key...}"),
    drop("head.{key...}", "the projection head"),
)

DINO = Method(
    name="dino",
    title="DINO, the teacher",
    aliases=("dino-v1", "dino-teacher"),
    paper="https://arxiv.org/abs/2104.14294",
    repository="facebookresearch/dino",
    layouts=(
        Layout(
            title="training checkpoint, teacher",
            sections=("teacher",),
            rules=_DINO_RULES,
            families=("ResNet", "ViT", "XCiT"),
        ),
        replace(_BARE, families=("ResNet", "ViT")),
        Layout(title="released XCiT", sections=("",), rules=(*XCIT, keep("{key...}", "{key...}")), families=("XCiT",)),
    ),
    pixels=IMAGENET,
    releases=Published("dino"),
    position_resampling=DINO_RESAMPLING,
    norm=True,  # get_intermediate_layers in vision_transformer.py
)

DINO_STUDENT = Method(
    name="dino-student",
    title="DINO, the student",
    position_resampling=DINO_RESAMPLING,
    norm=DINO.norm,
    paper=DINO.paper,
    repository=DINO.repository,
    layouts=(
        Layout(
            title="training checkpoint, student",
            sections=("student",),
            rules=_DINO_RULES,
            families=("ResNet", "ViT", "XCiT"),
        ),
    ),
    pixels=IMAGENET,
    guess=False,
)

VICREGL = Method(
    name="vicregl",
    title="VICRegL",
    paper="https://arxiv.org/abs/2210.01571",
    repository="facebookresearch/VICRegL",
    layouts=(
        Layout(  # resnet.py is VICReg's, convnext.py has no layer scale by default
            title="training checkpoint",
            sections=("model",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("maps_projector.{key...}", "the expander of local features"),
                drop("projector.{key...}", "the expander"),
                drop("classifier.{p}", "the online classifier, for monitoring"),
            ),
            families=("ResNet", "ConvNeXt"),
            without=("layer_scale",),
        ),
        _BARE,
        Layout(
            title="released ConvNeXt",
            sections=("",),
            rules=(keep("{key...}", "{key...}"),),
            families=("ConvNeXt",),
            without=("layer_scale",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("vicregl"),
)

SCRL = Method(
    name="scrl",
    title="SCRL, and its BYOL",
    paper="https://arxiv.org/abs/2103.06122",
    repository="kakaobrain/scrl",
    layouts=(
        Layout(  # each module of the trainer has its own section: trainer/base.py
            title="training checkpoint, online network",
            sections=("online_network_state_dict",),
            rules=(*under("encoder.", NUMBERED), drop("projector.{p...}", "the projection head")),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("scrl"),
)

_BYOL_PAPER = "https://arxiv.org/abs/2006.07733"

BYOL_YAOX12 = Method(
    name="byol-yaox12",
    title="BYOL as yaox12/BYOL-PyTorch trains it",
    paper=_BYOL_PAPER,
    repository="yaox12/BYOL-PyTorch",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(
                *under("online_network.encoder.", NUMBERED),
                drop("online_network.projetion.{p...}", "the projection head"),  # spelled so in model/basic_modules.py
                drop("target_network.{key...}", "the target network: a momentum copy"),
                drop("predictor.{p...}", "the prediction head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
)

BYOL_CHIGUR = Method(
    name="byol-chigur",
    title="DeepMind's BYOL from chigur/byol-convert: trained with SAME padding, which MMDetection does not have",
    paper=_BYOL_PAPER,
    repository="chigur/byol-convert",
    layouts=(
        Layout(  # haiku does not count batches: num_batches_tracked is missing
            title="converted network",
            sections=("",),
            rules=(drop("fc.{p}", "the classifier"), keep("{key...}", "{key...}")),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    guess=False,  # torchvision's files have the same names
)

SOCO = Method(
    name="soco",
    title="SoCo",
    paper="https://arxiv.org/abs/2106.02637",
    repository="hologerry/SoCo",
    layouts=(
        Layout(  # C4 has neither neck nor head, and queues that it never uses: contrast/models/
            title="training checkpoint, FPN or C4",
            sections=("model",),
            rules=(
                keep("encoder.{key...}", "{key...}"),
                drop("neck.{p...}", "the feature pyramid"),
                drop("head.{p...}", "the RoI head"),
                drop("projector.{p...}", "the projection head"),
                drop("predictor.{p...}", "the prediction head"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("neck_k.{p...}", "the key encoder's feature pyramid: a momentum copy"),
                drop("head_k.{p...}", "the key encoder's RoI head: a momentum copy"),
                drop("projector_k.{p...}", "the key encoder's projection head: a momentum copy"),
                drop("queue", "the queue of negatives, never used"),
                drop("queue_ptr", "the queue of negatives, never used"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    # converter_detectron2/ and converter_mmdetection/
    converted=(*naming_schemes.DETECTRON2.layouts, *openmmlab.MMSELFSUP.layouts),
)

SOCO_EMA = Method(
    name="soco-ema",
    title="SoCo, the moving average that its converters read",
    paper=SOCO.paper,
    repository=SOCO.repository,
    layouts=(
        Layout(  # converter_mmdetection/ with --ema reads it; the published trainer does not write it
            title="moving average",
            sections=("model_ema",),
            rules=(
                keep("encoder.{key...}", "{key...}"),
                drop("neck.{p...}", "the feature pyramid"),
                drop("head.{p...}", "the RoI head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    guess=False,
)

ORL = Method(
    name="orl",
    title="ORL",
    paper="https://arxiv.org/abs/2106.11952",
    repository="Jiahao000/ORL",
    layouts=(
        Layout(  # openselfsup/models/orl.py holds online_net = Sequential(backbone, neck): both are saved twice
            title="training checkpoint",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("neck.{key...}", "the neck: a projection head"),
                drop("online_net.{key...}", "the online network again, under a second name"),
                drop("target_net.{key...}", "the target network: a momentum copy"),
                drop("global_head.{key...}", "the head for whole images"),
                drop("local_intra_head.{key...}", "the head for regions of one image"),
                drop("local_inter_head.{key...}", "the head for regions of two images"),
            ),
            families=("ResNet",),
        ),
        Layout(  # tools/extract_backbone_weights.py
            title="extracted backbone",
            sections=("state_dict",),
            rules=(keep("{key...}", "{key...}"),),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
)

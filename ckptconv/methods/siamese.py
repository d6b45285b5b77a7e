"""Methods that pull two views together without negatives: by a predictor, a teacher or decorrelated features."""

from __future__ import annotations

from ckptconv.methods.interface import Layout, Method, Release
from ckptconv.rules import drop, keep

_FB = "https://dl.fbaipublicfiles.com/"
_BARE = Layout(title="released backbone", sections=("",), rules=(keep("{key...}", "{key...}"),))

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
        ),
    ),
    releases=(
        Release("simsiam_100ep", f"{_FB}simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar"),
        Release("simsiam_100ep_bs256", f"{_FB}simsiam/models/100ep-256bs/pretrain/checkpoint_0099.pth.tar"),
    ),
)

BARLOWTWINS = Method(
    name="barlowtwins",
    title="Barlow Twins",
    paper="https://arxiv.org/abs/2103.03230",
    repository="facebookresearch/barlowtwins",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("projector.{key...}", "the projector"),
                drop("bn.{key...}", "the batch norm before the cross-correlation"),
            ),
        ),
        _BARE,
    ),
    releases=(
        Release("barlowtwins_resnet50", f"{_FB}barlowtwins/ljng/resnet50.pth"),
        Release("barlowtwins_checkpoint", f"{_FB}barlowtwins/ljng/checkpoint.pth"),
    ),
)

VICREG = Method(
    name="vicreg",
    title="VICReg",
    paper="https://arxiv.org/abs/2105.04906",
    repository="facebookresearch/vicreg",
    layouts=(
        Layout(  # resnet.py pads its stem outside the convolution, which equals torchvision's
            title="training checkpoint",
            sections=("model",),
            rules=(keep("backbone.{key...}", "{key...}"), drop("projector.{key...}", "the expander")),
        ),
        _BARE,
    ),
    releases=tuple(
        Release(f"vicreg_{name}", f"{_FB}vicreg/{name}.pth")
        for name in ("resnet50", "resnet50_fullckpt", "resnet50x2", "resnet50x2_fullckpt")
    ),
)

_DINO_RULES = (keep("backbone.{key...}", "{key...}"), drop("head.{key...}", "the projection head"))

DINO = Method(
    name="dino",
    title="DINO, the teacher",
    paper="https://arxiv.org/abs/2104.14294",
    repository="facebookresearch/dino",
    layouts=(
        Layout(title="training checkpoint, teacher", sections=("teacher",), rules=_DINO_RULES),
        _BARE,
    ),
    releases=tuple(
        Release(name, f"{_FB}dino/dino_resnet50_pretrain/{name}.pth")
        for name in ("dino_resnet50_pretrain", "dino_resnet50_pretrain_full_checkpoint")
    ),
)

DINO_STUDENT = Method(
    name="dino-student",
    title="DINO, the student",
    paper=DINO.paper,
    repository=DINO.repository,
    layouts=(Layout(title="training checkpoint, student", sections=("student",), rules=_DINO_RULES),),
    guess=False,
)

METHODS = (SIMSIAM, BARLOWTWINS, VICREG, DINO, DINO_STUDENT)

"""Methods that tell an image from others, or a pixel from other pixels, with a query and a key encoder."""

from __future__ import annotations

from ckptconv.methods.interface import Layout, Method, Release
from ckptconv.rules import drop, keep

_FB = "https://dl.fbaipublicfiles.com/"

MOCO = Method(
    name="moco",
    title="MoCo v1 and v2",
    paper="https://arxiv.org/abs/1911.05722",
    repository="facebookresearch/moco",
    layouts=(
        Layout(  # the query encoder is the one that is evaluated: main_lincls.py
            title="training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("encoder_q.fc.{p...}", "the query encoder's projection head"),
                keep("encoder_q.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("queue", "the negatives"),
                drop("queue_ptr", "the negatives"),
            ),
        ),
    ),
    releases=tuple(
        Release(name, f"{_FB}moco/moco_checkpoints/{name}/{name}_pretrain.pth.tar", md5)
        for name, md5 in (("moco_v1_200ep", "b251726a"), ("moco_v2_200ep", "59fd9945"), ("moco_v2_800ep", "a04e12f8"))
    ),
)

MOCOV3 = Method(
    name="mocov3",
    title="MoCo v3",
    paper="https://arxiv.org/abs/2104.02057",
    repository="facebookresearch/moco-v3",
    layouts=(
        Layout(  # base_encoder, not momentum_encoder: main_lincls.py
            title="training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("base_encoder.fc.{p...}", "the base encoder's projection head"),
                keep("base_encoder.{key...}", "{key...}"),
                drop("momentum_encoder.{key...}", "the momentum encoder: a copy"),
                drop("predictor.{key...}", "the prediction head"),
            ),
        ),
    ),
    releases=tuple(
        Release(f"mocov3_r50_{n}ep", f"{_FB}moco-v3/r-50-{n}ep/r-50-{n}ep.pth.tar") for n in (100, 300, 1000)
    ),
)

DENSECL = Method(
    name="densecl",
    title="DenseCL",
    paper="https://arxiv.org/abs/2011.09157",
    repository="WXinlong/DenseCL",
    layouts=(
        Layout(  # openselfsup's MoCo holds encoder_q = Sequential(backbone, neck), so the backbone is saved twice
            title="training checkpoint",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("encoder_q.0.{key...}", "the query backbone again, under its other name"),
                drop("encoder_q.1.{key...}", "the query encoder's neck: two projectors"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("queue", "the negatives"),
                drop("queue_ptr", "the negatives"),
                drop("queue2", "the dense negatives"),
                drop("queue2_ptr", "the dense negatives"),
            ),
        ),
        Layout(title="released backbone", sections=("state_dict",), rules=(keep("{key...}", "{key...}"),)),
    ),
)

PIXPRO = Method(
    name="pixpro",
    title="PixPro",
    paper="https://arxiv.org/abs/2011.10043",
    repository="zdaxie/PixPro",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(
                keep("encoder.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("projector.{key...}", "the pixel projector"),
                drop("projector_k.{key...}", "the key encoder's pixel projector"),
                drop("value_transform.{key...}", "the pixel propagation module"),
                drop("projector_instance.{key...}", "the instance projector"),
                drop("projector_instance_k.{key...}", "the key encoder's instance projector"),
                drop("predictor.{key...}", "the instance predictor"),
            ),
        ),
    ),
)

METHODS = (MOCO, MOCOV3, DENSECL, PIXPRO)

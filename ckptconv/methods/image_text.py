"""Networks that were trained with texts besides the images: TIPS and TIPSv2, whose image encoders are DINOv2's."""

from __future__ import annotations

from ckptconv.backbones.interface import PositionResampling
from ckptconv.methods.interface import UNIT, Layout, Method, Published
from ckptconv.rules import drop, keep, under

_ENCODER = (
    drop("mask_token", "the mask token"),
    keep("register_tokens", "reg_token"),
    keep("{key...}", "{key...}"),
)

TIPS = Method(
    name="tips",
    title="TIPS and TIPSv2, the image encoder",
    aliases=("tipsv2",),
    paper="https://arxiv.org/abs/2410.16512",
    repository="google-deepmind/tips",
    layouts=(
        Layout(  # numpy's npz: pytorch/run_image_encoder_inference.py
            title="released image encoder", sections=("",), rules=_ENCODER, families=("ViT",)
        ),
        Layout(  # as timm's `checkpoint_filter_fn` reads TIPSv2 of the Hugging Face hub
            title="image and text encoder",
            sections=("",),
            rules=(
                *under("vision_encoder.", _ENCODER),
                drop("text_encoder.{key...}", "the text encoder"),
                drop("temperature", "the temperature of the loss"),
            ),
            families=("ViT",),
        ),
    ),
    pixels=UNIT,  # pytorch/run_image_encoder_inference.py
    releases=Published("tips"),
    num_registers=1,  # pytorch/image_encoder.py
    position_resampling=PositionResampling("bilinear", antialias=True),  # pytorch/run_image_encoder_inference.py
    norm=True,  # get_intermediate_layers in pytorch/image_encoder.py
)

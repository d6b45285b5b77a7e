"""Methods that hide a part of the image and predict it."""

from __future__ import annotations

from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import drop, keep

SPARK = Method(
    name="spark",
    title="SparK",
    paper="https://arxiv.org/abs/2301.03580",
    repository="keyu-tian/SparK",
    layouts=(
        Layout(  # `module` also holds a plain dict named config, which is no tensor and no weight
            title="training checkpoint, with decoder",
            sections=("module",),
            rules=(
                keep("sparse_encoder.sp_cnn.{key...}", "{key...}"),
                drop("dense_decoder.{key...}", "the decoder"),
                drop("densify_norms.{key...}", "the layers between encoder and decoder"),
                drop("densify_projs.{key...}", "the layers between encoder and decoder"),
                drop("mask_tokens.{key...}", "the mask tokens"),
                drop("imn_m", "ImageNet's mean, for pictures"),
                drop("imn_s", "ImageNet's standard deviation, for pictures"),
                drop("norm_black", "a black image, for pictures"),
            ),
        ),
        Layout(title="released backbone", sections=("",), rules=(keep("{key...}", "{key...}"),), families=("ResNet",)),
    ),
)

METHODS = (SPARK,)

"""Masked image modelling: methods that mask a part of the image and predict it."""

from __future__ import annotations

from ckptconv.methods import naming_stages
from ckptconv.methods.interface import IMAGENET, MAE_RESAMPLING, Layout, Method, Published
from ckptconv.methods.naming_convnext import SPARSE, TRUNK
from ckptconv.rules import drop, keep, under

SPARK = Method(
    name="spark",
    title="SparK",
    aliases=("sparse-masked-modeling",),
    paper="https://arxiv.org/abs/2301.03580",
    repository="keyu-tian/SparK",
    layouts=(
        Layout(  # `module` also holds a plain dict named config
            title="training checkpoint, with decoder",
            sections=("module",),
            rules=(
                keep("sparse_encoder.sp_cnn.{key...}", "{key...}"),
                drop("dense_decoder.{key...}", "the decoder"),
                drop("densify_norms.{key...}", "the layers between encoder and decoder"),
                drop("densify_projs.{key...}", "the layers between encoder and decoder"),
                drop("mask_tokens.{key...}", "the mask tokens"),
                drop("imn_m", "ImageNet's mean, for visualisation"),
                drop("imn_s", "ImageNet's standard deviation, for visualisation"),
                drop("norm_black", "a black image, for visualisation"),
            ),
            families=("ResNet", "ConvNeXt"),
            without=("norm",),
        ),
        Layout(title="released backbone", sections=("",), rules=(keep("{key...}", "{key...}"),), families=("ResNet",)),
        Layout(
            title="released ConvNeXt",
            sections=("",),
            rules=TRUNK,
            families=("ConvNeXt",),
            without=("norm",),
        ),  # "official style" in README.md: no last norm
    ),
    pixels=IMAGENET,
)

_ENCODER = (keep("{key...}", "{key...}"),)

MAE = Method(
    name="mae",
    title="MAE",
    aliases=("masked-autoencoder", "masked-autoencoders", "vit-mae"),
    paper="https://arxiv.org/abs/2111.06377",
    repository="facebookresearch/mae",
    layouts=(
        Layout(title="released backbone", sections=("model",), rules=_ENCODER, families=("ViT",)),
        Layout(
            title="training checkpoint, with decoder",
            sections=("model",),
            rules=(
                drop("mask_token", "the mask token"),
                drop("decoder_pos_embed", "the decoder's position embedding"),
                drop("decoder_{part}.{p...}", "the decoder"),
                *_ENCODER,
            ),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("mae"),
    position_resampling=MAE_RESAMPLING,
    norm=False,  # detectron2/modeling/backbone/vit.py of facebookresearch/detectron2: ViTDet
)

HIERA = Method(
    name="hiera",
    title="MAE of Hiera",
    aliases=("mae-hiera", "hiera-mae"),
    paper="https://arxiv.org/abs/2306.00989",
    repository="facebookresearch/hiera",
    layouts=(
        Layout(
            title="released, with the decoder or a classifier",
            sections=("model_state", ""),
            rules=naming_stages.HIERA,
            families=("Hiera",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("hiera"),
)

MASKFEAT = Method(
    name="maskfeat",
    title="MaskFeat",
    paper="https://arxiv.org/abs/2112.09133",
    repository="facebookresearch/SlowFast",
    layouts=(
        Layout(  # a plain ViT without its last norm: slowfast/models/masked.py
            title="training checkpoint",
            sections=("model_state",),
            rules=(
                drop("mask_token", "the mask token"),
                drop("pred_head.{p...}", "the prediction head for HOG features"),
                drop("hogs.{p...}", "the HOG filters that compute the targets"),
                *_ENCODER,
            ),
            families=("ViT",),
            without=("norm",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("maskfeat"),
)

_FCMAE_REST = (
    drop("proj.{p}", "the layer between encoder and decoder"),
    drop("decoder.{key...}", "the decoder"),
    drop("pred.{p}", "the pixel prediction head"),
    drop("mask_token", "the mask token"),
)

FCMAE = Method(
    name="fcmae",
    title="FCMAE of ConvNeXt V2",
    aliases=("convnext-v2",),
    paper="https://arxiv.org/abs/2301.00808",
    repository="facebookresearch/ConvNeXt-V2",
    layouts=(
        Layout(
            title="released encoder",
            sections=("model",),
            rules=TRUNK,
            families=("ConvNeXt",),
            without=("norm",),
        ),
        Layout(
            title="training checkpoint, sparse",
            without=("norm",),
            sections=("model",),
            rules=(*under("encoder.", SPARSE), *_FCMAE_REST),
            families=("ConvNeXt",),
        ),
        Layout(  # the output of remap_checkpoint_keys in utils.py, and the same with a dense encoder
            title="training checkpoint, dense",
            sections=("model",),
            rules=(
                *_FCMAE_REST,
                *TRUNK,
                keep("norm.{p}", "norm.{p}"),
                *under("encoder.", TRUNK),
                keep("encoder.norm.{p}", "norm.{p}"),
            ),
            families=("ConvNeXt",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("fcmae"),
)

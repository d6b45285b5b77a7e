"""What networks of stages are in Hugging Face transformers: why a class cannot hold a member, its names, its config.

Source of names and classes: `models/{resnet,convnext,convnextv2,swin,swinv2}/` of transformers 5.24.0. The names are
those of the classes' `state_dict()`. DINOv3's ConvNeXt is one of ConvNextModel's, which has the same layers as its own
class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptconv.backbones.interface import Dialect, TransformersModel
from ckptconv.rules import Rule, drop, keep, split

if TYPE_CHECKING:
    from ckptconv.backbones.convnext import ConvNeXt
    from ckptconv.backbones.resnet import ResNet
    from ckptconv.backbones.swin import Swin

# -- ResNet ------------------------------------------------------------------------------------------------------------

RESNET = Dialect(
    (
        keep("conv1.{p}", "embedder.embedder.convolution.{p}"),
        keep("bn1.{p}", "embedder.embedder.normalization.{p}"),
        *(
            rule
            for s in range(4)
            for n in range(3)
            for rule in (
                keep(
                    f"layer{s + 1}.{{b}}.conv{n + 1}.{{p}}",
                    f"encoder.stages.{s}.layers.{{b}}.layer.{n}.convolution.{{p}}",
                ),
                keep(
                    f"layer{s + 1}.{{b}}.bn{n + 1}.{{p}}",
                    f"encoder.stages.{s}.layers.{{b}}.layer.{n}.normalization.{{p}}",
                ),
            )
        ),
        *(
            keep(f"layer{s + 1}.{{b}}.downsample.{n}.{{p}}", f"encoder.stages.{s}.layers.{{b}}.shortcut.{part}.{{p}}")
            for s in range(4)
            for n, part in enumerate(("convolution", "normalization"))
        ),
    )
)
"""Its ResNet's strides are where torchvision's are: `downsample_in_bottleneck` is False."""


def unlike_resnet(member: ResNet) -> str:
    """Why ResNetModel cannot hold a ResNet; '' if it can."""
    if member.stem_kernel != 7:
        return f"its stem is {member.stem_kernel}x{member.stem_kernel}, and that of transformers' ResNetModel is 7x7"
    if member.groups > 1 or member.inner_channels != member.planes:
        return "transformers' ResNetModel has neither groups nor wider inner convolutions"
    return ""


def resnet_model(member: ResNet) -> TransformersModel | None:
    """ResNetModel and its config; None where an obstacle says why."""
    if unlike_resnet(member):
        return None
    wider = 4 if member.bottleneck else 1
    config = {
        "num_channels": member.in_channels,
        "embedding_size": member.stem_channels,
        "hidden_sizes": [member.planes * wider << stage for stage in range(4)],
        "depths": list(member.depths),
        "layer_type": "bottleneck" if member.bottleneck else "basic",
    }
    return TransformersModel("ResNetModel", config)


# -- ConvNeXt ----------------------------------------------------------------------------------------------------------

_CONVNEXT: tuple[Rule, ...] = (
    keep("downsample_layers.0.0.{p}", "embeddings.patch_embeddings.{p}"),
    keep("downsample_layers.0.1.{p}", "embeddings.layernorm.{p}"),
    keep("downsample_layers.{s}.{n}.{p}", "encoder.stages.{s}.downsampling_layer.{n}.{p}"),
    keep("stages.{s}.{b}.gamma", "encoder.stages.{s}.layers.{b}.layer_scale_parameter"),
    keep("stages.{s}.{b}.norm.{p}", "encoder.stages.{s}.layers.{b}.layernorm.{p}"),
    keep("stages.{s}.{b}.grn.gamma", "encoder.stages.{s}.layers.{b}.grn.weight"),
    keep("stages.{s}.{b}.grn.beta", "encoder.stages.{s}.layers.{b}.grn.bias"),
    keep("stages.{s}.{b}.{key...}", "encoder.stages.{s}.layers.{b}.{key...}"),
    keep("norm.{p}", "layernorm.{p}"),
)


def unlike_convnext(member: ConvNeXt) -> str:
    """Why neither of the two classes can hold a ConvNeXt; '' if one can."""
    if member.has_larger_eps:
        return "its norms have an epsilon of 1e-5, and those of transformers' ConvNextModel 1e-6"
    if member.grn and member.layer_scale:
        return "its blocks have both layer scale and global response normalisation, which no class of transformers has"
    return ""


def convnext_dialect(member: ConvNeXt) -> Dialect:
    """The names of ConvNextModel and ConvNextV2Model, whose last norm is for the pooled output alone."""
    return Dialect(_CONVNEXT, fresh=() if member.final_norm else ("layernorm.{p}",))


def convnext_model(member: ConvNeXt) -> TransformersModel | None:
    """Its class and config; None where an obstacle says why."""
    if unlike_convnext(member):
        return None
    config: dict[str, Any] = {
        "num_channels": member.in_channels,
        "patch_size": member.patch_size,
        "hidden_sizes": list(member.embed_dims),
        "depths": list(member.depths),
        "layer_norm_eps": 1e-6,  # models/convnext.py of the authors; transformers' own default is 1e-12
    }
    if member.grn:
        return TransformersModel("ConvNextV2Model", config)
    scale = 1e-6 if member.layer_scale else 0.0  # any number makes a layer scale
    return TransformersModel("ConvNextModel", {**config, "layer_scale_init_value": scale})


# -- Swin --------------------------------------------------------------------------------------------------------------

_OWN, _THEIRS = "layers.{s}.blocks.{b}", "encoder.layers.{s}.blocks.{b}"
_SWIN: tuple[Rule, ...] = (
    keep("patch_embed.proj.{p}", "embeddings.patch_embeddings.projection.{p}"),
    keep("patch_embed.norm.{p}", "embeddings.norm.{p}"),
    keep("absolute_pos_embed", "embeddings.position_embeddings"),
    keep(f"{_OWN}.norm1.{{p}}", f"{_THEIRS}.layernorm_before.{{p}}"),
    keep(f"{_OWN}.norm2.{{p}}", f"{_THEIRS}.layernorm_after.{{p}}"),
    keep("layers.{s}.downsample.{key...}", "encoder.layers.{s}.downsample.{key...}"),
    keep("norm.{p}", "layernorm.{p}"),
)
_TABLE = "relative_position_bias_table"
_SWIN_V1 = Dialect(
    (
        *_SWIN,
        split(f"{_OWN}.attn.qkv.{{p}}", [f"{_THEIRS}.attention.{part}_proj.{{p}}" for part in "qkv"]),
        keep(f"{_OWN}.attn.proj.{{p}}", f"{_THEIRS}.attention.o_proj.{{p}}"),
        keep(f"{_OWN}.attn.{_TABLE}", f"{_THEIRS}.attention.relative_position_bias.{_TABLE}"),
        keep(f"{_OWN}.mlp.{{layer}}.{{p}}", f"{_THEIRS}.mlp.{{layer}}.{{p}}"),
    )
)
_SELF = f"{_THEIRS}.attention.self"
_SWIN_V2 = Dialect(
    (
        *_SWIN,
        drop(f"{_OWN}.attn.relative_coords_table", "the table of relative coordinates; recomputed on load"),
        split(f"{_OWN}.attn.qkv.weight", [f"{_SELF}.{part}.weight" for part in ("query", "key", "value")]),
        keep(f"{_OWN}.attn.q_bias", f"{_SELF}.query.bias"),
        keep(f"{_OWN}.attn.v_bias", f"{_SELF}.value.bias"),
        keep(f"{_OWN}.attn.logit_scale", f"{_SELF}.logit_scale"),
        keep(f"{_OWN}.attn.cpb_mlp.{{n}}.{{p}}", f"{_SELF}.continuous_position_bias_mlp.{{n}}.{{p}}"),
        keep(f"{_OWN}.attn.proj.{{p}}", f"{_THEIRS}.attention.output.dense.{{p}}"),
        keep(f"{_OWN}.mlp.fc1.{{p}}", f"{_THEIRS}.intermediate.dense.{{p}}"),
        keep(f"{_OWN}.mlp.fc2.{{p}}", f"{_THEIRS}.output.dense.{{p}}"),
    )
)


def unlike_swin(member: Swin) -> str:
    """Why its class cannot hold a Swin; '' if it can."""
    theirs = f"transformers' {_swin_class(member)}"
    if not member.patch_norm:
        return f"it does not normalise the first patches, and {theirs} does"
    if not member.final_norm:
        return f"it has no norm after the last block, which {theirs} has"
    if not member.window_sizes:
        return "no tensor of the file tells the size of its windows: relative_coords_table does, which is a buffer"
    if member.version == 1 and len(set(member.window_sizes)) > 1:
        return f"the windows of its stages have different sizes, and those of {theirs} have one"
    if member.positions and _image_size(member) ** 2 != member.positions * member.patch_size**2:
        return f"its {member.positions} positions are not those of the images that its windows are for"
    maps = [_image_size(member) // member.patch_size >> stage for stage in range(len(member.depths))]
    if any(min(side, max(member.window_sizes)) != own for side, own in zip(maps, member.window_sizes, strict=True)):
        return f"the windows of its stages are not the largest that fit in their maps, as those of {theirs} are"
    return ""


def _swin_class(member: Swin) -> str:
    return "SwinModel" if member.version == 1 else "Swinv2Model"


def _image_size(member: Swin) -> int:
    """The side of images whose maps hold the windows; of its positions, where it has some."""
    if member.positions:
        return int(member.positions**0.5) * member.patch_size
    return max(side << stage for stage, side in enumerate(member.window_sizes)) * member.patch_size


def swin_dialect(member: Swin) -> Dialect:
    """The names of its class."""
    return _SWIN_V1 if member.version == 1 else _SWIN_V2


def swin_model(member: Swin) -> TransformersModel | None:
    """Its class and config; None where an obstacle says why."""
    if unlike_swin(member):
        return None
    config = {
        "image_size": _image_size(member),
        "patch_size": member.patch_size,
        "num_channels": member.in_channels,
        "embed_dim": member.embed_dim,
        "depths": list(member.depths),
        "num_heads": list(member.num_heads),
        "window_size": max(member.window_sizes),
        "mlp_ratio": member.hidden_dim / member.embed_dim,
        "qkv_bias": member.qkv_bias,
        "use_absolute_embeddings": member.positions > 0,
        "layer_norm_eps": 1e-5,
    }
    if member.version == 2:
        config["pretrained_window_sizes"] = [0] * len(member.depths)
    return TransformersModel(_swin_class(member), config)

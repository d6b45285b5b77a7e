"""Rules that several methods share: a ConvNeXt under names that are not its authors'."""

from __future__ import annotations

from ckptconv.methods.naming_swin import OUTPUT_NORM
from ckptconv.ops import chain, permute, reshape
from ckptconv.rules import Rule, drop, keep, under

_GRN = reshape(1, 1, 1, -1)

TRUNK: tuple[Rule, ...] = (
    keep("downsample_layers.{key...}", "downsample_layers.{key...}"),
    keep("stages.{key...}", "stages.{key...}"),
)
"""The authors' own names, for a network without a last norm."""

_TRANSPOSED = permute(0, 1, 3, 2)  # MinkowskiEngine stores a kernel column by column
_DOWN = chain(permute(2, 1, 0), reshape(0, 0, 2, 2), _TRANSPOSED)
_DEPTHWISE = chain(permute(1, 0), reshape(0, 1, 7, 7), _TRANSPOSED)

SPARSE: tuple[Rule, ...] = (
    keep("downsample_layers.0.{n}.{p}", "downsample_layers.0.{n}.{p}"),
    keep("downsample_layers.{s}.0.ln.{p}", "downsample_layers.{s}.0.{p}"),
    keep("downsample_layers.{s}.1.kernel", "downsample_layers.{s}.1.weight", _DOWN),
    keep("downsample_layers.{s}.1.bias", "downsample_layers.{s}.1.bias", reshape(-1)),
    keep("stages.{s}.{b}.dwconv.kernel", "stages.{s}.{b}.dwconv.weight", _DEPTHWISE),
    keep("stages.{s}.{b}.dwconv.bias", "stages.{s}.{b}.dwconv.bias", reshape(-1)),
    keep("stages.{s}.{b}.norm.ln.{p}", "stages.{s}.{b}.norm.{p}"),
    keep("stages.{s}.{b}.pwconv{n}.linear.{p}", "stages.{s}.{b}.pwconv{n}.{p}"),
    keep("stages.{s}.{b}.grn.{p}", "stages.{s}.{b}.grn.{p}", _GRN),
)
"""facebookresearch/ConvNeXt-V2 models/convnextv2_sparse.py on MinkowskiEngine, whose layers wrap torch's. The
rules do what remap_checkpoint_keys in its utils.py does. The stem is not sparse."""

MMPRETRAIN: tuple[Rule, ...] = (
    keep("stages.{s}.{b}.depthwise_conv.{p}", "stages.{s}.{b}.dwconv.{p}"),
    keep("stages.{s}.{b}.pointwise_conv{n}.{p}", "stages.{s}.{b}.pwconv{n}.{p}"),
    keep("stages.{s}.{b}.grn.{p}", "stages.{s}.{b}.grn.{p}", _GRN),
    keep("stages.{s}.{b}.norm.{p}", "stages.{s}.{b}.norm.{p}"),
    keep("stages.{s}.{b}.gamma", "stages.{s}.{b}.gamma"),
    keep("downsample_layers.{key...}", "downsample_layers.{key...}"),
    keep("norm3.{p}", "norm.{p}"),
    drop("norm{stage}.{p}", OUTPUT_NORM),
)
"""mmpretrain/models/backbones/convnext.py: each output stage has a norm; that of the last stage is the network's."""

_TIMM_REST, _TIMM_FLAT = (
    (
        keep(f"stem{dot}{{n}}.{{p}}", "downsample_layers.0.{n}.{p}"),
        keep(f"stages{dot}{{s}}.downsample.{{n}}.{{p}}", "downsample_layers.{s}.{n}.{p}"),
        keep(f"stages{dot}{{s}}.blocks.{{b}}.gamma", "stages.{s}.{b}.gamma"),
        keep(f"stages{dot}{{s}}.blocks.{{b}}.norm.{{p}}", "stages.{s}.{b}.norm.{p}"),
        keep(f"stages{dot}{{s}}.blocks.{{b}}.conv_dw.{{p}}", "stages.{s}.{b}.dwconv.{p}"),
        keep(f"stages{dot}{{s}}.blocks.{{b}}.mlp.fc{{n}}.bias", "stages.{s}.{b}.pwconv{n}.bias"),
    )
    for dot in (".", "_")
)
_TIMM_NORM = keep("head.norm.{p}", "norm.{p}")
_TIMM_GRN, _TIMM_FLAT_GRN = (
    (
        keep(f"stages{dot}{{s}}.blocks.{{b}}.mlp.grn.weight", "stages.{s}.{b}.grn.gamma", _GRN),
        keep(f"stages{dot}{{s}}.blocks.{{b}}.mlp.grn.bias", "stages.{s}.{b}.grn.beta", _GRN),
    )
    for dot in (".", "_")
)
_TIMM_MLP = ("stages.{s}.blocks.{b}.mlp.fc{n}.weight", "stages.{s}.{b}.pwconv{n}.weight")

TIMM_V1: tuple[Rule, ...] = (keep(*_TIMM_MLP), *_TIMM_REST, _TIMM_NORM)
"""timm/models/convnext.py: a downsampling layer is in its stage, the last norm in the head."""

TIMM: tuple[Rule, ...] = (*TIMM_V1, *_TIMM_GRN)

_EITHER = reshape(0, -1)
_CONVOLVED: tuple[Rule, ...] = (keep(*_TIMM_MLP, _EITHER), *_TIMM_REST, *_TIMM_GRN)

TIMM_CONVOLVED: tuple[Rule, ...] = (*_CONVOLVED, _TIMM_NORM)
"""The same with conv_mlp=True, as for atto to nano: 1x1 convolutions in place of linear layers."""

TIMM_FEATURES: tuple[Rule, ...] = (
    keep("stages_{s}.blocks.{b}.mlp.fc{n}.weight", "stages.{s}.{b}.pwconv{n}.weight", _EITHER),
    *_TIMM_FLAT,
    *_TIMM_FLAT_GRN,
    *under("model.", _CONVOLVED),
)
"""timm/models/_features.py, features_only=True: an underscore replaces the dot before an index, FeatureGetterNet puts
`model.` before all names. Neither has the norm of the head; MLPs are linear or 1x1 convolutions."""

_TRANSFORMERS: tuple[Rule, ...] = (
    keep("embeddings.patch_embeddings.{p}", "downsample_layers.0.0.{p}"),
    keep("embeddings.layernorm.{p}", "downsample_layers.0.1.{p}"),
    keep("encoder.stages.{s}.downsampling_layer.{n}.{p}", "downsample_layers.{s}.{n}.{p}"),
    keep("encoder.stages.{s}.layers.{b}.layernorm.{p}", "stages.{s}.{b}.norm.{p}"),
    keep("encoder.stages.{s}.layers.{b}.dwconv.{p}", "stages.{s}.{b}.dwconv.{p}"),
    keep("encoder.stages.{s}.layers.{b}.pwconv{n}.{p}", "stages.{s}.{b}.pwconv{n}.{p}"),
    keep("layernorm.{p}", "norm.{p}"),
)

TRANSFORMERS_V1: tuple[Rule, ...] = (
    keep("encoder.stages.{s}.layers.{b}.layer_scale_parameter", "stages.{s}.{b}.gamma"),
    *_TRANSFORMERS,
)
"""transformers/models/convnext/modeling_convnext.py."""

TRANSFORMERS_V2: tuple[Rule, ...] = (
    keep("encoder.stages.{s}.layers.{b}.grn.weight", "stages.{s}.{b}.grn.gamma"),
    keep("encoder.stages.{s}.layers.{b}.grn.bias", "stages.{s}.{b}.grn.beta"),
    *_TRANSFORMERS,
)
"""transformers/models/convnextv2/modeling_convnextv2.py."""

_DINOV3_STAGES: tuple[Rule, ...] = (
    keep("stages.{s}.downsample_layers.{n}.{p}", "downsample_layers.{s}.{n}.{p}"),
    keep("stages.{s}.layers.{b}.gamma", "stages.{s}.{b}.gamma"),
    keep("stages.{s}.layers.{b}.layer_norm.{p}", "stages.{s}.{b}.norm.{p}"),
    keep("stages.{s}.layers.{b}.depthwise_conv.{p}", "stages.{s}.{b}.dwconv.{p}"),
    keep("stages.{s}.layers.{b}.pointwise_conv{n}.{p}", "stages.{s}.{b}.pwconv{n}.{p}"),
)

TRANSFORMERS_DINOV3: tuple[Rule, ...] = (
    *_DINOV3_STAGES,
    *under("model.", _DINOV3_STAGES),
    keep("layer_norm.{p}", "norm.{p}"),
)
"""transformers/models/dinov3_convnext/modeling_dinov3_convnext.py, as saved and as modules of version 5. Its class for
backbones has no last norm."""

TORCHVISION_FEATURES: tuple[Rule, ...] = (
    keep("features.0.{n}.{p}", "downsample_layers.0.{n}.{p}"),
    *(
        rule
        for s in range(4)
        for rule in (
            keep(f"features.{2 * s + 1}.{{b}}.layer_scale", f"stages.{s}.{{b}}.gamma", reshape(-1)),
            keep(f"features.{2 * s + 1}.{{b}}.block.0.{{p}}", f"stages.{s}.{{b}}.dwconv.{{p}}"),
            keep(f"features.{2 * s + 1}.{{b}}.block.2.{{p}}", f"stages.{s}.{{b}}.norm.{{p}}"),
            keep(f"features.{2 * s + 1}.{{b}}.block.3.{{p}}", f"stages.{s}.{{b}}.pwconv1.{{p}}"),
            keep(f"features.{2 * s + 1}.{{b}}.block.5.{{p}}", f"stages.{s}.{{b}}.pwconv2.{{p}}"),
        )
    ),
    *(keep(f"features.{2 * s}.{{n}}.{{p}}", f"downsample_layers.{s}.{{n}}.{{p}}") for s in range(1, 4)),
)
TORCHVISION: tuple[Rule, ...] = (*TORCHVISION_FEATURES, keep("classifier.0.{p}", "norm.{p}"))
"""torchvision/models/convnext.py: stages and downsampling layers alternate, the last norm is in the classifier."""

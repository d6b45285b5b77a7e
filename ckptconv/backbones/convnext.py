"""The ConvNeXt family in its authors' names: V1 with or without layer scale, and V2 with global response normalisation.

Source of names and shapes: `models/convnext.py` of facebookresearch/ConvNeXt and `models/convnextv2.py` of
facebookresearch/ConvNeXt-V2. MMDetection has no ConvNeXt of its own: its configs build `mmpretrain.ConvNeXt`
(`mmpretrain/models/backbones/convnext.py`), whose dialect is here, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ckptconv.backbones import transformers_stages
from ckptconv.backbones.blocks import NO_NORM, depth_of
from ckptconv.backbones.interface import (
    CANONICAL,
    Dialect,
    Family,
    MissingPart,
    TimmModel,
    TransformersModel,
    channels_suffix,
)
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import CONVNEXT, partial, unusual
from ckptconv.ops import reshape
from ckptconv.rules import keep
from ckptconv.spec import StateSpec

_KERNEL = 7  # of the depthwise convolutions
_WIDER = 4  # how much wider a block is inside
_ARCHS = {
    ((2, 2, 6, 2), (40, 80, 160, 320)): "atto",
    ((2, 2, 6, 2), (48, 96, 192, 384)): "femto",
    ((2, 2, 6, 2), (64, 128, 256, 512)): "pico",
    ((2, 2, 8, 2), (80, 160, 320, 640)): "nano",
    ((3, 3, 9, 3), (96, 192, 384, 768)): "tiny",
    ((3, 3, 27, 3), (96, 192, 384, 768)): "small",
    ((3, 3, 27, 3), (128, 256, 512, 1024)): "base",
    ((3, 3, 27, 3), (192, 384, 768, 1536)): "large",
    ((3, 3, 27, 3), (256, 512, 1024, 2048)): "xlarge",
    ((3, 3, 27, 3), (352, 704, 1408, 2816)): "huge",
}
_STEM = ("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias")
_BLOCK = ("norm.weight", "norm.bias", "dwconv.weight", "dwconv.bias", "pwconv2.weight", "pwconv2.bias", "gamma")
"""Tensors whose first axis is as long as their stage has channels."""

Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class ConvNeXt:
    """Blocks and channels a stage, what its blocks hold, whether a norm comes last, and the stem's patches."""

    depths: Four
    embed_dims: Four
    grn: bool
    layer_scale: bool
    final_norm: bool
    patch_size: int
    in_channels: int

    derived: ClassVar[tuple[str, ...]] = ("arch",)
    token_dim: ClassVar[int | None] = None

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def arch(self) -> str | None:
        """'atto' to 'huge', as mmpretrain calls them; None for a size that has no such name."""
        return _ARCHS.get((self.depths, self.embed_dims))

    @property
    def name(self) -> str:
        arch = self.arch
        size = "XL" if arch == "xlarge" else arch[0].upper() if arch else "-".join(map(str, self.depths))
        widths = "" if arch else f", {'-'.join(map(str, self.embed_dims))} channels"
        scaled = "" if self.layer_scale != self.grn else f", with{'out' * (not self.grn)} layer scale"  # V2 has none
        return f"ConvNeXt{' V2' * self.grn}-{size}{widths}{scaled}{channels_suffix(self.in_channels)}"

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        scaled = self.layer_scale or self.grn  # V2 has the one and not the other
        parts = (
            (scaled, MissingPart("layer_scale", "stages.0.0.gamma", "it has no layer scale")),
            (self.final_norm, MissingPart("norm", "norm.weight", NO_NORM)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        width = self.embed_dims[0]
        return unusual(self.name, f"ConvNeXt of width {width}", self.depths, CONVNEXT.get(width, ()))

    @property
    def partial(self) -> bool:
        return partial(self.depths, CONVNEXT.get(self.embed_dims[0], ()))

    @property
    def has_larger_eps(self) -> bool:
        """Whether its norms have an epsilon of 1e-5, not 1e-6: OpenCLIP's, the one of its size, in timm, too."""
        return (self.depths, self.embed_dims) == ((3, 4, 30, 3), (384, 768, 1536, 3072))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        entries: dict[str, tuple[int, ...]] = {}

        def affine(name: str, weight: tuple[int, ...]) -> None:
            entries[f"{name}.weight"] = weight
            entries[f"{name}.bias"] = weight[:1]

        into = self.embed_dims[0]
        affine("downsample_layers.0.0", (into, self.in_channels, self.patch_size, self.patch_size))
        affine("downsample_layers.0.1", (into,))
        for stage, dim in enumerate(self.embed_dims[1:], 1):
            affine(f"downsample_layers.{stage}.0", (into,))
            affine(f"downsample_layers.{stage}.1", (dim, into, 2, 2))
            into = dim
        for stage, (depth, dim) in enumerate(zip(self.depths, self.embed_dims, strict=True)):
            for block in range(depth):
                at = f"stages.{stage}.{block}"
                if self.layer_scale:
                    entries[f"{at}.gamma"] = (dim,)
                affine(f"{at}.dwconv", (dim, 1, _KERNEL, _KERNEL))
                affine(f"{at}.norm", (dim,))
                affine(f"{at}.pwconv1", (dim * _WIDER, dim))
                if self.grn:
                    entries |= {f"{at}.grn.{p}": (1, 1, 1, dim * _WIDER) for p in ("gamma", "beta")}
                affine(f"{at}.pwconv2", (dim, dim * _WIDER))
        if self.final_norm:
            affine("norm", (self.embed_dims[-1],))
        return entries

    def optional(self, name: str) -> bool:  # noqa: ARG002 - a network without a final norm is another member
        return False

    def obstacle(self, target: str) -> str:
        if target == "transformers":
            return transformers_stages.unlike_convnext(self)
        if target == "timm" and self.patch_size == _SPLIT_STEM:
            return "its patches have 2 pixels, where timm's ConvNeXt halves its map before the first stage, too"
        return ""

    def dialect(self, target: str) -> Dialect:
        if target == "timm":
            rules = (*(_TIMM_CONVOLVED if self.arch in _CONVOLVED else ()), *_TIMM)
            return Dialect(rules, fresh=() if self.final_norm else ("head.norm.{p}",))
        if target == "transformers":
            return transformers_stages.convnext_dialect(self)
        if target != "mmpretrain":
            return CANONICAL
        return _MMPRETRAIN if self.final_norm else _MMPRETRAIN_WITHOUT_NORM

    def timm_model(self) -> TimmModel | None:
        """A model with as many kinds of parts as it has: timm does not pass on an argument that is None."""
        if self.patch_size == _SPLIT_STEM:
            return None
        scaled_only = self.layer_scale and not self.grn
        name, arguments = f"convnext{'v2' * (not scaled_only)}", dict[str, Any]()
        if scaled_only and self.has_larger_eps:
            name += "_xxlarge"
        elif self.arch is None or self.arch == ("huge" if scaled_only else "xlarge"):
            name += "_tiny"
            arguments = {"depths": list(self.depths), "dims": list(self.embed_dims)}
        else:
            name += f"_{self.arch}"
        if not scaled_only and not self.grn:
            arguments["use_grn"] = False
        if self.layer_scale and self.grn:
            arguments["ls_init_value"] = _LAYER_SCALE
        if self.patch_size != 4:
            arguments["patch_size"] = self.patch_size
        if self.in_channels != 3:
            arguments["in_chans"] = self.in_channels
        return TimmModel(name, arguments)

    def transformers_model(self) -> TransformersModel | None:
        return transformers_stages.convnext_model(self)


_SPLIT_STEM = 2
_LAYER_SCALE = 1e-6  # any number makes timm build one; the file holds the numbers
_CONVOLVED = ("atto", "femto", "pico", "nano")
"""Sizes whose MLPs are 1x1 convolutions in timm's models."""
_TIMM = (
    keep("downsample_layers.0.{layer}.{p}", "stem.{layer}.{p}"),
    keep("downsample_layers.{s}.{layer}.{p}", "stages.{s}.downsample.{layer}.{p}"),
    keep("stages.{s}.{b}.dwconv.{p}", "stages.{s}.blocks.{b}.conv_dw.{p}"),
    keep("stages.{s}.{b}.pwconv{n}.{p}", "stages.{s}.blocks.{b}.mlp.fc{n}.{p}"),
    keep("stages.{s}.{b}.grn.gamma", "stages.{s}.blocks.{b}.mlp.grn.weight", reshape(-1)),
    keep("stages.{s}.{b}.grn.beta", "stages.{s}.blocks.{b}.mlp.grn.bias", reshape(-1)),
    keep("stages.{s}.{b}.{key...}", "stages.{s}.blocks.{b}.{key...}"),
    keep("norm.{p}", "head.norm.{p}"),
)
"""checkpoint_filter_fn of timm/models/convnext.py 1.0.31."""
_TIMM_CONVOLVED = (
    keep("stages.{s}.{b}.pwconv{n}.weight", "stages.{s}.blocks.{b}.mlp.fc{n}.weight", reshape(0, -1, 1, 1)),
)

_RULES = (
    keep("stages.{s}.{b}.dwconv.{p}", "backbone.stages.{s}.{b}.depthwise_conv.{p}"),
    keep("stages.{s}.{b}.pwconv{n}.{p}", "backbone.stages.{s}.{b}.pointwise_conv{n}.{p}"),
    keep("stages.{s}.{b}.grn.{p}", "backbone.stages.{s}.{b}.grn.{p}", reshape(-1)),
    keep("norm.{p}", "backbone.norm3.{p}"),
    keep("{key...}", "backbone.{key...}"),
)
_NEW_NORMS = tuple(f"backbone.norm{stage}.{{p}}" for stage in range(3))
_MMPRETRAIN = Dialect(rules=_RULES, fresh=_NEW_NORMS)
"""mmpretrain's GRN has one axis, and a norm for each output stage: a detector's first three are new."""
_MMPRETRAIN_WITHOUT_NORM = Dialect(rules=_RULES, fresh=(*_NEW_NORMS, "backbone.norm3.{p}"))


def _whole(depths: Four, dims: Four) -> tuple[Four, Four]:
    """Blocks and channels; where a stage is missing altogether, as in the known network that fits the others."""
    found = (*depths, *dims)
    for known in _ARCHS:
        if all(n in (0, wanted) for n, wanted in zip(found, (*known[0], *known[1]), strict=True)):
            return known
    first = max(n >> stage for stage, n in enumerate(dims)) or 1
    one, two, three, four = (n or 1 for n in depths)
    a, b, c, d = (n or first << stage for stage, n in enumerate(dims))
    return (one, two, three, four), (a, b, c, d)


def read(state: StateSpec) -> ConvNeXt | None:
    """The ConvNeXt of which most of these shapes are, or None if the names are not a ConvNeXt's."""
    seen: list[Counter[str]] = [Counter() for _ in range(4)]
    parts: Counter[str] = Counter()
    channels: list[list[int]] = [[] for _ in range(4)]
    for name, spec in state.items():
        stages, _, rest = name.partition(".")
        stage, _, rest = rest.partition(".")
        if stage not in ("0", "1", "2", "3") or not spec.shape:
            continue
        if stages == "downsample_layers" and f"{stage}.{rest}" in _STEM:
            channels[0].append(spec.shape[0])
        elif stages == "downsample_layers" and rest in ("1.weight", "1.bias"):
            channels[int(stage)].append(spec.shape[0])
        elif stages == "stages":
            block, _, part = rest.partition(".")
            seen[int(stage)][block] += 1
            parts[part] += 1
            if part in _BLOCK:
                channels[int(stage)].append(spec.shape[0])
    if not parts["dwconv.weight"] or not parts["pwconv1.weight"]:
        return None
    one, two, three, four = map(depth_of, seen)
    widths = [most_common(some) for some in channels]
    depths, dims = _whole((one, two, three, four), (widths[0], widths[1], widths[2], widths[3]))
    blocks = one + two + three + four
    stem = state.get("downsample_layers.0.0.weight")
    stem_shape = stem.shape if stem is not None and len(stem.shape) == 4 else (0, 3, 4, 4)
    return ConvNeXt(
        depths=depths,
        embed_dims=dims,
        grn=parts["grn.gamma"] + parts["grn.beta"] > blocks,
        layer_scale=parts["gamma"] * 2 > blocks,
        final_norm="norm.weight" in state or "norm.bias" in state,
        patch_size=stem_shape[2] or 4,
        in_channels=stem_shape[1] or 3,
    )


FAMILY = Family(
    name="ConvNeXt",
    read=read,
    targets=("mmpretrain", "timm", "transformers", "official"),
    stem="downsample_layers.0.0.weight",
    blocks=(r"stages\.\d\.", r"stages\.\d\.\d+\."),
)

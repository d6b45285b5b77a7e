"""The BEiT family in its authors' names: a ViT with relative position biases in its attention, and no bias for keys.

Source of names and shapes: microsoft/unilm, `beit/modeling_pretrain.py` and `beit/modeling_finetune.py`; CAE's encoder
(`models/modeling_cae_helper.py`) is one with absolute positions. The relative position bias table is shared by all
blocks in pre-training, and each block has its own in fine-tuning. MMPretrain's `BEiTViT` (1.2.0) holds either. One
without such a table is a plain ViT whose keys' bias is zero: MMDetection's ViTDet holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ckptconv.backbones.blocks import NO_BIAS, NO_NORM, blocks_of, lengths, patch_of, width_of
from ckptconv.backbones.image_size import KERNEL, POSITIONS, Change, PatchGrid, Size
from ckptconv.backbones.interface import CANONICAL, Dialect, Family, MissingPart, TargetName, TimmModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import BEIT, partial, unusual
from ckptconv.backbones.timm_models import closest
from ckptconv.backbones.vitdet import vitdet
from ckptconv.ops import concat_with_zeros
from ckptconv.rules import Rule, drop, fuse, keep
from ckptconv.spec import StateSpec

_SIZES = {(192, 12): "Ti", (384, 12): "S", (768, 12): "B", (1024, 24): "L", (1408, 40): "g"}
_HEADS = {1408: 16}  # EVA's; elsewhere a head has 64 channels
_IMAGE = 224
_OFFICIAL: TargetName = "official"
_TABLE, _INDEX = "relative_position_bias_table", "relative_position_index"


@dataclass(frozen=True)
class Beit:
    """Widths of tokens and MLPs, depth, patches, patches a side of the image, heads, and parts."""

    embed_dim: int
    depth: int
    hidden_dim: int
    patch_size: int
    grid_size: int
    num_heads: int
    in_channels: int = 3
    absolute_positions: bool = False
    shared_relative_positions: bool = True
    own_relative_positions: bool = False
    layer_scale: bool = True
    qv_bias: bool = True
    final_norm: bool = True

    derived: ClassVar[tuple[str, ...]] = ()

    @property
    def token_dim(self) -> int:
        return self.embed_dim

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def name(self) -> str:
        size = _SIZES.get((self.embed_dim, self.depth), f"{self.embed_dim}x{self.depth}")
        return f"BEiT-{size}/{self.patch_size}{channels_suffix(self.in_channels)}"

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        positioned = self.absolute_positions or self.shared_relative_positions or self.own_relative_positions
        parts = (
            (positioned, MissingPart("positions", "pos_embed", "it has neither absolute nor relative positions")),
            (self.layer_scale, MissingPart("layer_scale", "blocks.0.gamma_1", "it has no layer scale")),
            (self.qv_bias, MissingPart("qkv_bias", "blocks.0.attn.q_bias", NO_BIAS)),
            (self.final_norm, MissingPart("norm", "norm.weight", NO_NORM)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        return unusual(self.name, f"BEiT of width {self.embed_dim}", self.depth, BEIT.get(self.embed_dim, ()))

    @property
    def partial(self) -> bool:
        return partial(self.depth, BEIT.get(self.embed_dim, ()))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        dim, hidden, tokens = self.embed_dim, self.hidden_dim, self.grid_size**2 + 1
        entries: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, dim)}

        def layer(name: str, *shape: int) -> None:
            entries.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

        def relative(at: str) -> None:
            entries[f"{at}{_TABLE}"] = ((2 * self.grid_size - 1) ** 2 + 3, self.num_heads)
            entries[f"{at}{_INDEX}"] = (tokens, tokens)

        if self.absolute_positions:
            entries["pos_embed"] = (1, tokens, dim)
        layer("patch_embed.proj", dim, self.in_channels, self.patch_size, self.patch_size)
        if self.shared_relative_positions:
            relative("rel_pos_bias.")
        for i in range(self.depth):
            at = f"blocks.{i}."
            if self.layer_scale:
                entries.update({f"{at}gamma_1": (dim,), f"{at}gamma_2": (dim,)})
            layer(f"{at}norm1", dim)
            if self.qv_bias:
                entries.update({f"{at}attn.q_bias": (dim,), f"{at}attn.v_bias": (dim,)})
            if self.own_relative_positions:
                relative(f"{at}attn.")
            entries[f"{at}attn.qkv.weight"] = (3 * dim, dim)
            layer(f"{at}attn.proj", dim, dim)
            layer(f"{at}norm2", dim)
            layer(f"{at}mlp.fc1", hidden, dim)
            layer(f"{at}mlp.fc2", dim, hidden)
        if self.final_norm:
            layer("norm", dim)
        return entries

    def optional(self, name: str) -> bool:
        """The relative position index: a network recomputes it from its grid."""
        return name.endswith(_INDEX)

    def obstacle(self, target: str) -> str:
        if target in (_OFFICIAL, "timm"):
            return ""
        if target == "vitdet":
            if self.shared_relative_positions or self.own_relative_positions:
                return "its attention has relative position biases, which MMDetection's ViTDet does not have"
            return "" if self.absolute_positions else "it has no positions"
        if self.shared_relative_positions and self.own_relative_positions:
            return "it has both shared and own relative positions, and MMPretrain's BEiTViT has one or the other"
        return ""

    def dialect(self, target: str) -> Dialect:
        if target == "vitdet":
            scales = (("attn.proj", "gamma_1"), ("mlp.fc2", "gamma_2"))
            return vitdet(scales if self.layer_scale else (), _QKV_BIAS if self.qv_bias else ())
        if target == "timm":
            return Dialect(_TIMM, fresh=() if self.final_norm or not self.has_tables else _FC_NORM)
        return Dialect(_MMPRETRAIN) if target == "mmpretrain" else CANONICAL

    @property
    def has_tables(self) -> bool:
        """Whether its attention has relative position biases."""
        return self.shared_relative_positions or self.own_relative_positions

    def timm_model(self) -> TimmModel:
        """Timm's Beit, whose tables are for images of one size; without tables its Eva, which takes images of any."""
        wanted: dict[str, Any] = {
            "img_size": self.grid_size * self.patch_size,
            "patch_size": self.patch_size,
            "in_chans": self.in_channels,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "hidden": self.hidden_dim,
            "qkv_bias": self.qv_bias,
            "layer_scale": self.layer_scale,
            "use_abs_pos_emb": self.absolute_positions,
        }
        if not self.has_tables:
            wanted["use_post_transformer_norm"] = None if self.final_norm else False
            return closest(wanted, _EVA_MODELS, "eva_giant_patch14_224")
        wanted |= {
            "use_rel_pos_bias": self.own_relative_positions,
            "use_shared_rel_pos_bias": self.shared_relative_positions,
            "use_fc_norm": None if self.final_norm else True,
        }
        return closest(wanted, _BEIT_MODELS, "beit_base_patch16_224")


_QKV_BIAS = (
    fuse(("blocks.{i}.attn.q_bias", "blocks.{i}.attn.v_bias"), "blocks.{i}.attn.qkv.bias", concat_with_zeros()),
)
_TIMM: tuple[Rule, ...] = (
    drop(f"rel_pos_bias.{_INDEX}", "timm computes it"),
    drop(f"blocks.{{i}}.attn.{_INDEX}", "timm computes it"),
    keep("{key...}", "{key...}"),
)
_FC_NORM = ("fc_norm.{p}",)
"""timm's Beit has a norm after pooling where it has none after the last block."""
_MMPRETRAIN: tuple[Rule, ...] = (
    keep("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    keep("blocks.{i}.norm1.{p}", "backbone.layers.{i}.ln1.{p}"),
    keep("blocks.{i}.norm2.{p}", "backbone.layers.{i}.ln2.{p}"),
    keep("blocks.{i}.mlp.fc1.{p}", "backbone.layers.{i}.ffn.layers.0.0.{p}"),
    keep("blocks.{i}.mlp.fc2.{p}", "backbone.layers.{i}.ffn.layers.1.{p}"),
    keep("blocks.{i}.{key...}", "backbone.layers.{i}.{key...}"),
    keep("norm.{p}", "backbone.ln1.{p}"),
    keep("{key...}", "backbone.{key...}"),
)


# -- timm's models: timm/models/beit.py and eva.py ---------------------------------------------------------------------

_B, _L, _G = (768, 12, 12, 3072), (1024, 24, 16, 4096), (1408, 40, 16, 6144)


def _model(size: tuple[int, int, int, int], patch: int, **more: Any) -> Mapping[str, Any]:
    sizes = dict(zip(("embed_dim", "depth", "num_heads", "hidden"), size, strict=True))
    return {"img_size": 224, "in_chans": 3, "qkv_bias": True, **sizes, "patch_size": patch, **more}


_TABLES = {
    "layer_scale": True,
    "use_abs_pos_emb": False,
    "use_rel_pos_bias": True,
    "use_shared_rel_pos_bias": False,
    "use_fc_norm": None,
}
_NO_TABLES = {"layer_scale": False, "use_abs_pos_emb": True, "use_post_transformer_norm": None}
_BEIT_MODELS: Mapping[str, Mapping[str, Any]] = {
    "beit_base_patch16_224": _model(_B, 16, **_TABLES),
    "beit_large_patch16_224": _model(_L, 16, **_TABLES),
}
_EVA_MODELS: Mapping[str, Mapping[str, Any]] = {"eva_giant_patch14_224": _model(_G, 14, **_NO_TABLES)}


def _side(squared: int) -> int:
    """The whole number whose square it is; 0 if there is none."""
    side = math.isqrt(max(squared, 0))
    return side if side * side == squared else 0


def _grid(state: StateSpec, patch: int) -> int:
    """Patches a side, as in most tensors of positions; that of a usual image if there are none."""
    sides = []
    for name, spec in state.items():
        if name.endswith(_TABLE) and spec.shape:
            sides.append((_side(spec.shape[0] - 3) + 1) // 2)
        elif name.endswith(_INDEX) and spec.shape:
            sides.append(_side(spec.shape[-1] - 1))
        elif name == "pos_embed" and len(spec.shape) > 1:
            sides.append(_side(spec.shape[1] - 1))
    return most_common(sides) or _IMAGE // patch


def read(state: StateSpec) -> Beit | None:
    """The BEiT of which most of these shapes are, or None if the names are not a BEiT's."""
    depth, parts = blocks_of(state)
    dim = width_of(parts)
    shared = any(name.startswith("rel_pos_bias.") for name in state)
    own = any(part.endswith((_TABLE, _INDEX)) for part in parts)
    biased = "attn.q_bias" in parts or "attn.v_bias" in parts
    if not depth or not dim or not (shared or own or biased) or "attn.qkv.weight" not in parts:
        return None
    patch, channels = patch_of(state)
    tables = [spec.shape[1] for name, spec in state.items() if name.endswith(_TABLE) and len(spec.shape) > 1]
    return Beit(
        embed_dim=dim,
        depth=depth,
        hidden_dim=most_common(lengths(parts, "mlp.fc1.bias", 0) + lengths(parts, "mlp.fc2.weight", 1)) or 4 * dim,
        patch_size=patch,
        grid_size=_grid(state, patch),
        num_heads=most_common(tables) or _HEADS.get(dim, max(dim // 64, 1)),
        in_channels=channels,
        absolute_positions="pos_embed" in state,
        shared_relative_positions=shared,
        own_relative_positions=own,
        layer_scale="gamma_1" in parts or "gamma_2" in parts,
        qv_bias=biased,
        final_norm=any(name.startswith("norm.") for name in state),
    )


def resize(network: Beit, size: Size) -> tuple[Beit, tuple[Change, ...]]:
    """The BEiT for images or patches of another size, and what changes of it; relative position bias tables do not."""
    fixed = ""
    if network.shared_relative_positions or network.own_relative_positions:
        fixed = "has relative position bias tables, which ckptconv does not resize"
    elif not network.absolute_positions:
        fixed = "has no positions"
    changes = PatchGrid(network.name, network.patch_size, network.grid_size, fixed).resized(size)
    grids = [change.new for change in changes if change.name == POSITIONS]
    grid = grids[0] if grids else network.grid_size
    return replace(network, patch_size=size.patch or network.patch_size, grid_size=grid), changes


FAMILY = Family(
    name="BEiT",
    read=read,
    targets=("timm", "mmpretrain", "vitdet", _OFFICIAL),
    stem=KERNEL,
    blocks=(r"blocks\.\d+\.",),
    resize=resize,
)

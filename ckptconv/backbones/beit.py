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
from typing import ClassVar

from ckptconv.backbones import beit_targets, transformers_vits
from ckptconv.backbones.blocks import NO_BIAS, NO_NORM, blocks_of, lengths, patch_of, width_of
from ckptconv.backbones.image_size import KERNEL, POSITIONS, Change, PatchGrid, Size
from ckptconv.backbones.interface import Dialect, Family, MissingPart, TimmModel, TransformersModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import BEIT, partial, unusual
from ckptconv.spec import StateSpec

_SIZES = {(192, 12): "Ti", (384, 12): "S", (768, 12): "B", (1024, 24): "L", (1408, 40): "g"}
_HEADS = {1408: 16}  # EVA's; elsewhere a head has 64 channels
_IMAGE = 224
_TABLE, _INDEX = "relative_position_bias_table", "relative_position_index"


@dataclass(frozen=True)
class Beit:
    """Widths of tokens and MLPs, depth, patches, patches a side of the image, heads (None if unknown), and parts."""

    embed_dim: int
    depth: int
    hidden_dim: int
    patch_size: int
    grid_size: int
    num_heads: int | None
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
            assert self.num_heads is not None  # a table has a column for each
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

    @property
    def has_tables(self) -> bool:
        """Whether its attention has relative position biases."""
        return self.shared_relative_positions or self.own_relative_positions

    def obstacle(self, target: str) -> str:
        return beit_targets.obstacle(self, target)

    def dialect(self, target: str) -> Dialect:
        return beit_targets.dialect(self, target)

    def timm_model(self) -> TimmModel | None:
        return beit_targets.timm_model(self)

    def transformers_model(self) -> TransformersModel | None:
        return transformers_vits.beit_model(self)


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
        num_heads=most_common(tables) or _HEADS.get(dim, dim // 64 if dim % 64 == 0 else None),
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
    targets=("timm", "mmpretrain", "vitdet", "transformers", "official"),
    stem=KERNEL,
    blocks=(r"blocks\.\d+\.",),
    resize=resize,
    heads_shown=lambda member: member.has_tables,
    usual_widths=frozenset(BEIT),
)

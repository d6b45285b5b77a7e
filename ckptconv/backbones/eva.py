"""timm's `Eva`: vision transformers with rotary positions (DINOv3, EVA-02, Perception Encoder), in timm's own names.

Source of names and shapes: `timm/models/eva.py` and `timm/layers/mlp.py` (`SwiGLU`, `GluMlp`) of timm 1.0.31. DINOv3's
networks have no table of positions, EVA-02's have one and gated MLPs, Perception Encoders one and a norm before the
blocks. The periods of DINOv3's rotary positions (`rope.periods`) are in its files and in no file of timm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ckptconv.backbones import eva_models, transformers_vits
from ckptconv.backbones.blocks import NO_BIAS, NO_NORM, blocks_of, lengths, patch_of, width_of
from ckptconv.backbones.image_size import KERNEL, POSITIONS, Change, PatchGrid, Size
from ckptconv.backbones.interface import Dialect, Family, MissingPart, TimmModel, TransformersModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import EVA, partial, unusual
from ckptconv.rules import drop, keep
from ckptconv.spec import StateSpec

Mlp = Literal["plain", "packed", "apart"]
"""One layer before the activation; SwiGLU with gate and value in one layer; SwiGLU with a layer for each."""

_SIZES = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 23): "L",
    (1024, 24): "L",
    (1280, 32): "H",
    (1536, 47): "G",
    (1536, 50): "G",
    (4096, 40): "7B",
}
_HEADS = {(1536, True): 16, (4096, False): 32}
"""Perception Encoder's largest, which has a norm before its blocks, and DINOv3's; elsewhere a head has 64 channels."""

_CLIP = (
    "it has a last norm and no attention pooling, like the ViT of a CLIP, which has no rotary positions; a Perception "
    "Encoder with a last norm has both"
)
PERIODS = drop("rope.periods", "timm computes the periods of rotary positions; other ones are in the file's metadata")
_TIMM = Dialect((PERIODS, keep("{key...}", "{key...}")))


@dataclass(frozen=True)
class Eva:
    """Widths of tokens and MLPs, depth, patches, and parts.

    ``positions`` counts the rows of `pos_embed` for patches; 0 where there is none, as in DINOv3. ``mlp`` is the kind
    of MLPs, ``mlp_norm`` a norm inside each. ``fused`` says whether queries, keys and values are one layer.
    ``pre_norm`` is a norm before the blocks, whose patches have no bias (Perception Encoder). ``rope_periods`` is the
    length of `rope.periods`, 0 where the file has none. ``num_heads`` is the usual number for the width if none is
    given, and None if none is usual.
    """

    embed_dim: int
    depth: int
    hidden_dim: int
    patch_size: int
    positions: int = 0
    in_channels: int = 3
    class_token: bool = True
    num_registers: int = 0
    layer_scale: bool = True
    mlp: Mlp = "plain"
    mlp_norm: bool = False
    fused: bool = True
    qkv_bias: bool = True
    pre_norm: bool = False
    final_norm: bool = True
    rope_periods: int = 0
    num_heads: int | None = None

    derived: ClassVar[tuple[str, ...]] = ("grid_size",)

    def __post_init__(self) -> None:
        if self.num_heads is None:
            object.__setattr__(self, "num_heads", self._usual_heads)

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def token_dim(self) -> int:
        return self.embed_dim

    @property
    def grid_size(self) -> int | None:
        """Patches a side of the images that the positions are for; None without positions, or without a square."""
        side = math.isqrt(self.positions)
        return side if side and side * side == self.positions else None

    @property
    def _usual_heads(self) -> int | None:
        """The usual number for this width; RoPE's periods are a quarter of a head's channels. None if none is usual."""
        if self.rope_periods:
            return self.embed_dim // (4 * self.rope_periods) or None
        return _HEADS.get((self.embed_dim, self.pre_norm), self.embed_dim // 64 if self.embed_dim % 64 == 0 else None)

    @property
    def name(self) -> str:
        kind = "PE" if self.pre_norm else "EVA-02" if self.positions else "ViT"
        size = _SIZES.get((self.embed_dim, self.depth), f"{self.embed_dim}x{self.depth}")
        parts = [f"{kind}-{size}/{self.patch_size}"]
        if self.num_registers:
            parts.append(f"{self.num_registers} registers")
        if kind == "ViT":
            parts += ["SwiGLU"] * (self.mlp != "plain") + ["RoPE"]
        return ", ".join(parts) + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        parts = (
            (self.class_token, MissingPart("class_token", "cls_token", "it has no class token")),
            # Perception Encoders have a table besides RoPE, and DINOv3's ViTs have registers where they have no table
            (bool(self.positions) or not self.pre_norm, MissingPart("positions", "pos_embed", "it has no positions")),
            (
                bool(self.num_registers or self.positions) or self.pre_norm,
                MissingPart("registers", "reg_token", "it has no registers"),
            ),
            (self.qkv_bias or not self.pre_norm, MissingPart("qkv_bias", "blocks.0.attn.qkv.bias", NO_BIAS)),
            (self.final_norm, MissingPart("norm", "norm.weight", NO_NORM)),
            # only networks without a last norm have none: PE-Spatial and PE-Lang. CLIP's have the same names otherwise
            (not (self.pre_norm and self.final_norm), MissingPart("attention_pooling", "attn_pool.kv.weight", _CLIP)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        return unusual(self.name, f"ViT of width {self.embed_dim}", self.depth, EVA.get(self.embed_dim, ()))

    @property
    def partial(self) -> bool:
        return partial(self.depth, EVA.get(self.embed_dim, ()))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        dim, hidden = self.embed_dim, self.hidden_dim
        entries: dict[str, tuple[int, ...]] = {}

        def layer(name: str, *shape: int, bias: bool = True) -> None:
            entries[f"{name}.weight"] = shape
            if bias:
                entries[f"{name}.bias"] = shape[:1]

        if self.class_token:
            entries["cls_token"] = (1, 1, dim)
        if self.num_registers:
            entries["reg_token"] = (1, self.num_registers, dim)
        if self.positions:
            entries["pos_embed"] = (1, self.class_token + self.positions, dim)
        if self.rope_periods:
            entries["rope.periods"] = (self.rope_periods,)
        layer("patch_embed.proj", dim, self.in_channels, self.patch_size, self.patch_size, bias=not self.pre_norm)
        if self.pre_norm:
            layer("norm_pre", dim)
        for i in range(self.depth):
            at = f"blocks.{i}."
            if self.layer_scale:
                entries[f"{at}gamma_1"] = entries[f"{at}gamma_2"] = (dim,)
            layer(f"{at}norm1", dim)
            if self.fused and self.qkv_bias and not self.pre_norm:  # keys have no bias
                entries[f"{at}attn.q_bias"] = entries[f"{at}attn.v_bias"] = (dim,)
            if self.fused:
                layer(f"{at}attn.qkv", 3 * dim, dim, bias=self.qkv_bias and self.pre_norm)
            else:
                layer(f"{at}attn.q_proj", dim, dim, bias=self.qkv_bias)
                layer(f"{at}attn.k_proj", dim, dim, bias=False)
                layer(f"{at}attn.v_proj", dim, dim, bias=self.qkv_bias)
            layer(f"{at}attn.proj", dim, dim)
            layer(f"{at}norm2", dim)
            if self.mlp == "apart":
                layer(f"{at}mlp.fc1_g", hidden, dim)
                layer(f"{at}mlp.fc1_x", hidden, dim)
            else:
                layer(f"{at}mlp.fc1", hidden * (2 if self.mlp == "packed" else 1), dim)
            if self.mlp_norm:
                layer(f"{at}mlp.norm", hidden)
            layer(f"{at}mlp.fc2", dim, hidden)
        if self.final_norm:
            layer("norm", dim)
        return entries

    def optional(self, name: str) -> bool:  # noqa: ARG002 - a part is there as a whole or not at all
        return False

    def obstacle(self, target: str) -> str:
        return transformers_vits.unlike_dinov3(self) if target == "transformers" else eva_models.obstacle(self)

    def dialect(self, target: str) -> Dialect:
        return transformers_vits.dinov3_dialect(self) if target == "transformers" else _TIMM

    def timm_model(self) -> TimmModel | None:
        return eva_models.timm_model(self)

    def transformers_model(self) -> TransformersModel | None:
        return transformers_vits.dinov3_model(self)


def read(state: StateSpec) -> Eva | None:
    """The network of timm's `Eva` of which most of these shapes are, or None if the names are of no such network."""
    depth, parts = blocks_of(state)
    dim = width_of(parts) or most_common(lengths(parts, "attn.q_proj.weight", 1))
    one, three = (len(lengths(parts, f"attn.{layer}.weight", 0)) for layer in ("qkv", "q_proj"))
    if not depth or not dim or not (one or three):
        return None
    second = most_common(lengths(parts, "mlp.fc2.weight", 1))
    first = most_common(lengths(parts, "mlp.fc1.weight", 0) + lengths(parts, "mlp.fc1.bias", 0))
    apart = any(part.startswith(("mlp.fc1_g.", "mlp.fc1_x.")) for part in parts)
    mlp: Mlp = "apart" if apart else "packed" if second and first == 2 * second else "plain"
    pre_norm = any(name.startswith("norm_pre.") for name in state)
    table, tokens, periods = state.get("pos_embed"), state.get("reg_token"), state.get("rope.periods")
    registers = tokens.shape[1] if tokens is not None and len(tokens.shape) > 1 else 0
    rotary_only = table is None and ("reg_token" in state or periods is not None)
    if not (pre_norm or rotary_only or (table is not None and mlp != "plain")):
        return None
    if not pre_norm and "attn.qkv.bias" in parts:  # keys have a bias: another class of timm
        return None
    rows = table.shape[1] if table is not None and len(table.shape) > 1 else 0
    cls = "cls_token" in state or (bool(rows) and math.isqrt(rows) ** 2 != rows)
    own = most_common(lengths(parts, "mlp.fc1_g.bias", 0) + lengths(parts, "mlp.fc1_x.bias", 0))
    return Eva(
        embed_dim=dim,
        depth=depth,
        hidden_dim=second or own or (first // 2 if mlp == "packed" else first) or 4 * dim,
        patch_size=patch_of(state)[0],
        positions=max(rows - cls, 0),
        in_channels=patch_of(state)[1],
        class_token=cls,
        num_registers=registers,
        layer_scale="gamma_1" in parts or "gamma_2" in parts,
        mlp=mlp,
        mlp_norm=any(part.startswith("mlp.norm.") for part in parts),
        fused=one >= three,
        qkv_bias=any(p in parts for p in ("attn.q_bias", "attn.v_bias", "attn.qkv.bias", "attn.q_proj.bias")),
        pre_norm=pre_norm,
        final_norm=any(name.startswith("norm.") for name in state),
        rope_periods=periods.shape[0] if periods is not None and periods.shape else 0,
    )


def resize(network: Eva, size: Size) -> tuple[Eva, tuple[Change, ...]]:
    """The network for images or patches of another size, and what changes of it."""
    fixed = ""
    if not network.positions:
        fixed = "has rotary position embeddings (RoPE), which suit images of any size"
    elif network.grid_size is None:
        fixed = f"has {network.positions} positions, which are not a square grid"
    changes = PatchGrid(network.name, network.patch_size, network.grid_size or 0, fixed).resized(size)
    grids = [change.new for change in changes if change.name == POSITIONS]
    positions = grids[0] ** 2 if grids else network.positions
    return replace(network, patch_size=size.patch or network.patch_size, positions=positions), changes


FAMILY = Family(
    name="Eva",
    read=read,
    targets=("timm", "transformers"),
    stem=KERNEL,
    blocks=(r"blocks\.\d+\.",),
    resize=resize,
    heads_shown=lambda member: member.rope_periods > 0,
    usual_widths=frozenset(EVA),
)

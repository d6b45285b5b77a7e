"""The plain vision transformer in timm's names, as one function of width, depth and the parts it may have.

Source of names and shapes: `timm/models/vision_transformer.py` (`VisionTransformer`, `reg_token`, `LayerScale`);
`mlp.w12` and `mlp.w3` of gated MLPs are DINOv2's (`dinov2/layers/swiglu_ffn.py`). No tensor tells the number of heads:
it is the usual one for the width. Transformers with rotary positions, such as DINOv3's, are in `eva`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ckptconv.backbones import transformers_vits, vit_targets
from ckptconv.backbones.blocks import NO_BIAS, NO_NORM, blocks_of, lengths, patch_of, width_of
from ckptconv.backbones.image_size import KERNEL, POSITIONS, Change, PatchGrid, Size
from ckptconv.backbones.interface import Dialect, Family, MissingPart, TimmModel, TransformersModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import VIT, partial, unusual
from ckptconv.spec import StateSpec

_SIZES = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 24): "L",
    (1152, 27): "So400m",
    (1280, 32): "H",
    (1408, 40): "g",
    (1536, 40): "g",
}
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""TIPSv2's so400m, MAE's, I-JEPA's and timm's gigantic; elsewhere a head has 64 channels."""
_IMAGE = 224  # of nearly every pre-training, where no positions tell


@dataclass(frozen=True)
class VisionTransformer:
    """Widths of tokens and MLPs, depth, patches, and parts.

    ``positions`` counts the rows of `pos_embed` for patches, ``prefix_positions`` those before them. ``num_heads`` is
    what published networks of the width have, or one for 64 channels, if none is given; None where neither is possible.
    """

    embed_dim: int
    depth: int
    hidden_dim: int
    patch_size: int
    positions: int
    in_channels: int = 3
    class_token: bool = True
    prefix_positions: int = 1
    num_registers: int = 0
    layer_scale: bool = False
    swiglu: bool = False
    qkv_bias: bool = True
    final_norm: bool = True
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
        """Patches a side of the images that the positions are for; None if they make no square."""
        side = math.isqrt(self.positions)
        return side if side and side * side == self.positions else None

    @property
    def _usual_heads(self) -> int | None:
        """What published networks of this width have, else one for 64 channels. None where 64 does not divide it."""
        return _HEADS.get(self.embed_dim, self.embed_dim // 64 if self.embed_dim % 64 == 0 else None)

    @property
    def name(self) -> str:
        size = _SIZES.get((self.embed_dim, self.depth), f"{self.embed_dim}x{self.depth}")
        parts = [f"ViT-{size}/{self.patch_size}"]
        if self.num_registers:
            parts.append(f"{self.num_registers} register{'s' * (self.num_registers > 1)}")
        if self.swiglu:
            parts.append("SwiGLU")
        return ", ".join(parts) + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        parts = (
            (self.class_token, MissingPart("class_token", "cls_token", "it has no class token")),
            (self.qkv_bias, MissingPart("qkv_bias", "blocks.0.attn.qkv.bias", NO_BIAS)),
            (self.final_norm, MissingPart("norm", "norm.weight", NO_NORM)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        return unusual(self.name, f"ViT of width {self.embed_dim}", self.depth, VIT.get(self.embed_dim, ()))

    @property
    def partial(self) -> bool:
        return partial(self.depth, VIT.get(self.embed_dim, ()))

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
        entries["pos_embed"] = (1, self.prefix_positions + self.positions, dim)
        layer("patch_embed.proj", dim, self.in_channels, self.patch_size, self.patch_size)
        for i in range(self.depth):
            at = f"blocks.{i}."
            layer(f"{at}norm1", dim)
            layer(f"{at}attn.qkv", 3 * dim, dim, bias=self.qkv_bias)
            layer(f"{at}attn.proj", dim, dim)
            if self.layer_scale:
                entries[f"{at}ls1.gamma"] = (dim,)
            layer(f"{at}norm2", dim)
            if self.swiglu:
                layer(f"{at}mlp.w12", 2 * hidden, dim)
                layer(f"{at}mlp.w3", dim, hidden)
            else:
                layer(f"{at}mlp.fc1", hidden, dim)
                layer(f"{at}mlp.fc2", dim, hidden)
            if self.layer_scale:
                entries[f"{at}ls2.gamma"] = (dim,)
        if self.final_norm:
            layer("norm", dim)
        return entries

    def optional(self, name: str) -> bool:  # noqa: ARG002 - a part is there as a whole or not at all
        return False

    def obstacle(self, target: str) -> str:
        return vit_targets.obstacle(self, target)

    def dialect(self, target: str) -> Dialect:
        return vit_targets.dialect(self, target)

    def timm_model(self) -> TimmModel | None:
        return vit_targets.timm_model(self)

    def transformers_model(self) -> TransformersModel | None:
        return transformers_vits.vit_model(self)


def positions_of(state: StateSpec, patch: int, cls: bool, registers: int) -> tuple[int, int]:
    """How many rows of `pos_embed` are for patches, and how many come before them."""
    table = state.get("pos_embed")
    if table is None or len(table.shape) < 2:
        return (_IMAGE // patch) ** 2, int(cls)
    count = table.shape[1]
    for slots in dict.fromkeys((int(cls), 1, 0, 1 + registers, registers)):
        side = math.isqrt(max(count - slots, 0))
        if side and side * side == count - slots:
            return count - slots, slots
    return max(count - cls, 0), int(cls)


def read(state: StateSpec) -> VisionTransformer | None:
    """The ViT of which most of these shapes are, or None if the names are not a ViT's."""
    depth, parts = blocks_of(state)
    dim = width_of(parts)
    if not depth or not dim or not any(part.startswith("attn.qkv.") for part in parts):
        return None
    swiglu = any(part.startswith(("mlp.w12.", "mlp.w3.")) for part in parts)
    if swiglu:
        hidden = most_common(lengths(parts, "mlp.w3.weight", 1) + [n // 2 for n in lengths(parts, "mlp.w12.bias", 0)])
    else:
        hidden = most_common(lengths(parts, "mlp.fc1.bias", 0) + lengths(parts, "mlp.fc2.weight", 1))
    patch, channels = patch_of(state)
    tokens = state.get("reg_token")
    registers = tokens.shape[1] if tokens is not None and len(tokens.shape) > 1 else 0
    cls = "cls_token" in state
    positions, slots = positions_of(state, patch, cls, registers)
    return VisionTransformer(
        embed_dim=dim,
        depth=depth,
        hidden_dim=hidden or 4 * dim,
        patch_size=patch,
        positions=positions,
        in_channels=channels,
        class_token=cls or (slots > 0 and slots != registers),
        prefix_positions=slots,
        num_registers=registers,
        layer_scale=any(part.startswith(("ls1.", "ls2.")) for part in parts),
        swiglu=swiglu,
        qkv_bias="attn.qkv.bias" in parts,
        final_norm=any(name.startswith("norm.") for name in state),
    )


def resize(network: VisionTransformer, size: Size) -> tuple[VisionTransformer, tuple[Change, ...]]:
    """The ViT for images or patches of another size, and what changes of it."""
    fixed = ""
    if network.grid_size is None:
        fixed = f"has {network.positions} positions, which are not a square grid"
    changes = PatchGrid(network.name, network.patch_size, network.grid_size or 0, fixed).resized(size)
    grids = [change.new for change in changes if change.name == POSITIONS]
    positions = grids[0] ** 2 if grids else network.positions
    return replace(network, patch_size=size.patch or network.patch_size, positions=positions), changes


FAMILY = Family(
    name="ViT",
    read=read,
    targets=("timm", "vitdet", "mmpretrain", "transformers"),
    stem=KERNEL,
    blocks=(r"blocks\.\d+\.",),
    resize=resize,
    heads_shown=lambda _: False,
    usual_widths=frozenset(VIT),
)

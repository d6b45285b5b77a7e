"""The XCiT family in timm's names, as one function of width, depth, heads and patches.

Source of names and shapes: `Xcit` of `timm/models/xcit.py` 1.0.31, which has the tensors of `xcit.py` of
facebookresearch/xcit except for the attention of the class token: there query, key and value are one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ckptconv.backbones.blocks import NO_BIAS, NO_NORM, blocks_of, lengths, width_of
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
from ckptconv.backbones.published_sizes import XCIT, partial, unusual
from ckptconv.backbones.resnet import BATCH_NORM, STEP_COUNTER
from ckptconv.spec import StateSpec, TensorSpec

_SIZES = {128: "N", 192: "T", 384: "S", 512: "M", 768: "L"}
_TIMM = {128: "nano", 192: "tiny", 384: "small", 512: "medium", 768: "large"}
_HEADS = {128: 4, 192: 4, 384: 8, 512: 8, 768: 16}
_PUBLISHED = {(128, 12), (192, 12), (384, 12), (192, 24), (384, 24), (512, 24), (768, 24)}
_BASE = "xcit_small_12_p16_224"
_FOURIER = 64  # channels of the position encoding, for any size
_CLASS_BLOCKS = 2
_TIMM_PATCHES = (8, 16)


@dataclass(frozen=True)
class Xcit:
    """Channels, blocks, heads of a block, and the patches: each convolution of the stem halves the map.

    ``class_depth`` counts the blocks in which the class token attends to the patches, after all others.
    """

    embed_dim: int
    depth: int
    num_heads: int
    hidden_dim: int
    patch_size: int
    in_channels: int = 3
    class_depth: int = _CLASS_BLOCKS
    positions: bool = True
    qkv_bias: bool = True
    final_norm: bool = True

    derived: ClassVar[tuple[str, ...]] = ()

    @property
    def token_dim(self) -> int | None:
        return self.embed_dim

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def name(self) -> str:
        size = _SIZES.get(self.embed_dim, f"{self.embed_dim}-channels-")
        return f"XCiT-{size}{self.depth}/{self.patch_size}" + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        position = MissingPart("positions", "pos_embed.token_projection.weight", "it has no position encoding")
        parts = (
            (self.positions, position),
            (self.qkv_bias, MissingPart("qkv_bias", "blocks.0.attn.qkv.bias", NO_BIAS)),
            (self.final_norm, MissingPart("norm", "norm.weight", NO_NORM)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        known = XCIT.get(self.embed_dim, ())
        return unusual(self.name, f"XCiT of width {self.embed_dim}", self.depth, known)

    @property
    def partial(self) -> bool:
        return partial(self.depth, XCIT.get(self.embed_dim, ()))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        entries: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, self.embed_dim)}
        dim = self.embed_dim

        def layer(name: str, *shape: int, bias: bool = True) -> None:
            entries[f"{name}.weight"] = shape
            if bias:
                entries[f"{name}.bias"] = shape[:1]

        def batch_norm(name: str, channels: int) -> None:
            entries.update({f"{name}.{p}": (channels,) for p in BATCH_NORM})
            entries[f"{name}.num_batches_tracked"] = ()

        into, halvings = self.in_channels, self.patch_size.bit_length() - 1
        for i in range(halvings):
            channels = dim >> (halvings - 1 - i)
            layer(f"patch_embed.proj.{2 * i}.0", channels, into, 3, 3, bias=False)
            batch_norm(f"patch_embed.proj.{2 * i}.1", channels)
            into = channels
        if self.positions:
            layer("pos_embed.token_projection", dim, _FOURIER, 1, 1)

        def mlp(at: str) -> None:
            layer(f"{at}.norm2", dim)
            layer(f"{at}.mlp.fc1", self.hidden_dim, dim)
            layer(f"{at}.mlp.fc2", dim, self.hidden_dim)

        for block in range(self.depth):
            at = f"blocks.{block}"
            entries |= {f"{at}.gamma{n}": (dim,) for n in (1, 3, 2)}
            layer(f"{at}.norm1", dim)
            entries[f"{at}.attn.temperature"] = (self.num_heads, 1, 1)
            layer(f"{at}.attn.qkv", 3 * dim, dim, bias=self.qkv_bias)
            layer(f"{at}.attn.proj", dim, dim)
            layer(f"{at}.norm3", dim)
            layer(f"{at}.local_mp.conv1", dim, 1, 3, 3)
            batch_norm(f"{at}.local_mp.bn", dim)
            layer(f"{at}.local_mp.conv2", dim, 1, 3, 3)
            mlp(at)
        for block in range(self.class_depth):
            at = f"cls_attn_blocks.{block}"
            entries |= {f"{at}.gamma{n}": (dim,) for n in (1, 2)}
            layer(f"{at}.norm1", dim)
            for part in "qkv":
                layer(f"{at}.attn.{part}", dim, dim, bias=self.qkv_bias)
            layer(f"{at}.attn.proj", dim, dim)
            mlp(at)
        if self.final_norm:
            layer("norm", dim)
        return entries

    def optional(self, name: str) -> bool:
        return name.endswith(STEP_COUNTER)

    def obstacle(self, target: str) -> str:  # noqa: ARG002 - there is one target
        if self.patch_size not in _TIMM_PATCHES:
            return f"its patches have {self.patch_size} pixels; those of timm's XCiT have 8 or 16"
        return ""

    def dialect(self, target: str) -> Dialect:  # noqa: ARG002 - there is one target
        return CANONICAL if self.final_norm else Dialect(fresh=("norm.{p}",))

    def transformers_model(self) -> TransformersModel | None:
        return None

    def timm_model(self) -> TimmModel | None:
        if self.patch_size not in _TIMM_PATCHES:
            return None
        arguments: dict[str, Any] = {}
        if (self.embed_dim, self.depth) in _PUBLISHED:
            name, heads = f"xcit_{_TIMM[self.embed_dim]}_{self.depth}_p{self.patch_size}_224", _HEADS[self.embed_dim]
        else:
            name, heads = _BASE, _HEADS[384]
            sizes = {"embed_dim": self.embed_dim, "depth": self.depth, "patch_size": self.patch_size}
            arguments = {
                key: value for key, value in sizes.items() if value != {"depth": 12, "patch_size": 16}.get(key)
            }
        if self.num_heads != heads:
            arguments["num_heads"] = self.num_heads
        if self.hidden_dim != 4 * self.embed_dim:
            arguments["mlp_ratio"] = self.hidden_dim / self.embed_dim
        if self.in_channels != 3:
            arguments["in_chans"] = self.in_channels
        if self.class_depth != _CLASS_BLOCKS:
            arguments["cls_attn_layers"] = self.class_depth
        if not self.positions:
            arguments["use_pos_embed"] = False
        if not self.qkv_bias:
            arguments["qkv_bias"] = False
        return TimmModel(name, arguments)


def read(state: StateSpec) -> Xcit | None:
    """The XCiT of which most of these shapes are, or None if the names are not an XCiT's."""
    depth, parts = blocks_of(state)
    dim = width_of(parts)
    heads = most_common(lengths(parts, "attn.temperature", 0))
    if not depth or not dim or not heads or not any(part.startswith("local_mp.") for part in parts):
        return None
    stem = [i for i in range(8) if f"patch_embed.proj.{2 * i}.0.weight" in state]
    kernel = state.get("patch_embed.proj.0.0.weight")
    of_class: StateSpec = {
        f"blocks.{name.removeprefix('cls_attn_blocks.')}": TensorSpec(spec.shape, spec.dtype)
        for name, spec in state.items()
        if name.startswith("cls_attn_blocks.")
    }
    return Xcit(
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        hidden_dim=most_common(lengths(parts, "mlp.fc1.bias", 0) + lengths(parts, "mlp.fc2.weight", 1)) or 4 * dim,
        patch_size=1 << (max(stem) + 1) if stem else 16,
        in_channels=kernel.shape[1] if kernel is not None and len(kernel.shape) == 4 else 3,
        class_depth=blocks_of(of_class)[0] or _CLASS_BLOCKS,
        positions=any(name.startswith("pos_embed.token_projection.") for name in state),
        qkv_bias="attn.qkv.bias" in parts,
        final_norm=any(name.startswith("norm.") for name in state),
    )


FAMILY = Family(
    name="XCiT",
    read=read,
    targets=("timm",),
    stem="patch_embed.proj.0.0.weight",
    blocks=(r"blocks\.\d+\.", r"cls_attn_blocks\.\d+\."),
    heads_shown=lambda _: True,
)

"""The Hiera family in timm's names, as one function of width, depths and positions.

Source of names and shapes: `Hiera` of `timm/models/hiera.py` 1.0.31 and `hiera/hiera.py` of facebookresearch/hiera. A
block that begins a stage doubles the channels and projects its shortcut. No tensor tells the number of heads, the
stride of the patches or how many stages pool their queries: these are what all published sizes have.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, ClassVar

from ckptconv.arguments import argument
from ckptconv.backbones.blocks import NO_NORM, blocks_of, lengths
from ckptconv.backbones.image_size import KERNEL, Change, PatchGrid, Size
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
from ckptconv.backbones.published_sizes import HIERA, partial, unusual
from ckptconv.errors import UsageError
from ckptconv.spec import StateSpec

_SIZES: Mapping[tuple[int, tuple[int, ...]], tuple[str, str]] = {
    (96, (1, 2, 7, 2)): ("T", "hiera_tiny_224"),
    (96, (1, 2, 11, 2)): ("S", "hiera_small_224"),
    (96, (2, 3, 16, 3)): ("B", "hiera_base_224"),
    (112, (2, 3, 16, 3)): ("B+", "hiera_base_plus_224"),
    (144, (2, 6, 36, 4)): ("L", "hiera_large_224"),
    (256, (2, 6, 36, 4)): ("H", "hiera_huge_224"),
}
_BASE = "hiera_tiny_224"
_HEADS = {96: 1, 112: 2, 144: 2, 256: 4}
_STAGES = 4
_STRIDE, _KERNEL = 4, 7
_UNIT = 32  # pixels of a mask unit, which three poolings make one token
_GRID = 56  # patches a side of 224 pixels, where no positions tell
_WIDTHS = ("norm2.weight", "norm2.bias", "attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")


@dataclass(frozen=True)
class Hiera:
    """Channels and heads of the first stage, which double from stage to stage; blocks a stage; positions."""

    embed_dim: int
    hidden_dim: int
    depths: tuple[int, ...]
    num_heads: int
    positions: int = _GRID**2
    in_channels: int = 3
    final_norm: bool = True

    derived: ClassVar[tuple[str, ...]] = ("grid_size",)
    token_dim: ClassVar[int | None] = None

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def grid_size(self) -> int | None:
        """Patches a side; None if they are not a square."""
        side = isqrt(self.positions)
        return side if side * side == self.positions else None

    @property
    def name(self) -> str:
        size, _ = _SIZES.get((self.embed_dim, self.depths), ("", ""))
        name = f"Hiera-{size}" if size else f"Hiera-{'-'.join(map(str, self.depths))}, {self.embed_dim} channels"
        return name + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        stages = len(self.depths)
        parts = (
            (
                stages >= _STAGES,
                MissingPart("stages", f"blocks.{sum(self.depths)}", f"it has {stages} of {_STAGES} stages"),
            ),
            (self.final_norm, MissingPart("norm", "head.norm.weight", NO_NORM)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        known = HIERA.get(self.embed_dim, ())
        return unusual(self.name, f"Hiera of width {self.embed_dim}", self.depths, known)

    @property
    def partial(self) -> bool:
        return partial(self.depths, HIERA.get(self.embed_dim, ()))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        entries: dict[str, tuple[int, ...]] = {"pos_embed": (1, self.positions, self.embed_dim)}

        def layer(name: str, *shape: int) -> None:
            entries[f"{name}.weight"] = shape
            entries[f"{name}.bias"] = shape[:1]

        layer("patch_embed.proj", self.embed_dim, self.in_channels, _KERNEL, _KERNEL)
        block, into = 0, self.embed_dim
        for stage, depth in enumerate(self.depths):
            width, hidden = self.embed_dim << stage, self.hidden_dim << stage
            for _ in range(depth):
                at = f"blocks.{block}"
                layer(f"{at}.norm1", into)
                if into != width:
                    layer(f"{at}.proj", width, into)
                layer(f"{at}.attn.qkv", 3 * width, into)
                layer(f"{at}.attn.proj", width, width)
                layer(f"{at}.norm2", width)
                layer(f"{at}.mlp.fc1", hidden, width)
                layer(f"{at}.mlp.fc2", width, hidden)
                block, into = block + 1, width
        if self.final_norm:
            layer("head.norm", into)
        return entries

    def optional(self, name: str) -> bool:  # noqa: ARG002 - a network without a final norm is another member
        return False

    def obstacle(self, target: str) -> str:  # noqa: ARG002 - there is one target
        if self.grid_size is None:
            return f"its {self.positions} positions are not a square grid, so nothing tells the sides of its images"
        return ""

    def dialect(self, target: str) -> Dialect:  # noqa: ARG002 - there is one target
        return CANONICAL if self.final_norm else Dialect(fresh=("head.norm.{p}",))

    def transformers_model(self) -> TransformersModel | None:
        return None

    def timm_model(self) -> TimmModel | None:
        """The default pools the queries of three stages, as the backbone of facebookresearch/hiera does."""
        if self.grid_size is None:
            return None
        _, name = _SIZES.get((self.embed_dim, self.depths), ("", ""))
        arguments: dict[str, Any] = {}
        if not name:
            arguments |= {"embed_dim": self.embed_dim, "stages": list(self.depths)}
        if self.num_heads != (_HEADS[self.embed_dim] if name else 1):
            arguments["num_heads"] = self.num_heads
        if self.grid_size != _GRID:
            arguments["img_size"] = [self.grid_size * _STRIDE] * 2
        if self.hidden_dim != 4 * self.embed_dim:
            arguments["mlp_ratio"] = self.hidden_dim / self.embed_dim
        if self.in_channels != 3:
            arguments["in_chans"] = self.in_channels
        return TimmModel(name or _BASE, arguments)


def _heads(width: int) -> int:
    """Heads of the first stage: the published number for this width, else one for about 64 channels."""
    return _HEADS.get(width) or next(n for n in range(max(width // 64, 1), 0, -1) if width % n == 0)


def read(state: StateSpec) -> Hiera | None:
    """The Hiera of which most of these shapes are, or None if the names are not a Hiera's."""
    depth, parts = blocks_of(state)
    if not depth or not lengths(parts, "attn.qkv.weight", 0) or not lengths(parts, "proj.weight", 0):
        return None
    widths: dict[int, Counter[int]] = defaultdict(Counter)
    for name, spec in state.items():
        head, _, rest = name.partition(".")
        block, _, part = rest.partition(".")
        if head == "blocks" and part in _WIDTHS and block.isascii() and block.isdigit() and spec.shape:
            widths[int(block)][spec.shape[0]] += 1
    of_block = [widths[i].most_common(1)[0][0] if widths[i] else 0 for i in range(depth)]
    stem = [spec.shape[0] for name, spec in state.items() if name.startswith("patch_embed.proj.") and spec.shape]
    first = most_common(stem, of_block[:1]) or min(filter(None, of_block), default=0)
    if not first:
        return None
    stages, depths = 0, [0]
    for width in of_block:
        if width > first << stages:  # a width that is missing or wrong is that of the block before
            stages += 1
            depths.append(0)
        depths[-1] += 1
    hidden = Counter(
        shape[0] * first // shape[1] for shape in parts.get("mlp.fc1.weight", ()) if len(shape) == 2 and shape[1]
    )
    kernel, positions = state.get(KERNEL), state.get("pos_embed")
    return Hiera(
        embed_dim=first,
        hidden_dim=hidden.most_common(1)[0][0] if hidden else 4 * first,
        depths=tuple(depths),
        num_heads=_heads(first),
        positions=positions.shape[1] if positions is not None and len(positions.shape) == 3 else _GRID**2,
        in_channels=kernel.shape[1] if kernel is not None and len(kernel.shape) == 4 else 3,
        final_norm=any(name.startswith("head.norm.") for name in state),
    )


def resize(network: Hiera, size: Size) -> tuple[Hiera, tuple[Change, ...]]:
    """The Hiera for images of another size, and what changes of it."""
    if size.patch is not None:
        asked = argument("patch_size", size.patch)
        raise UsageError(
            f"{asked}: the patches of {network.name} overlap, and are not resized", "Leave it out.", "patch_size"
        )
    if size.image is not None and size.image % _UNIT:
        asked = argument("image_size", size.image)
        raise UsageError(
            f"{asked} is not a multiple of {_UNIT}, the pixels of a mask unit",
            f"Give {max(size.image // _UNIT, 1) * _UNIT} or {(size.image // _UNIT + 1) * _UNIT}.",
            "image_size",
        )
    fixed = "" if network.grid_size else f"has {network.positions} positions, which are not a square grid"
    changes = PatchGrid(network.name, _STRIDE, network.grid_size or 0, fixed).resized(size)
    return replace(network, positions=changes[0].new ** 2), changes


FAMILY = Family(
    name="Hiera",
    read=read,
    targets=("timm",),
    stem=KERNEL,
    blocks=(r"blocks\.\d+\.",),
    resize=resize,
    heads_shown=lambda _: False,
    usual_widths=frozenset(HIERA),
)

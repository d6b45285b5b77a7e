"""The Swin family in its authors' names, as one function of width, depths, heads and windows.

Source of names and shapes: `models/swin_transformer.py` and `swin_transformer_v2.py` of microsoft/Swin-Transformer, and
`models_mixmim.py` of Sense-X/MixMIM. Their buffers are not entries: a network computes them for its own image size. One
is read, where a file has it: the table of coordinates of version 2, which tells the windows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import ClassVar

from ckptconv.backbones import swin_targets, transformers_stages
from ckptconv.backbones.blocks import NO_BIAS, NO_NORM, depth_of
from ckptconv.backbones.image_size import KERNEL
from ckptconv.backbones.interface import Dialect, Family, MissingPart, TimmModel, TransformersModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import SWIN, partial, unusual
from ckptconv.backbones.swin_targets import COORDINATES
from ckptconv.spec import StateSpec

_SIZES: Mapping[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "T",
    (96, (2, 2, 18, 2)): "S",
    (128, (2, 2, 18, 2)): "B",
    (192, (2, 2, 18, 2)): "L",
}
_STAGES = 4
_BIAS_MLP = 512  # channels inside version 2's network for position biases, for any size


@dataclass(frozen=True)
class Swin:
    """Channels of the first stage and inside its MLPs, which double from stage to stage; blocks and heads a stage.

    ``window_sizes`` are read from each stage's tables: a window is at most as large as its stage's map, so the last may
    be smaller than the others; () in version 2 without its table of coordinates. ``positions`` counts the tokens of an
    absolute position embedding, 0 where there is none. ``shifted`` is what no tensor tells: MixMIM's windows never are.
    """

    embed_dim: int
    hidden_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    patch_size: int = 4
    in_channels: int = 3
    patch_norm: bool = True
    qkv_bias: bool = True
    positions: int = 0
    version: int = 1
    shifted: bool = True
    final_norm: bool = True

    derived: ClassVar[tuple[str, ...]] = ()
    token_dim: ClassVar[int | None] = None

    @property
    def family(self) -> str:
        if self.version == 2:
            return V2.name
        return FAMILY.name if self.shifted else UNSHIFTED.name

    @property
    def name(self) -> str:
        size = _SIZES.get((self.embed_dim, self.depths))
        name = f"{self.family}-{size or '-'.join(map(str, self.depths))}"
        if size is None:
            name += f", {self.embed_dim} channels"
        sizes = dict.fromkeys(self.window_sizes)
        if len(sizes) > 1:
            name += f", windows {'-'.join(map(str, self.window_sizes))}"
        elif sizes:
            name += f", window {self.window_sizes[0]}"
        return name + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        stages, biased = len(self.depths), "qkv.bias" if self.version == 1 else "q_bias"
        parts = (
            (stages >= _STAGES, MissingPart("stages", f"layers.{stages}", f"it has {stages} of {_STAGES} stages")),
            (
                self.patch_norm,
                MissingPart("patch_norm", "patch_embed.norm.weight", "it has no norm after the patch embedding"),
            ),
            (self.qkv_bias, MissingPart("qkv_bias", f"layers.0.blocks.0.attn.{biased}", NO_BIAS)),
            (self.final_norm, MissingPart("norm", "norm.weight", NO_NORM)),
        )
        return tuple(part for present, part in parts if not present)

    @property
    def unusual(self) -> str:
        known = SWIN.get(self.embed_dim, ())
        return unusual(self.name, f"{self.family} of width {self.embed_dim}", self.depths, known)

    @property
    def partial(self) -> bool:
        return partial(self.depths, SWIN.get(self.embed_dim, ()))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        entries: dict[str, tuple[int, ...]] = {}

        def layer(name: str, *shape: int, bias: bool = True) -> None:
            entries[f"{name}.weight"] = shape
            if bias:
                entries[f"{name}.bias"] = shape[:1]

        if self.positions:
            entries["absolute_pos_embed"] = (1, self.positions, self.embed_dim)
        layer("patch_embed.proj", self.embed_dim, self.in_channels, self.patch_size, self.patch_size)
        if self.patch_norm:
            layer("patch_embed.norm", self.embed_dim)
        last = len(self.depths) - 1
        for stage, (depth, heads) in enumerate(zip(self.depths, self.num_heads, strict=True)):
            width, hidden = self.embed_dim << stage, self.hidden_dim << stage
            for block in range(depth):
                at = f"layers.{stage}.blocks.{block}."
                layer(f"{at}norm1", width)
                if self.version == 2:
                    entries[f"{at}attn.logit_scale"] = (heads, 1, 1)
                    if self.qkv_bias:
                        entries.update({f"{at}attn.{p}_bias": (width,) for p in "qv"})
                    if self.window_sizes:
                        rows = 2 * self.window_sizes[stage] - 1
                        entries[f"{at}attn.{COORDINATES}"] = (1, rows, rows, 2)
                    layer(f"{at}attn.cpb_mlp.0", _BIAS_MLP, 2)
                    layer(f"{at}attn.cpb_mlp.2", heads, _BIAS_MLP, bias=False)
                else:
                    rows = (2 * self.window_sizes[stage] - 1) ** 2
                    entries[f"{at}attn.relative_position_bias_table"] = (rows, heads)
                layer(f"{at}attn.qkv", 3 * width, width, bias=self.qkv_bias and self.version == 1)
                layer(f"{at}attn.proj", width, width)
                layer(f"{at}norm2", width)
                layer(f"{at}mlp.fc1", hidden, width)
                layer(f"{at}mlp.fc2", width, hidden)
            if stage < last:
                layer(f"layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
                layer(f"layers.{stage}.downsample.norm", (2 if self.version == 2 else 4) * width)
        if self.final_norm:
            layer("norm", self.embed_dim << last)
        return entries

    def optional(self, name: str) -> bool:
        return name.endswith(COORDINATES)

    def obstacle(self, target: str) -> str:
        return swin_targets.obstacle(self, target)

    def dialect(self, target: str) -> Dialect:
        return swin_targets.dialect(self, target)

    def timm_model(self) -> TimmModel | None:
        return swin_targets.timm_model(self)

    def transformers_model(self) -> TransformersModel | None:
        return transformers_stages.swin_model(self) if self.shifted else None


_BLOCK_NAME = re.compile(
    r"layers\.([0-7])\.(?:blocks\.(\d+)|downsample)\.(.+)"
)  # seven doublings are more than anyone has


def _whole(width: int, found: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks a stage; where a stage is missing altogether, as many as the known network has that fits the others."""
    fits = (
        depths
        for known, depths in _SIZES
        if known == width and len(depths) == len(found) and all(n in (0, d) for n, d in zip(found, depths, strict=True))
    )
    return tuple(n or d for n, d in zip(found, next(fits, (2,) * len(found)), strict=True))


def read(state: StateSpec) -> Swin | None:
    """The Swin of the first version of which most of these shapes are, or None if the names are not such a Swin's."""
    member = _read(state)
    return member if member and member.version == 1 else None


def read_v2(state: StateSpec) -> Swin | None:
    """The Swin of the second version of which most of these shapes are, or None if the names are not such a Swin's."""
    member = _read(state)
    return member if member and member.version == 2 else None


def _read(state: StateSpec) -> Swin | None:
    """The Swin of which most of these shapes are, or None if the names are not a Swin's."""
    parts: list[tuple[int, str, tuple[int, ...]]] = []
    blocks: list[Counter[str]] = [Counter() for _ in range(8)]
    merges: Counter[int] = Counter()
    for name, spec in state.items():
        found = _BLOCK_NAME.fullmatch(name)
        if found is None:
            continue
        stage, block, rest = int(found[1]), found[2], found[3]
        if block is None:
            merges[stage] += 1
        else:
            blocks[stage][block] += 1
            parts.append((stage, rest, spec.shape))

    def lengths(names: tuple[str, ...], axis: int, axes: int) -> list[tuple[int, int]]:
        """(stage, length) for each part of such a name and so many axes; 0 axes are any."""
        return [
            (stage, shape[axis])
            for stage, rest, shape in parts
            if rest in names and len(shape) > axis and len(shape) == (axes or len(shape))
        ]

    layers = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.proj.bias", "mlp.fc2.bias")
    width = most_common(n >> s for s, n in lengths(layers, 0, 1))
    if not width or not lengths(("attn.qkv.weight",), 0, 0):
        return None
    inner = [*lengths(("mlp.fc1.weight", "mlp.fc1.bias"), 0, 0), *lengths(("mlp.fc2.weight",), 1, 2)]
    depths = [depth_of(seen) for seen in blocks]
    stages = max([s + 1 for s, n in enumerate(depths) if n] + [s + 2 for s, n in merges.items() if n > 1], default=1)
    tables = lengths(("attn.relative_position_bias_table",), 1, 0)
    scales = lengths(("attn.logit_scale",), 0, 3)
    rows = lengths(("attn.relative_position_bias_table",), 0, 0)
    windows = [(s, (isqrt(n) + 1) // 2) for s, n in rows if isqrt(n) ** 2 == n and isqrt(n) % 2]
    version = 2 if len(scales) > len(tables) else 1
    if version == 2:
        windows = [(s, (n + 1) // 2) for s, n in lengths((f"attn.{COORDINATES}",), 1, 4)]
    heads = scales if version == 2 else tables
    names = {rest for _, rest, _ in parts}
    stem = state.get("patch_embed.proj.weight")
    stem_shape = stem.shape if stem is not None and len(stem.shape) == 4 else (0, 0, 0, 0)
    positions = state.get("absolute_pos_embed")

    def of(stage: int, values: list[tuple[int, int]], doubling: bool) -> int:
        """The commonest value of the stage's own tensors; the other stages decide a tie."""
        others = ((n << stage >> s) if doubling else n for s, n in values if s != stage)
        return most_common((n for s, n in values if s == stage), others)

    return Swin(
        embed_dim=width,
        hidden_dim=most_common(n >> s for s, n in inner) or 4 * width,
        depths=_whole(width, tuple(depths[:stages])),
        num_heads=tuple(of(s, heads, True) or max((width << s) // 32, 1) for s in range(stages)),
        window_sizes=tuple(of(s, windows, False) or 7 for s in range(stages)) if version == 1 or windows else (),
        patch_size=stem_shape[2] or 4,
        in_channels=stem_shape[1] or 3,
        patch_norm=any(name.startswith("patch_embed.norm.") for name in state),
        qkv_bias=bool(names & ({"attn.q_bias", "attn.v_bias"} if version == 2 else {"attn.qkv.bias"})),
        positions=positions.shape[1] if positions is not None and len(positions.shape) > 1 else 0,
        version=version,
        final_norm=any(name.startswith("norm.") for name in state),
    )


def read_unshifted(state: StateSpec) -> Swin | None:
    """The same network with windows that are never shifted, and positions: of 224 pixels, where none are found."""
    member = read(state)
    return member and replace(member, shifted=False, positions=member.positions or (224 // member.patch_size) ** 2)


_BLOCKS = (r"layers\.\d\.", r"layers\.\d\.blocks\.\d+\.")
FAMILY = Family(
    name="Swin",
    read=read,
    targets=("mmdet", "timm", "transformers", "official"),
    stem=KERNEL,
    blocks=_BLOCKS,
    heads_shown=lambda _: True,
)
V2 = Family(
    name="SwinV2",
    read=read_v2,
    targets=("timm", "transformers", "official"),
    stem=KERNEL,
    blocks=_BLOCKS,
    heads_shown=lambda _: True,
)
UNSHIFTED = Family(
    name="MixMIM",
    read=read_unshifted,
    targets=("mmdet", "official"),
    stem=KERNEL,
    blocks=_BLOCKS,
    heads_shown=lambda _: True,
)

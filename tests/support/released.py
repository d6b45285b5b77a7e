"""Networks by their names, and what a method's file holds of one: names as in the cases, the network's own shapes.

The sizes are those of the papers; what else a network has (a class token, a last norm, …) is as in the method's case.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest

from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.eva import Eva
from ckptconv.backbones.hiera import Hiera
from ckptconv.backbones.interface import CANONICAL
from ckptconv.backbones.regnet import RegNetY
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.backbones.xcit import Xcit
from ckptconv.methods import METHODS
from ckptconv.methods.interface import Method
from ckptconv.ops import OpError
from ckptconv.planning.identify import nearest
from ckptconv.planning.matching import Move
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support.cases import cases

RESNETS = {  # blocks, bottleneck
    "18": ((2, 2, 2, 2), False),
    "50": ((3, 4, 6, 3), True),
    "101": ((3, 4, 23, 3), True),
    "200": ((3, 24, 36, 3), True),
}
VITS = {  # channels, blocks
    "S": (384, 12),
    "B": (768, 12),
    "L": (1024, 24),
    "So400m": (1152, 27),
    "H": (1280, 32),
}
MLPS = {
    "So400m": 4304
}  # elsewhere 4 times wider; gated ones two thirds of it, in multiples of 8: DINOv2's swiglu_ffn.py
GIANTS = {False: (1408, 40, 6144), True: (1536, 40, 4096)}  # I-JEPA's; DINOv2's, whose MLPs are gated
RADIO_GIANT = (1536, 40, 6144)  # timm's vit_giant_patch16_radio_v3
RADIO_TOKENS = (7, 9)  # of version 3 and 4, besides the class token
ROTARY = {  # DINOv3's and EUPE's, with MLPs that are gated or not: channels, blocks, inside the MLPs: hub/backbones.py
    ("Ti", False): (192, 12, 768),
    ("S", False): (384, 12, 1536),
    ("S", True): (384, 12, 1536),
    ("B", False): (768, 12, 3072),
    ("L", False): (1024, 24, 4096),
    ("H", True): (1280, 32, 5120),
    ("7B", True): (4096, 40, 8192),
}
HEADS_OF_7B = 32  # elsewhere a head has 64 channels
EVA02S = {  # channels, blocks, inside the MLPs: EVA-02/asuka/modeling_pretrain.py
    "Ti": (192, 12, 512),
    "S": (384, 12, 1024),
    "B": (768, 12, 2048),
    "L": (1024, 24, 2730),
}
ENCODERS = {  # Perception Encoder's: core/vision_encoder/config.py; the largest has no class token
    "Ti": (192, 12, 768),
    "S": (384, 12, 1536),
    "B": (768, 12, 3072),
    "L": (1024, 24, 4096),
    "G": (1536, 50, 8960),
}
SWINS = {"T": (96, (2, 2, 6, 2)), "S": (96, (2, 2, 18, 2)), "B": (128, (2, 2, 18, 2))}
CONVNEXTS = {
    "A": ((2, 2, 6, 2), 40),
    "F": ((2, 2, 6, 2), 48),
    "P": ((2, 2, 6, 2), 64),
    "N": ((2, 2, 8, 2), 80),
    "T": ((3, 3, 9, 3), 96),
    "S": ((3, 3, 27, 3), 96),
    "B": ((3, 3, 27, 3), 128),
    "L": ((3, 3, 27, 3), 192),
    "XL": ((3, 3, 27, 3), 256),
    "H": ((3, 3, 27, 3), 352),
}
HIERAS = {  # channels and blocks a stage, heads of the first: hiera/hiera.py
    "T": (96, (1, 2, 7, 2), 1),
    "S": (96, (1, 2, 11, 2), 1),
    "B": (96, (2, 3, 16, 3), 1),
    "B+": (112, (2, 3, 16, 3), 2),
    "L": (144, (2, 6, 36, 4), 2),
    "H": (256, (2, 6, 36, 4), 4),
}
XCITS = {"S": 384, "M": 512}
REGNETS = {  # blocks and channels a stage, channels a group: what ClassyVision builds of VISSL's configs
    "32Gf": ((2, 5, 12, 1), (232, 696, 1392, 3712), 232),
    "64Gf": ((2, 5, 12, 1), (328, 984, 1968, 4920), 328),
    "128Gf": ((2, 7, 17, 1), (528, 1056, 2904, 7392), 264),
    "256Gf": ((2, 7, 17, 1), (746, 1492, 4103, 10444), 373),
    "10B": ((2, 7, 17, 1), (2020, 4040, 11110, 28280), 1010),
}
NAMES = (
    r"(?P<kind>EVA-02)-(?P<size>\w+)/(?P<patch>\d+)",
    r"(?P<kind>PE)-(?P<size>\w+)/(?P<patch>\d+)",
    r"(?P<kind>ViT)-(?P<size>\w+)/(?P<patch>\d+), (?P<registers>\d) registers(?P<gated>, SwiGLU)?(?P<rotary>, RoPE)",
    r"(?P<kind>ResNet)-(?P<size>\d+)(, width x(?P<width>\d))?",
    r"(?P<kind>ViT)-(?P<size>\w+)/(?P<patch>\d+)(, (?P<registers>\d) registers?)?(?P<gated>, SwiGLU)?",
    r"(?P<kind>BEiT)-(?P<size>\w)/(?P<patch>\d+)",
    r"(?P<kind>Swin(V2)?)-(?P<size>\w), windows? (?P<windows>[\d-]+)",
    r"(?P<kind>Hiera)-(?P<size>[A-Z]\+?)",
    r"(?P<kind>XCiT)-(?P<size>[A-Z])(?P<depth>\d+)/(?P<patch>\d+)",
    r"(?P<kind>RegNetY)-(?P<size>\w+)",
    r"(?P<kind>ConvNeXt)( V2)?-(?P<size>\w+)(?P<unscaled>, without layer scale)?",
)


def said(name: str) -> Mapping[str, Any]:
    """What a network's name says, of its family (``kind``) and sizes."""
    (found,) = filter(None, (re.fullmatch(pattern, name) for pattern in NAMES))
    return found.groupdict()


def family(name: str) -> str:
    """The family of a network's name."""
    s = said(name)
    return "Eva" if s["kind"] in ("EVA-02", "PE") or s.get("rotary") else s["kind"]


def network(name: str, like: Any = None) -> Backbone:
    """The network of a name; what this does not say is as in ``like``, one of the same family."""
    s = said(name)
    if s["kind"] == "ResNet":
        blocks, bottleneck = RESNETS[s["size"]]
        planes = 64 * int(s["width"] or 1)
        return ResNet(blocks, bottleneck, planes, planes, planes, groups=1, stem_kernel=7, in_channels=3)
    if s["kind"].startswith("Swin"):
        width, depths = SWINS[s["size"]]
        sides = [int(side) for side in s["windows"].split("-")]
        assert isinstance(like, Swin)
        return replace(
            like,
            embed_dim=width,
            hidden_dim=4 * width,
            depths=depths,
            num_heads=tuple(width // 32 << stage for stage in range(4)),
            window_sizes=tuple(sides if len(sides) == 4 else sides * 4),
        )
    if s["kind"] == "ConvNeXt":
        depths, width = CONVNEXTS[s["size"]]
        assert isinstance(like, ConvNeXt)
        scaled = not s["unscaled"] and not like.grn
        dims = (width, 2 * width, 4 * width, 8 * width)
        return replace(like, depths=depths, embed_dims=dims, layer_scale=scaled)
    if s["kind"] == "Hiera":
        width, depths, heads = HIERAS[s["size"]]
        return Hiera(width, 4 * width, depths, heads)
    if s["kind"] == "RegNetY":
        return RegNetY(*REGNETS[s["size"]])
    patch = int(s["patch"])
    if family(name) == "Eva":
        return _rotary(s, patch, like)
    if s["kind"] == "XCiT":
        width = XCITS[s["size"]]
        return Xcit(width, int(s["depth"]), 8, 4 * width, patch)
    gated, registers = bool(s.get("gated")), int(s.get("registers") or 0)
    if s["size"] == "g":
        dim, depth, hidden = RADIO_GIANT if registers in RADIO_TOKENS else GIANTS[gated]
    else:
        dim, depth = VITS[s["size"]]
        hidden = MLPS.get(s["size"], 4 * dim)
        hidden = (hidden * 2 // 3 + 7) // 8 * 8 if gated else hidden
    if s["kind"] == "BEiT":
        assert isinstance(like, Beit)
        return replace(like, embed_dim=dim, depth=depth, hidden_dim=hidden, num_heads=dim // 64, patch_size=patch)
    vit: VisionTransformer = like or VisionTransformer(dim, depth, hidden, patch_size=16, positions=14**2)
    assert vit.grid_size is not None
    return replace(
        vit,
        embed_dim=dim,
        depth=depth,
        hidden_dim=hidden,
        patch_size=patch,
        positions=(vit.grid_size * vit.patch_size // patch) ** 2,
        num_registers=registers,
        swiglu=gated,
        layer_scale=s["size"] in "BL" if registers in RADIO_TOKENS else vit.layer_scale,
    )


def _rotary(s: Mapping[str, Any], patch: int, like: Any) -> Eva:
    """A network of DINOv3, EUPE, EVA-02 or Perception Encoder."""
    assert isinstance(like, Eva)
    if s["kind"] == "ViT":
        gated = bool(s["gated"])
        dim, depth, hidden = ROTARY[s["size"], gated]
        largest = s["size"] == "7B"  # the one without biases: hub/backbones.py
        return replace(
            like,
            embed_dim=dim,
            depth=depth,
            hidden_dim=hidden,
            patch_size=patch,
            num_registers=int(s["registers"]),
            mlp="apart" if gated else "plain",
            qkv_bias=not largest,
            rope_periods=dim // (4 * HEADS_OF_7B) if largest else 16,
        )
    dim, depth, hidden = (EVA02S if s["kind"] == "EVA-02" else ENCODERS)[s["size"]]
    return replace(
        like,
        embed_dim=dim,
        depth=depth,
        hidden_dim=hidden,
        patch_size=patch,
        class_token=s["size"] != "G",
        layer_scale=s["size"] == "G" and like.layer_scale,
    )


@dataclass(frozen=True)
class Source:
    """What an entry is made from: the names and specs in the file, the op, and the shape that this makes of them."""

    names: tuple[str, ...]
    specs: tuple[TensorSpec, ...]
    op: Any
    shape: tuple[int, ...]

    def made(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
        """The shape that sources of these shapes give; None if they do not suit."""
        parts = [TensorSpec(shape, spec.dtype) for shape, spec in zip(shapes, self.specs, strict=True)]
        if self.op is None:
            return parts[0].shape
        with contextlib.suppress(OpError):
            return tuple(self.op.spec(parts).shape)
        return None


@dataclass
class Written:
    """How a layout's files write a family: what each entry is made from, and what else is in them."""

    section: str
    like: Any
    moves: dict[str, Source] = field(default_factory=dict)
    others: dict[str, TensorSpec] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    def of(self, entry: str) -> Source | None:
        """The same for an entry of a network with other sizes: a block is written as its stage's first two are."""
        if entry in self.moves:
            return self.moves[entry]
        found = re.fullmatch(r"(.*(?:blocks|layer\d|stages\.\d|s\d)\.)(\d+)(\..*)", entry)
        if found is None:
            return None
        known = [n for n in "0123456789" if f"{found[1]}{n}{found[3]}" in self.moves][:2]
        if len(known) < 2:
            return None
        first, second = (self.moves[f"{found[1]}{n}{found[3]}"] for n in known)
        names = (_renumbered(a, b, known, found[2]) for a, b in zip(first.names, second.names, strict=True))
        return replace(second, names=tuple(names))

    def file(self, wanted: Backbone) -> dict[str, Section] | None:
        """The sections of a file that holds a network; None if the cases do not say how it is written.

        One of blocks of two layers says nothing of three. What a network can do without is there if the cases have it.
        """
        parts: dict[tuple[str, ...], list[tuple[Source, tuple[int, ...]]]] = {}  # of the same sources: a split
        for entry, shape in wanted.entries().items():
            found = self.of(entry)
            if found is not None:
                parts.setdefault(found.names, []).append((found, shape))
            elif not wanted.optional(entry):
                return None
        tensors = dict(self.others)
        for names, made in parts.items():
            shapes = _shapes(made)
            if shapes is None:
                return None
            specs = made[0][0].specs
            tensors |= {n: TensorSpec(s, spec.dtype) for n, s, spec in zip(names, shapes, specs, strict=True)}
        return {self.section: Section(tensors, self.values)}


def _renumbered(first: str, second: str, known: Sequence[str], number: str) -> str:
    """The name of a block from those of two others; one that both share stays."""
    if first == second:
        return first
    (at,) = (i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    assert [first[at], second[at]] == known
    return f"{first[:at]}{number}{first[at + 1 :]}"


def _shapes(made: Sequence[tuple[Source, tuple[int, ...]]]) -> tuple[tuple[int, ...], ...] | None:
    """The shapes of sources that give every entry its shape: each length as known, or changed as an entry's is."""
    changes = {
        (new, old)
        for source, shape in made
        if len(shape) == len(source.shape)
        for new, old in zip(shape, source.shape, strict=True)
    }

    def lengths(length: int) -> list[int]:
        scaled = [length * new // old for new, old in changes if length * new % old == 0]
        return list(dict.fromkeys([*scaled, *(length + new - old for new, old in changes), length]))

    known = made[0][0].specs
    choices = [lengths(length) for spec in known for length in spec.shape]
    for chosen in product(*choices):
        rest = iter(chosen)
        shapes = tuple(tuple(next(rest) for _ in spec.shape) for spec in known)
        if all(source.made(shapes) == shape for source, shape in made):
            return shapes
    return None


def written(method: Method, family: str) -> list[Written]:
    """How each of a method's layouts writes a family, read off its cases, whose truth `test_cases` holds."""
    named = {one.name for one in METHODS if one.layouts == method.layouts}  # for other images, with the same names
    found: dict[str, Written] = {}
    for case in cases():
        if case.method not in named or _family(case.backbone) != family:
            continue
        plan = canonical(case.sections, method, family, case.prefix)
        layout = found.setdefault(plan.layout, Written(case.section, plan.backbone, values=case.others))
        for move in plan.moves:
            layout.moves.setdefault(move.target, _source(move, case.tensors, plan.prefix))
        for name in case.dropped & set(case.tensors):
            layout.others.setdefault(name.removeprefix(plan.prefix), case.tensors[name])
    return list(found.values())


def canonical(sections: Mapping[str, Section], method: Method, family: str, prefix: str = "") -> Plan:
    """The plan that keeps the canonical names. Some families have no target that has them for each of its members."""
    asked = Options(strip_prefix=prefix, target=FAMILIES[family].targets[-1])
    with pytest.MonkeyPatch.context() as patch:
        for kind in (VisionTransformer, RegNetY, Eva, Swin):
            patch.setattr(kind, "dialect", lambda *_: CANONICAL)
        return nearest(sections, method, asked).plan


def elsewhere(method: Method, wanted: Backbone) -> Written:
    """The same for a family that no case of the method has, where its files put a prefix before every name."""
    one = next(w for kind in ("Swin", "ResNet") for w in written(method, kind))
    (prefix,) = {name.removesuffix(entry) for entry, source in one.moves.items() for name in source.names}
    moves = {
        entry: Source((f"{prefix}{entry}",), (TensorSpec(shape, DTYPES["float32"]),), None, shape)
        for entry, shape in wanted.entries().items()
    }
    return Written(one.section, wanted, moves, one.others, one.values)


def _family(name: str) -> str:
    if name.startswith(("EVA-02", "PE-")) or name.endswith("RoPE"):
        return "Eva"
    return name.partition("-")[0].partition(" ")[0]


def _source(move: Move, tensors: Mapping[str, TensorSpec], prefix: str) -> Source:
    names = tuple(name.removeprefix(prefix) for name in move.sources)
    return Source(names, tuple(tensors[name] for name in move.sources), move.op, move.spec.shape)

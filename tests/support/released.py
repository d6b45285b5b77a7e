"""Networks by their names, and what a method's file holds of one: names as in the cases, the network's own shapes.

The sizes are those of the papers; what else a network has (a class token, a last norm, …) is as in the method's case.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import pytest

from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.hiera import Hiera
from ckptconv.backbones.interface import CANONICAL
from ckptconv.backbones.regnet import RegNetY
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.backbones.xcit import Xcit
from ckptconv.methods.interface import Method
from ckptconv.ops import Chunk, OpError
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
VITS = {"S": (384, 12), "B": (768, 12), "L": (1024, 24), "So400m": (1152, 27), "H": (1280, 32)}  # channels, blocks
MLPS = {
    "So400m": 4304
}  # elsewhere 4 times wider; gated ones two thirds of it, in multiples of 8: DINOv2's swiglu_ffn.py
GIANTS = {False: (1408, 40, 6144), True: (1536, 40, 4096)}  # I-JEPA's; DINOv2's, whose MLPs are gated
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
    r"(?P<kind>ResNet)-(?P<size>\d+)(, width x(?P<width>\d))?",
    r"(?P<kind>ViT)-(?P<size>\w+)/(?P<patch>\d+)(, (?P<registers>\d) registers?)?(?P<gated>, SwiGLU)?",
    r"(?P<kind>BEiT)-(?P<size>\w)/(?P<patch>\d+)",
    r"(?P<kind>Swin)-(?P<size>\w), windows? (?P<windows>[\d-]+)",
    r"(?P<kind>Hiera)-(?P<size>[A-Z]\+?)",
    r"(?P<kind>XCiT)-(?P<size>[A-Z])(?P<depth>\d+)/(?P<patch>\d+)",
    r"(?P<kind>RegNetY)-(?P<size>\w+)",
    r"(?P<kind>ConvNeXt)( V2)?-(?P<size>\w+)(?P<unscaled>, without layer scale)?",
)


def said(name: str) -> Mapping[str, Any]:
    """What a network's name says, of its family (``kind``) and sizes."""
    (found,) = filter(None, (re.fullmatch(pattern, name) for pattern in NAMES))
    return found.groupdict()


def network(name: str, like: Any = None) -> Backbone:
    """The network of a name; what this does not say is as in ``like``, one of the same family."""
    s = said(name)
    if s["kind"] == "ResNet":
        blocks, bottleneck = RESNETS[s["size"]]
        planes = 64 * int(s["width"] or 1)
        return ResNet(blocks, bottleneck, planes, planes, planes, groups=1, stem_kernel=7, in_channels=3)
    if s["kind"] == "Swin":
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
    if s["kind"] == "XCiT":
        width = XCITS[s["size"]]
        return Xcit(width, int(s["depth"]), 8, 4 * width, patch)
    gated = bool(s.get("gated"))
    if s["size"] == "g":
        dim, depth, hidden = GIANTS[gated]
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
        num_registers=int(s["registers"] or 0),
        swiglu=gated,
    )


@dataclass
class Written:
    """How a layout's files write a family: which name, type and op each entry has, and what else is in them."""

    section: str
    like: Any
    moves: dict[str, tuple[str, TensorSpec, Any]] = field(default_factory=dict)
    others: dict[str, TensorSpec] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    def of(self, entry: str) -> tuple[str, TensorSpec, Any] | None:
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
        (at,) = (i for i, (a, b) in enumerate(zip(first[0], second[0], strict=True)) if a != b)
        assert [first[0][at], second[0][at]] == known
        return f"{first[0][:at]}{found[2]}{first[0][at + 1 :]}", first[1], first[2]

    def has(self, wanted: Backbone) -> bool:
        """Whether the cases say how this network is written: one of blocks of two layers says nothing of three."""
        return all(self.of(entry) or wanted.optional(entry) for entry in wanted.entries())

    def file(self, wanted: Backbone) -> dict[str, Section]:
        """The sections of a file that holds a network. What it can do without is there if the cases have it."""
        tensors = dict(self.others)
        for entry, shape in wanted.entries().items():
            found = self.of(entry)
            if found is None:
                continue
            name, spec, op = found
            tensors[name] = TensorSpec(next(_before(shape, spec, op)), spec.dtype)
        return {self.section: Section(tensors, self.values)}


def _before(shape: tuple[int, ...], spec: TensorSpec, op: Any) -> Iterator[tuple[int, ...]]:
    """Shapes that an op makes this one of: the same axes in other places, ones before them, a kernel's two as one."""
    if op is None:
        yield shape
        return
    candidates = [*permutations(shape), (1, *shape), (1, 1, 1, *shape), (1, shape[-1])]
    if isinstance(op, Chunk):
        candidates.append((op.of * shape[0], *shape[1:]))
    if len(shape) == 4:
        out, into, height, width = shape
        candidates += [(height * width, out), (height * width, into, out)]
    for candidate in candidates:
        with contextlib.suppress(OpError):  # it suits another one
            if len(candidate) == len(spec.shape) and op.spec([TensorSpec(candidate, spec.dtype)]).shape == shape:
                yield candidate


def written(method: Method, family: str) -> list[Written]:
    """How each of a method's layouts writes a family, read off its cases, whose truth `test_cases` holds."""
    found: dict[str, Written] = {}
    for case in cases():
        if case.method != method.name:
            continue
        if _family(case.backbone) != family:
            continue
        plan = canonical(case.sections, method, family, case.prefix)
        layout = found.setdefault(plan.layout, Written(case.section, plan.backbone, values=case.others))
        for move in plan.moves:
            layout.moves.setdefault(move.target, _written(move, case.tensors, plan.prefix))
        for name in case.dropped & set(case.tensors):
            layout.others.setdefault(name.removeprefix(plan.prefix), case.tensors[name])
    return list(found.values())


def canonical(sections: Mapping[str, Section], method: Method, family: str, prefix: str = "") -> Plan:
    """The plan that keeps the canonical names. No target of ViTs and RegNets has them for each of its members."""
    asked = Options(strip_prefix=prefix, target=FAMILIES[family].targets[-1])
    with pytest.MonkeyPatch.context() as patch:
        for kind in (VisionTransformer, RegNetY):
            patch.setattr(kind, "dialect", lambda *_: CANONICAL)
        return nearest(sections, method, asked).plan


def elsewhere(method: Method, wanted: Backbone) -> Written:
    """The same for a family that no case of the method has, where its files put a prefix before every name."""
    one = next(w for kind in ("Swin", "ResNet") for w in written(method, kind))
    (prefix,) = {name.removesuffix(entry) for entry, (name, _, _) in one.moves.items()}
    spec = TensorSpec((), DTYPES["float32"])
    moves = {entry: (f"{prefix}{entry}", spec, None) for entry in wanted.entries()}
    return Written(one.section, wanted, moves, one.others, one.values)


def _family(name: str) -> str:
    return name.partition("-")[0].partition(" ")[0]


def _written(move: Move, tensors: Mapping[str, TensorSpec], prefix: str) -> tuple[str, TensorSpec, Any]:
    (source,) = move.sources
    return source.removeprefix(prefix), tensors[source], move.op

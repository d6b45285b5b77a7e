"""The RegNetY family in nearly timm's names, as one function of blocks and channels a stage and the width of groups.

Source of names and shapes: `RegNet` of `timm/models/regnet.py` 1.0.31, and `classy_vision/models/regnet.py` of
facebookresearch/ClassyVision, which VISSL trains as SEER. timm counts the blocks of a stage from 1, this from 0.
timm builds a RegNet from the parameters of its paper (arXiv 2003.13678, section 3.3), of which this finds some that
give the blocks and channels of a file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, ClassVar

from ckptconv.backbones.blocks import depth_of
from ckptconv.backbones.interface import Dialect, Family, MissingPart, TimmModel, TransformersModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import partial, unusual
from ckptconv.backbones.resnet import BATCH_NORM, STEP_COUNTER
from ckptconv.rules import keep
from ckptconv.spec import StateSpec

Four = tuple[int, int, int, int]

_STEM = 32
_SE_RATIO = 0.25  # of a block's input channels: those inside its squeeze and excitation
_MULTIPLE = 8  # of all channels, before they are made multiples of a group's


@dataclass(frozen=True)
class Parameters:
    """What generates a RegNet: the first width, its slope and multiplier, and the width of a group.

    ``group_min_ratio`` is how much of a width must be left once it is a multiple of a group's; torchvision's is 0.9.
    """

    w0: int
    wa: float
    wm: float
    group_size: int
    depth: int
    group_min_ratio: float = 0.0

    def stages(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Blocks and channels a stage."""
        widths = []
        for block in range(self.depth):
            power = round(math.log(1 + self.wa * block / self.w0) / math.log(self.wm))
            widths.append(round(self.w0 * self.wm**power / _MULTIPLE) * _MULTIPLE)
        runs = [(width, len(list(run))) for width, run in groupby(sorted(widths))]
        return tuple(count for _, count in runs), tuple(self.whole_groups(width) for width, _ in runs)

    def whole_groups(self, width: int) -> int:
        """The multiple of a group's channels that is nearest to this width."""
        group = min(self.group_size, width)
        if not self.group_min_ratio:
            return round(width / group) * group
        nearest = max(group, int(width + group / 2) // group * group)
        return nearest + group * (nearest < self.group_min_ratio * width)


_PUBLISHED: Mapping[str, Parameters] = {
    "regnety_002": Parameters(24, 36.44, 2.49, 8, 13),
    "regnety_004": Parameters(48, 27.89, 2.09, 8, 16),
    "regnety_006": Parameters(48, 32.54, 2.32, 16, 15),
    "regnety_008": Parameters(56, 38.84, 2.4, 16, 14),
    "regnety_016": Parameters(48, 20.71, 2.65, 24, 27),
    "regnety_032": Parameters(80, 42.63, 2.66, 24, 21),
    "regnety_040": Parameters(96, 31.41, 2.24, 64, 22),
    "regnety_064": Parameters(112, 33.22, 2.27, 72, 25),
    "regnety_080": Parameters(192, 76.82, 2.19, 56, 17),
    "regnety_008_tv": Parameters(56, 38.84, 2.4, 16, 14, 0.9),
    "regnety_080_tv": Parameters(192, 76.82, 2.19, 56, 17, 0.9),
    "regnety_120": Parameters(168, 73.36, 2.37, 112, 19),
    "regnety_160": Parameters(200, 106.23, 2.48, 112, 18),
    "regnety_320": Parameters(232, 115.89, 2.53, 232, 20),
    "regnety_640": Parameters(352, 147.48, 2.4, 328, 20),
    "regnety_1280": Parameters(456, 160.83, 2.52, 264, 27),
    "regnety_2560": Parameters(640, 230.83, 2.53, 373, 27),
}
"""timm's models."""
_BASE = "regnety_032"
_SEER_10B = Parameters(1744, 620.83, 2.52, 1010, 27)
"""vissl/configs/config/pretrain/seer/models/regnet10B.yaml, for which timm has no name."""
_NAMES = {"regnety_320": "32Gf", "regnety_640": "64Gf", "regnety_1280": "128Gf", "regnety_2560": "256Gf"}
"""SEER's names of its sizes."""


@cache
def _published() -> Mapping[tuple[tuple[int, ...], tuple[int, ...], int], str]:
    """The name in timm by blocks, channels and the width of a group."""
    return {(*own.stages(), own.group_size): name for name, own in _PUBLISHED.items()}


@cache
def generating(depths: tuple[int, ...], widths: tuple[int, ...], group: int) -> Parameters | None:
    """Parameters that give these blocks and channels, as far from giving others as can be; None if none do."""
    first = range(max(widths[0] - group, _MULTIPLE) // _MULTIPLE * _MULTIPLE, widths[0] + group + 1, _MULTIPLE)
    for ratio in (0.0, 0.9):
        found = [one for w0 in first for one in _with_first_width(w0, depths, widths, group, ratio)]
        if found:
            return max(found, key=lambda one: one[0])[1]
    return None


_STEPS = 40
"""How many multipliers are tried between the smallest and the largest that may give the channels."""


def _with_first_width(
    w0: int, depths: tuple[int, ...], widths: tuple[int, ...], group: int, ratio: float
) -> Iterator[tuple[float, Parameters]]:
    """Parameters with this first width, each with how far its slope may be off: more is better."""
    if Parameters(w0, 0.0, 2.0, group, 1, ratio).whole_groups(w0) != widths[0]:
        return
    near = group + _MULTIPLE
    low = max([1.01, *(((w - near) / w0) ** (1 / i) for i, w in enumerate(widths) if i and w > near)])
    high = min(((w + near) / w0) ** (1 / i) for i, w in enumerate(widths) if i)
    for step in range(_STEPS + 1):
        wm = round(low + (high - low) * step / _STEPS, 4)
        if wm <= 1:
            continue
        least, most, block = 0.0, math.inf, 0
        for stage, depth in enumerate(depths):
            last = block + depth - 1
            if block:
                least = max(least, w0 * (wm ** (stage - 0.5) - 1) / block)
            if last:
                most = min(most, w0 * (wm ** (stage + 0.5) - 1) / last)
            block += depth
        if least < most < math.inf:
            parameters = Parameters(w0, round((least + most) / 2, 4), wm, group, sum(depths), ratio)
            if parameters.stages() == (depths, widths):
                yield most / max(least, 1e-9), parameters


@dataclass(frozen=True)
class RegNetY:
    """Blocks and channels a stage, and the channels of a group, of which a stage has as many as fit."""

    depths: Four
    embed_dims: Four
    group_size: int
    stem_channels: int = _STEM
    in_channels: int = 3

    derived: ClassVar[tuple[str, ...]] = ()
    token_dim: ClassVar[int | None] = None

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def _timm_name(self) -> str:
        return _published().get((self.depths, self.embed_dims, self.group_size), "")

    @property
    def name(self) -> str:
        known = self._timm_name
        if (self.depths, self.embed_dims) == _SEER_10B.stages():
            sizes = "10B"
        elif not known:
            sizes = f"{'-'.join(map(str, self.depths))}, {'-'.join(map(str, self.embed_dims))} channels"
        else:
            sizes = _NAMES.get(known) or f"{int(known.split('_')[1]) / 10:g}Gf"
        return f"RegNetY-{sizes}" + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        return ()

    @property
    def unusual(self) -> str:
        kind = f"RegNetY of {self.embed_dims[0]} channels in its first stage"
        return unusual(self.name, kind, self.depths, self._known_depths)

    @property
    def partial(self) -> bool:
        return partial(self.depths, self._known_depths)

    @property
    def _known_depths(self) -> tuple[tuple[int, ...], ...]:
        """The depths of published networks whose first stage is as wide."""
        known = (*((depths, widths) for depths, widths, _ in _published()), _SEER_10B.stages())
        return tuple(depths for depths, widths in known if widths[0] == self.embed_dims[0])

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        entries: dict[str, tuple[int, ...]] = {}

        def conv(name: str, out: int, into: int, kernel: int) -> None:
            entries[f"{name}.conv.weight"] = (out, into, kernel, kernel)
            entries.update({f"{name}.bn.{p}": (out,) for p in BATCH_NORM})
            entries[f"{name}.bn.num_batches_tracked"] = ()

        def layer(name: str, out: int, into: int) -> None:
            entries[f"{name}.weight"] = (out, into, 1, 1)
            entries[f"{name}.bias"] = (out,)

        conv("stem", self.stem_channels, self.in_channels, 3)
        into = self.stem_channels
        for stage, (depth, width) in enumerate(zip(self.depths, self.embed_dims, strict=True), 1):
            for block in range(depth):
                at = f"s{stage}.{block}"
                conv(f"{at}.conv1", width, into, 1)
                conv(f"{at}.conv2", width, min(self.group_size, width), 3)
                inner = round(into * _SE_RATIO)
                layer(f"{at}.se.fc1", inner, width)
                layer(f"{at}.se.fc2", width, inner)
                conv(f"{at}.conv3", width, width, 1)
                if block == 0:
                    conv(f"{at}.downsample", width, into, 1)
                into = width
        return entries

    def optional(self, name: str) -> bool:
        return name.endswith(STEP_COUNTER)

    def obstacle(self, target: str) -> str:  # noqa: ARG002 - there is one target
        if self.timm_model() is None:
            return "no width, slope and multiplier, from which timm builds a RegNet, give its channels and blocks"
        return ""

    def dialect(self, target: str) -> Dialect:  # noqa: ARG002 - there is one target
        most = max(self.depths)
        counted = (keep(f"{{s}}.{n}.{{key...}}", f"{{s}}.b{n + 1}.{{key...}}") for n in range(most))
        return Dialect((*counted, keep("stem.{key...}", "stem.{key...}")))

    def transformers_model(self) -> TransformersModel | None:
        return None

    def timm_model(self) -> TimmModel | None:
        name, arguments = self._timm_name, dict[str, Any]()
        if not name:
            parameters = generating(self.depths, self.embed_dims, self.group_size)
            if parameters is None:
                return None
            name, arguments = _BASE, {key: value for key, value in vars(parameters).items() if value}
        if self.stem_channels != _STEM:
            arguments["stem_width"] = self.stem_channels
        if self.in_channels != 3:
            arguments["in_chans"] = self.in_channels
        return TimmModel(name, arguments)


def read(state: StateSpec) -> RegNetY | None:
    """The RegNetY of which most of these shapes are, or None if the names are not a RegNetY's."""
    blocks: list[Counter[str]] = [Counter() for _ in range(4)]
    widths: list[list[int]] = [[] for _ in range(4)]
    groups: list[int] = []
    gated = False
    for name, spec in state.items():
        head, _, rest = name.partition(".")
        block, _, part = rest.partition(".")
        if head not in ("s1", "s2", "s3", "s4") or not part:
            continue
        stage = int(head[1]) - 1
        blocks[stage][block] += 1
        gated = gated or part.startswith("se.fc")
        if part.startswith(("conv", "downsample")) and spec.shape:
            widths[stage].append(spec.shape[0])
        if part == "conv2.conv.weight" and len(spec.shape) == 4:
            groups.append(spec.shape[1])
    one, two, three, four = map(depth_of, blocks)
    a, b, c, d = map(most_common, widths)
    if not gated or not groups or not all((a, b, c, d, one, two, three, four)):
        return None
    stem = state.get("stem.conv.weight")
    shape = stem.shape if stem is not None and len(stem.shape) == 4 else (_STEM, 3, 3, 3)
    return RegNetY(
        depths=(one, two, three, four),
        embed_dims=(a, b, c, d),
        group_size=max(Counter(groups)),
        stem_channels=shape[0],
        in_channels=shape[1],
    )


FAMILY = Family(
    name="RegNetY",
    read=read,
    targets=("timm",),
    stem="stem.conv.weight",
    blocks=(r"s\d\.", r"s\d\.\d+\."),
)

"""The ResNet family in torchvision's names, as one function of depth, width, groups and stem.

Source of names and shapes: `torchvision/models/resnet.py`. SwAV's RN50w2 and w4 (`src/resnet50.py`) widen stem and
planes alike; ResNeXt widens the inner convolutions of its groups. MMDetection's `ResNet` and `ResNeXt` use these names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ckptconv.backbones import resnet_targets, transformers_stages
from ckptconv.backbones.blocks import depth_of
from ckptconv.backbones.interface import Dialect, Family, MissingPart, TimmModel, TransformersModel, channels_suffix
from ckptconv.backbones.majority import most_common
from ckptconv.backbones.published_sizes import partial, resnets, unusual
from ckptconv.spec import StateSpec

_DEPTHS = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
    (True, (3, 24, 36, 3)): 200,
}
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
STEP_COUNTER = ".num_batches_tracked"
"""How the names of batch norm's step counters end: no file needs them."""


@dataclass(frozen=True)
class ResNet:
    """Blocks a stage, and channels: of the stem, of the first stage's planes and of its inner convolutions."""

    depths: tuple[int, int, int, int]
    bottleneck: bool
    stem_channels: int
    planes: int
    inner_channels: int
    groups: int
    stem_kernel: int
    in_channels: int

    derived: ClassVar[tuple[str, ...]] = ("layers",)
    token_dim: ClassVar[int | None] = None

    @property
    def family(self) -> str:
        return FAMILY.name

    @property
    def layers(self) -> int | None:
        """18, 34, 50, 101, 152 or 200; None for blocks that have no such name."""
        return _DEPTHS.get((self.bottleneck, self.depths))

    @property
    def name(self) -> str:
        depth = str(self.layers) if self.layers else "-".join(map(str, self.depths))
        name = f"ResNe{'X' if self.groups > 1 else ''}t-{depth}"
        if self.groups > 1:
            name += f" {self.groups}x{self.inner_channels // self.groups}d"
        elif self.inner_channels != self.planes:
            name += f", inner width x{self.inner_channels / self.planes:g}"
        elif self.planes != 64:
            name += f", width x{self.planes / 64:g}"
        return name + channels_suffix(self.in_channels)

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        return ()

    @property
    def unusual(self) -> str:
        kind = f"ResNet of {'bottleneck' if self.bottleneck else 'basic'} blocks"
        return unusual(self.name, kind, self.depths, resnets(self.bottleneck))

    @property
    def partial(self) -> bool:
        return partial(self.depths, resnets(self.bottleneck))

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        entries: dict[str, tuple[int, ...]] = {}

        def conv(name: str, out: int, into: int, kernel: int) -> None:
            entries[f"{name}.weight"] = (out, into, kernel, kernel)

        def norm(name: str, channels: int) -> None:
            entries.update({f"{name}.{p}": (channels,) for p in BATCH_NORM})
            entries[f"{name}.num_batches_tracked"] = ()

        conv("conv1", self.stem_channels, self.in_channels, self.stem_kernel)
        norm("bn1", self.stem_channels)
        into = self.stem_channels
        for stage, blocks in enumerate(self.depths):
            planes, inner = self.planes << stage, self.inner_channels << stage
            out = planes * 4 if self.bottleneck else planes
            for block in range(blocks):
                at = f"layer{stage + 1}.{block}."
                layers: tuple[tuple[int, int, int], ...]
                if self.bottleneck:
                    layers = ((inner, into, 1), (inner, inner // self.groups, 3), (out, inner, 1))
                else:
                    layers = ((planes, into, 3), (planes, planes, 3))
                for i, (channels, fan_in, kernel) in enumerate(layers, 1):
                    conv(f"{at}conv{i}", channels, fan_in, kernel)
                    norm(f"{at}bn{i}", channels)
                if block == 0 and (stage > 0 or into != out):
                    conv(f"{at}downsample.0", out, into, 1)
                    norm(f"{at}downsample.1", out)
                into = out
        return entries

    def optional(self, name: str) -> bool:
        """Only the step counters of batch norm, which matter where momentum is None: never here."""
        return name.endswith(STEP_COUNTER)

    def obstacle(self, target: str) -> str:
        return resnet_targets.obstacle(self, target)

    def dialect(self, target: str) -> Dialect:
        return resnet_targets.dialect(target)

    def timm_model(self) -> TimmModel | None:
        return resnet_targets.timm_model(self)

    def transformers_model(self) -> TransformersModel | None:
        return transformers_stages.resnet_model(self)


def _whole(bottleneck: bool, found: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Blocks a stage; where a stage is missing altogether, as many as the known network has that fits the others."""
    known = next(
        (
            blocks
            for kind, blocks in _DEPTHS
            if kind == bottleneck and all(n in (0, wanted) for n, wanted in zip(found, blocks, strict=True))
        ),
        (1, 1, 1, 1),
    )
    one, two, three, four = (n or wanted for n, wanted in zip(found, known, strict=True))
    return one, two, three, four


def read(state: StateSpec) -> ResNet | None:
    """The ResNet of which most of these shapes are, or None if the names are not a ResNet's."""
    stages: list[dict[str, tuple[int, ...]]] = [{} for _ in range(4)]
    blocks_seen: list[Counter[str]] = [Counter() for _ in range(4)]
    for name, spec in state.items():
        head, _, rest = name.partition(".")
        if head in ("layer1", "layer2", "layer3", "layer4") and rest:
            stage = int(head[5]) - 1
            blocks_seen[stage][rest.partition(".")[0]] += 1
            stages[stage][rest] = spec.shape
    stem = state.get("conv1.weight")
    if not any(rest.endswith(".conv2.weight") for entries in stages for rest in entries):
        return None

    def channels(conv: str, axis: int) -> list[int]:
        return [
            shape[axis] >> stage
            for stage, entries in enumerate(stages)
            for rest, shape in entries.items()
            if rest.endswith(f".{conv}.weight") and len(shape) == 4
        ]

    bottleneck = bool(channels("conv3", 0))
    planes = most_common(n // 4 for n in channels("conv3", 0)) if bottleneck else most_common(channels("conv2", 0))
    inner = most_common(channels("conv1", 0)) if bottleneck else planes
    per_group = most_common(channels("conv2", 1))
    stem_shape = stem.shape if stem is not None and len(stem.shape) == 4 else (0, 0, 0, 0)
    stem_channels = most_common(
        spec.shape[0] for name, spec in state.items() if name.startswith(("conv1.", "bn1.")) and spec.shape
    )
    if not (planes and inner and per_group):
        return None
    blocks = _whole(bottleneck, tuple(map(depth_of, blocks_seen)))
    return ResNet(
        depths=blocks,
        bottleneck=bottleneck,
        stem_channels=stem_channels or planes,
        planes=planes,
        inner_channels=inner,
        groups=max(inner // per_group, 1),
        stem_kernel=stem_shape[2] or 7,
        in_channels=stem_shape[1] or 3,
    )


FAMILY = Family(
    name="ResNet",
    read=read,
    targets=("mmdet", "torchvision", "timm", "detectron2", "transformers", "official"),
    stem="conv1.weight",
    blocks=(r"layer\d\.", r"layer\d\.\d+\."),
)

RESNET50 = ResNet((3, 4, 6, 3), True, 64, 64, 64, 1, 7, 3)
"""torchvision's own, which published rows are about."""

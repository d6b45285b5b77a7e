"""A converted checkpoint as a config needs it: network, method, pixels, fingerprint. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ckptconv.arguments import argument
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.conversion.converted import Converted
from ckptconv.conversion.fingerprint import fingerprint
from ckptconv.conversion.transform import as_they_are
from ckptconv.errors import UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods.interface import Licence, Pixels
from ckptconv.mmdetection.config.backbone_args import network
from ckptconv.mmdetection.config.network import Network
from ckptconv.mmdetection.hints import convert_command, raw_method
from ckptconv.planning.heads import has_unknown_heads
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate


@dataclass(frozen=True)
class Pretrained:
    """A converted checkpoint; ``path`` is where it is, as the user said it.

    ``selected_channels`` says that its channels were chosen, and are perhaps no red, green and blue. ``licence`` is
    what the file says of the weights' licence.
    """

    path: str
    format: str
    method: str
    backbone: Backbone
    network: Network
    pixels: Pixels | None
    fingerprint: str
    selected_channels: bool = False
    licence: Licence | None = None

    @property
    def in_channels(self) -> int:
        """Those of the images that the network takes."""
        return self.backbone.in_channels

    @property
    def colour(self) -> bool:
        """Whether these are red, green and blue."""
        return self.in_channels == 3 and not self.selected_channels


def pretrained(path: str | Path) -> Pretrained:
    """What a file that `convert` wrote says of itself, and what its tensors say.

    Raises UsageError for a file that ckptconv did not write, or wrote for another target, and for what is no file.
    """
    found, path = locate(path, Fetching()), str(path)
    if not isinstance(found.path, Path):
        raise UsageError(
            f"{found.label} is no file here, and a config names one that convert wrote",
            f"Convert it first: {convert_command(found.label, None)[0]}",
        )
    with open_checkpoint(found.path) as checkpoint:
        converted = Converted.read(checkpoint)
        origin, backbone = converted.origin, converted.backbone
        if origin is None:
            raise _not_converted(path, checkpoint)
        if backbone is None:
            assert converted.error is not None
            raise converted.error
        if has_unknown_heads(backbone):
            raise UsageError(
                f"no one knows how many attention heads {backbone.name} has: no tensor of {path} shows it, and no "
                f"published network has {getattr(backbone, 'embed_dim', 0)} channels",
                f"Convert it again from its source, with the number: {argument('num_heads', 'N')}.",
            )
        whose = "" if origin.also else origin.method
        built = network(backbone, origin.target, origin.hyperparameters, origin.timm, whose)
        if built is None and origin.target != FAMILIES[backbone.family].targets[0]:
            raise UsageError(
                f"{path} was written for {origin.target}, not for MMDetection",
                f"Convert it again from its source, without {argument('target')}.",
            )
        if built is None and getattr(backbone, "grid_size", 0) is None:
            raise UsageError(
                f"{backbone.name} has {getattr(backbone, 'positions', 0)} positions, which are not a square grid: "
                "the sides of its images are unknown",
                "Take a ViT with a square grid, such as MAE's or DINO's.",
            )
        if built is None:
            raise UsageError(
                f"no class that emit-config knows builds {backbone.name}",
                "Write its class into the config yourself; ckptconv check CONFIG proves it.",
            )
        mark = fingerprint(as_they_are(converted.section, checkpoint))
        return Pretrained(
            path,
            checkpoint.format,
            origin.method,
            backbone,
            built,
            origin.pixels,
            mark,
            origin.selected_channels,
            origin.licence,
        )


def _not_converted(path: str, checkpoint: Checkpoint) -> UsageError:
    method = raw_method(checkpoint)
    what = f"a raw checkpoint of {method.name}" if method else "no file of ckptconv: it says neither method nor network"
    return UsageError(f"{path} is {what}", f"Convert it first: {convert_command(path, method)[0]}")

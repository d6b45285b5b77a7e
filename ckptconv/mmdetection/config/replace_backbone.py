"""Replaces the backbone of a base by a network other than a ResNet. Pure; imports no torch.

A network with one map per stage replaces any backbone. One with a single map replaces a backbone with a single map.
ViTDet's ViT replaces nothing: the base already has a ViT, whose sizes change.
"""

from __future__ import annotations

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.checkpoint import Pretrained
from ckptconv.mmdetection.config.detectors import Detector, among
from ckptconv.mmdetection.config.edits import ABSENT, Changes
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.type_names import has_type

_AT = "model.backbone"


def place(changes: Changes, detector: Detector, found: Pretrained, choices: Choices) -> None:
    """Add the network to the changes. Raises UsageError if it cannot be the detector's backbone."""
    net = found.network
    if choices.norm != "SyncBN":
        raise UsageError(
            f"{argument('norm', choices.norm)}: {found.backbone.name} does not have batch norm", "Leave it out.", "norm"
        )
    if net.stands_on:
        _adapt(changes, detector, found)
        return
    if net.stride:
        _on_one_map(changes, detector, found)
    else:
        _by_stages(changes, detector, found, choices)
    if choices.frozen_stages is not None:
        changes.set(f"{_AT}.frozen_stages", choices.frozen_stages)
    changes.set(f"{_AT}.init_cfg", {"type": "Pretrained", "checkpoint": found.path, **net.init})


def _by_stages(changes: Changes, detector: Detector, found: Pretrained, choices: Choices) -> None:
    """The backbone outputs only the stages that the neck uses: the others would get no gradient."""
    net, first = found.network, detector.start_level
    if max(detector.backbone.get("dilations", (1,))) > 1:
        raise UsageError(
            f"{choices.base} has its strides from dilations, which {found.backbone.name} does not have",
            f"Choose a detector with FPN: {argument('detector', 'mask-rcnn')}",
        )
    taken = next((t for t in detector.widths.values()), (0, 1, 2, 3))
    stages = (taken if isinstance(taken, tuple) else (taken,))[first:]
    changes.set(f"{_AT}._delete_", True)
    for key, value in {**net.arguments, "out_indices": list(stages)}.items():
        changes.set(f"{_AT}.{key}", value)
    for path, taken in detector.widths.items():
        changes.set(path, among(net.channels, taken[first:] if isinstance(taken, tuple) else taken))
    if first:
        changes.set("model.neck.start_level", 0)


def _on_one_map(changes: Changes, detector: Detector, found: Pretrained) -> None:
    """Anchors and RoIs get the stride of the map, too."""
    net, stages = found.network, detector.backbone.get("out_indices", (0, 1, 2, 3))
    if detector.shared_head or (not isinstance(stages, int) and len(stages) != 1):
        raise _one_map(
            detector,
            found,
            f"For a pyramid of maps, convert it with {argument('target', 'vitdet')}. "
            f"For one map, give a config such as: {argument('base', net.base)}",
        )
    changes.set(f"{_AT}._delete_", True)
    for key, value in net.arguments.items():
        changes.set(f"{_AT}.{key}", value)
    for path, taken in detector.widths.items():
        changes.set(path, among(net.channels, taken))
    for path in detector.strides:
        if list(changes.had(path)) != [net.stride]:
            changes.set(path, [net.stride])


def _adapt(changes: Changes, detector: Detector, found: Pretrained) -> None:
    """The base's own network with this one's sizes: its other arguments belong to the detector."""
    net, had = found.network, detector.backbone
    if not has_type(had, net.stands_on):
        raise _one_map(
            detector,
            found,
            "Give a config of ViTDet, from a clone of MMDetection: "
            f"{argument('base', 'projects/ViTDet/configs/FILE.py')}",
        )
    for key, value in net.arguments.items():
        if key != "type" and had.get(key) != value:
            put = changes.put if isinstance(value, dict) else changes.set
            put(f"{_AT}.{key}", value)
    changes.put(f"{_AT}.init_cfg", {"type": "Pretrained", "checkpoint": found.path, **net.init})
    for path, taken in detector.widths.items():
        changes.set(path, among(net.channels, taken))
    if changes.had("model.neck.backbone_channel") not in (ABSENT, net.channels[-1]):
        changes.set("model.neck.backbone_channel", net.channels[-1])


def _one_map(detector: Detector, found: Pretrained, hint: str) -> UsageError:
    name = found.backbone.name
    return UsageError(f"{name} gives one map of features, which {detector.title} cannot use", hint)

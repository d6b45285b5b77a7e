"""Replaces the backbone of a base by a network other than a ResNet. Pure; imports no torch.

A network with one map per stage replaces any backbone. One with a single map replaces a backbone with a single map, and
any other where a pyramid is made of that map. ViTDet's ViT replaces nothing: the base already has a ViT, whose sizes
change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.checkpoint import Pretrained
from ckptconv.mmdetection.config.detectors import Detector, among
from ckptconv.mmdetection.config.edits import ABSENT, Changes
from ckptconv.mmdetection.config.network import Network
from ckptconv.mmdetection.config.options import NORMS, Choices
from ckptconv.mmdetection.config.pyramid import add_pyramid
from ckptconv.mmdetection.type_names import has_type

_AT = "model.backbone"
_FROZEN = (
    "Only the neck and the heads are trained. DINOv3's own detector is trained so, with a ViT-7B and a large decoder "
    "(arXiv:2508.10104). No AP is published for a small frozen backbone with this neck."
)

_NORM = "The map before the last norm, as the method's own detectors take it."


def place(changes: Changes, detector: Detector, found: Pretrained, choices: Choices) -> None:
    """Add the network to the changes. Raises UsageError if it cannot be the detector's backbone."""
    net = found.network
    if net.sync_bn:
        _batch_norm(changes, found, choices)
    elif choices.norm != "SyncBN":
        raise UsageError(
            f"{argument('norm', choices.norm)}: {found.backbone.name} does not have batch norm", "Leave it out.", "norm"
        )
    if net.stands_on:
        _adapt(changes, detector, found)
        return
    if net.of_timm and detector.shared_head:
        _without_shared_head(changes, detector, found)
    elif net.pyramid and not _gives_one_map(detector):
        _set_backbone(changes, net.arguments)
        add_pyramid(changes, detector, net.channels[-1], net.stride)
    elif net.stride:
        _on_one_map(changes, detector, found)
    else:
        _by_stages(changes, detector, found, choices)
    _freeze(changes, net, choices)
    changes.set(f"{_AT}.init_cfg", {"type": "Pretrained", "checkpoint": found.path, **net.init})


def _set_backbone(changes: Changes, arguments: Mapping[str, Any]) -> None:
    changes.set(f"{_AT}._delete_", True)
    for key, value in arguments.items():
        changes.set(f"{_AT}.{key}", value, _NORM if key == "norm" else "")


def _batch_norm(changes: Changes, found: Pretrained, choices: Choices) -> None:
    """Batch norm that the runner synchronises over GPUs: timm's classes have no argument for it.

    Source: `Runner.wrap_model` of mmengine/runner/runner.py, 0.10.7.
    """
    if choices.norm == "frozen":
        raise UsageError(
            f"{argument('norm', 'frozen')}: {found.backbone.name} of timm trains its batch norm",
            f"Leave it out, or freeze the whole backbone: {argument('freeze', 'all')}",
            "norm",
        )
    if choices.norm == "SyncBN":
        changes.set("sync_bn", "torch", NORMS["SyncBN"][2])


def _freeze(changes: Changes, net: Network, choices: Choices) -> None:
    if choices.frozen_stages is not None and net.of_timm:
        raise UsageError(
            f"{argument('frozen_stages', choices.frozen_stages)} is for networks of MMDetection",
            f"For this one: {argument('freeze', 'all')}, or a number of blocks",
            "frozen_stages",
        )
    if net.of_timm:
        if choices.freeze not in (None, "none"):
            frozen = choices.freeze if choices.freeze == "all" else int(str(choices.freeze))
            if frozen != "all" and int(frozen) > net.depth:
                has = f"the network has {net.depth} blocks" if net.depth else "a network of stages is frozen as a whole"
                fewer = f"Give 0 to {net.depth}, or {argument('freeze', 'all')}"
                raise UsageError(
                    f"{argument('freeze', choices.freeze)}: {has}",
                    fewer if net.depth else f"Give {argument('freeze', 'all')} or {argument('freeze', 'none')}",
                    "freeze",
                )
            changes.set(f"{_AT}.frozen", frozen, _FROZEN if frozen == "all" else "")
            if frozen == "all" and "drop_path_rate" in net.arguments:
                changes.set(f"{_AT}.drop_path_rate", 0.0)
    elif choices.frozen is not None:
        changes.set(f"{_AT}.frozen_stages", choices.frozen)


def _without_shared_head(changes: Changes, detector: Detector, found: Pretrained) -> None:
    """A C4 detector whose backbone gives one map of stride 16: the head that was a ResNet's last stage goes."""
    net = found.network
    arguments = dict(net.arguments) if net.stride else {**net.arguments, "out_indices": [2]}
    _set_backbone(changes, arguments)
    changes.set(detector.shared_head, None, "It is the last stage of a ResNet: RoIs of the map go to the heads.")
    for path in detector.widths:
        changes.set(path, net.channels[2])
    changes.set("model.roi_head.bbox_roi_extractor.roi_layer.output_size", 7)
    _one_stride(changes, detector, net.stride or 16)


def _one_stride(changes: Changes, detector: Detector, stride: int) -> None:
    """Anchors and RoIs get the stride of the map; MMDetection's own C4 has 16."""
    for path in detector.strides:
        had = changes.had(path)
        if stride != 16 if had is ABSENT else list(had) != [stride]:
            changes.set(path, [stride])


def _gives_one_map(detector: Detector) -> bool:
    stages = detector.backbone.get("out_indices", (0, 1, 2, 3))
    return not detector.shared_head and (isinstance(stages, int) or len(stages) == 1)


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
    _set_backbone(changes, {**net.arguments, "out_indices": list(stages)})
    for path, taken in detector.widths.items():
        changes.set(path, among(net.channels, taken[first:] if isinstance(taken, tuple) else taken))
    if first:
        changes.set("model.neck.start_level", 0)


def _on_one_map(changes: Changes, detector: Detector, found: Pretrained) -> None:
    """Anchors and RoIs get the stride of the map, too."""
    net = found.network
    if not _gives_one_map(detector):
        raise _one_map(
            detector,
            found,
            f"For a pyramid of maps, convert it with {argument('target', 'vitdet')}. "
            f"For one map, give a config such as: {argument('base', net.base)}",
        )
    _set_backbone(changes, net.arguments)
    for path, taken in detector.widths.items():
        changes.set(path, among(net.channels, taken))
    _one_stride(changes, detector, net.stride)


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

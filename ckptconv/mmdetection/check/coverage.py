"""The parts of a detector's backbones that no checkpoint explains.

A parameter of a backbone whose values tell anything (`match_by_value.telling`) is equal to a file's, or its module's
report says why not, or it is in a gap. Knows torch; judges by structure and by a second start from other random
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ckptconv import backbones
from ckptconv.proof.match_by_value import telling
from ckptconv.proof.tensors import specs

_LAYERS = ("torch.nn.", "mmcv.cnn.bricks.", "mmcv.ops.")
"""Where single layers are from: they are not networks, though their names may say so."""


@dataclass(frozen=True)
class Gap:
    """A part of a backbone, or all of it, that no file explains.

    ``class_name``: its class. ``names``: its parameters whose values tell something, by their full names. ``random``:
    whether they change with the random numbers of the start. ``network``: the network that it is by itself, or ''.
    ``whole``: nothing of the backbone is explained.
    """

    path: str
    class_name: str
    names: tuple[str, ...]
    random: bool
    network: str
    whole: bool


def backbone_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The outermost modules that are backbones: named so, or of a class in a package's folder of backbones."""
    outermost: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in (*outermost, "language_model"))
        if path and not inside and _is_backbone(path, module):
            outermost.append(path)
            yield path, module


def _is_backbone(path: str, module: torch.nn.Module) -> bool:
    if isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict | torch.nn.Sequential):
        return False
    name = path.rpartition(".")[2]
    if ".necks." in type(module).__module__ or type(module).__module__.startswith(_LAYERS):
        return False
    return "backbone" in name or ".backbones." in type(module).__module__


def gaps(
    model: torch.nn.Module,
    explained: Collection[str],
    proved: Collection[str],
    loaded: Collection[str],
    other_start: Callable[[], Mapping[str, Any]],
) -> list[Gap]:
    """The parts that nothing explains.

    ``explained``: full names of entries that are equal, or that a report explains; ``proved``: of those that are equal;
    ``loaded``: paths of the modules that start from a file; ``other_start``: the entries after another start.
    """
    parameters = dict(model.named_parameters())
    parts: dict[tuple[str, bool], list[str]] = {}
    for root, _ in backbone_modules(model):
        inside = [name for name in parameters if name.startswith(f"{root}.")]
        whole = not any(name in explained for name in inside)
        for name in inside:
            if name in explained or not telling(parameters[name]):
                continue
            path, around = (root, "") if whole else _part(name, root, explained)
            if _is_neck(model, path):
                continue
            if whole or around in (root, *loaded) or _is_large(model, path, around, proved):
                parts.setdefault((path, whole), []).append(name)
    other = other_start() if parts else {}
    gaps = []
    for (path, whole), names in parts.items():
        module = model.get_submodule(path)
        changes = [name for name in names if name in other and not torch.equal(other[name], parameters[name])]
        entries = specs(module)
        backbone = None if any(f"{path}.{name}" in proved for name in entries) else backbones.read(entries)
        network = backbone.name if backbone else ""
        gaps.append(Gap(path, type(module).__name__, tuple(names), 2 * len(changes) > len(names), network, whole))
    return gaps


def _part(name: str, root: str, explained: Collection[str]) -> tuple[str, str]:
    """The largest module with a parameter, below the root, in which nothing is explained, and what is around it.

    If there is none, the parameter's own module, twice.
    """
    steps = name.split(".")
    for i in range(root.count(".") + 2, len(steps)):
        path = ".".join(steps[:i])
        if not any(other.startswith(f"{path}.") for other in explained):
            return path, path.rpartition(".")[0]
    return name.rpartition(".")[0], name.rpartition(".")[0]


def _is_neck(model: torch.nn.Module, path: str) -> bool:
    """Whether it is a neck, which always starts from random values."""
    kind: type = type(model.get_submodule(path))
    return ".necks." in kind.__module__


def _is_large(model: torch.nn.Module, path: str, around: str, proved: Collection[str]) -> bool:
    """Whether a part without a file is larger than what a network's blocks add to those of the plain network.

    Such are the attention of GCNet and the offsets of deformable convolutions: smaller than the block they are in.
    """
    sizes = {name: value.numel() for name, value in model.get_submodule(around).named_parameters()}
    inner = "" if path == around else f"{path.removeprefix(f'{around}.')}."
    mine = sum(size for name, size in sizes.items() if name.startswith(inner) and f"{around}.{name}" not in proved)
    return bool(mine > sum(size for name, size in sizes.items() if f"{around}.{name}" in proved))

"""What of a detector's backbones no checkpoint explains.

Every parameter below a backbone that tells anything (`by_value.telling`) is equal to a file's, or its report says why
not, or it is found here. Knows torch; judges by structure and by a second start from other random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ckptconv import backbones
from ckptconv.mmdetection.check.by_value import telling
from ckptconv.spec import DTYPES, TensorSpec

_LAYERS = ("torch.nn.", "mmcv.cnn.bricks.", "mmcv.ops.")
"""Where single layers are from: whatever their names, they are no networks."""


@dataclass(frozen=True)
class Gap:
    """A part of a backbone, or all of it, that no file explains.

    ``names``: its parameters that tell something, by their full names. ``random``: whether they change with the random
    numbers of the start. ``network``: the network that it is by itself, or ''. ``whole``: nothing of the backbone is
    explained.
    """

    path: str
    kind: str
    names: tuple[str, ...]
    random: bool
    network: str
    whole: bool


def roots(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The outermost modules that are backbones: called so, or of a class that a package has among its backbones."""
    found: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in (*found, "language_model"))
        if path and not inside and _is_backbone(path, module):
            found.append(path)
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
    sites: Collection[str],
    again: Callable[[], Mapping[str, Any]],
) -> list[Gap]:
    """The parts that nothing explains.

    ``explained``: full names of what is equal, or what a report has a word for; ``proved``: of what is equal;
    ``sites``: paths of the modules that start from a file; ``again``: the entries after another start.
    """
    parameters = dict(model.named_parameters())
    parts: dict[tuple[str, bool], list[str]] = {}
    for root, _ in roots(model):
        inside = [name for name in parameters if name.startswith(f"{root}.")]
        whole = not any(name in explained for name in inside)
        for name in inside:
            if name in explained or not telling(parameters[name]):
                continue
            path, around = (root, "") if whole else _part(name, root, explained)
            if _is_neck(model, path):
                continue
            if whole or around in (root, *sites) or _is_large(model, path, around, proved):
                parts.setdefault((path, whole), []).append(name)
    other = again() if parts else {}
    found = []
    for (path, whole), names in parts.items():
        module = model.get_submodule(path)
        changes = [name for name in names if name in other and not torch.equal(other[name], parameters[name])]
        specs = _specs(module)
        network = None if any(f"{path}.{name}" in proved for name in specs) else backbones.read(specs)
        alike = network.name if network else ""
        found.append(Gap(path, type(module).__name__, tuple(names), 2 * len(changes) > len(names), alike, whole))
    return found


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
    """Whether it is a neck, which starts from random numbers as every neck does."""
    kind: type = type(model.get_submodule(path))
    return ".necks." in kind.__module__


def _is_large(model: torch.nn.Module, path: str, around: str, proved: Collection[str]) -> bool:
    """Whether a part without a file is more than what a network's blocks have beside those of the plain network.

    Such are the attention of GCNet and the offsets of deformable convolutions: smaller than the block they are in.
    """
    sizes = {name: value.numel() for name, value in model.get_submodule(around).named_parameters()}
    inner = "" if path == around else f"{path.removeprefix(f'{around}.')}."
    mine = sum(size for name, size in sizes.items() if name.startswith(inner) and f"{around}.{name}" not in proved)
    return bool(mine > sum(size for name, size in sizes.items() if f"{around}.{name}" in proved))


def _specs(module: torch.nn.Module) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(tuple(value.shape), DTYPES[str(value.dtype).removeprefix("torch.")])
        for name, value in module.state_dict().items()
    }

"""Every module that starts from a file, and which of its entries: what ``init_cfg`` says, and what classes do by code.

Knows torch; judges nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ckptconv.conversion.converted import Converted
from ckptconv.errors import CkptconvError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection.check.compare import compare
from ckptconv.mmdetection.check.coverage import backbone_modules
from ckptconv.mmdetection.check.downloads import LocalCheckpoint
from ckptconv.mmdetection.check.init_cfg import LoadedModule
from ckptconv.mmdetection.check.reading import provided
from ckptconv.proof.match_by_value import telling

Loaded = list[tuple[LoadedModule, frozenset[str]]]
"""The modules, and the entries of each that another file decides."""


def complete(
    model: torch.nn.Module,
    by_init_cfg: Sequence[LoadedModule],
    local: dict[str, LocalCheckpoint],
    opened: Sequence[str],
    load_from: str,
) -> Loaded:
    """The modules whose ``init_cfg`` names a file, and those that a backbone's class loads by its own code.

    ``local`` are the files of the first; those of the others are added to it. ``opened``: what was read while the
    detector was built and initialised; ``load_from``: what was loaded over it, or ''.
    """
    loaded = _in_effect(model, by_init_cfg, local)
    paths = [module.path for module in by_init_cfg]
    for path, backbone in backbone_modules(model):
        if any(f"{path}.".startswith(f"{known}." if known else "") for known in paths):
            continue
        parts = [(path, backbone)]
        if any(known.startswith(f"{path}.") for known in paths):
            parts = [(f"{path}.{name}", child) for name, child in backbone.named_children()]
            parts = [(at, child) for at, child in parts if not any(f"{p}.".startswith(f"{at}.") for p in paths)]
        for at, part in parts:
            loaded += [(one, frozenset()) for one in _by_code(at, part, list(_files(opened, local)), load_from)]
    return loaded


def _in_effect(model: torch.nn.Module, modules: Sequence[LoadedModule], local: Mapping[str, LocalCheckpoint]) -> Loaded:
    """The modules whose file decides anything: what a later one loads over an earlier one is the later one's."""
    if len(modules) < 2 and not any(_holds_backbones(model, module) for module in modules):
        return [(module, frozenset()) for module in modules]
    given = []
    for module in modules:
        file = local[module.checkpoint]
        with open_checkpoint(file.path) as checkpoint:
            given.append({module.full_name(name) for name in provided(module, checkpoint, file.converted)})
    backbones = [f"{path}." for path, _ in backbone_modules(model)]
    loaded: Loaded = []
    for i, module in enumerate(modules):
        later, earlier = set().union(*given[i + 1 :]), set().union(*given[:i])
        if given[i] and given[i] <= later:
            continue
        names = {name: module.full_name(name) for name in module.specs}
        others = {name for name, full in names.items() if full in later or full in earlier - given[i]}
        if _holds_backbones(model, module):  # a detector's: of its heads, those that fit
            others |= {
                name for name, full in names.items() if full not in given[i] and not full.startswith(tuple(backbones))
            }
        loaded.append((module, frozenset(others)))
    return loaded


def _holds_backbones(model: torch.nn.Module, module: LoadedModule) -> bool:
    inside = f"{module.path}." if module.path else ""
    return any(path.startswith(inside) and path != module.path for path, _ in backbone_modules(model))


def _files(opened: Sequence[str], local: dict[str, LocalCheckpoint]) -> Iterator[LocalCheckpoint]:
    """The checkpoints among the files that were opened."""
    for name in opened:
        path = Path(name).expanduser()
        if name not in local and path.is_file():
            with contextlib.suppress(CkptconvError), open_checkpoint(path) as checkpoint:
                local[name] = LocalCheckpoint(name, name, path, Converted.read(checkpoint))
        if name in local:
            yield local[name]


def _by_code(
    path: str, module: torch.nn.Module, files: Sequence[LocalCheckpoint], load_from: str
) -> list[LoadedModule]:
    """The file that a module holds most of; of its parts, if those hold more by themselves."""
    best, most, whole = _best(path, module, files, load_from)
    if whole:
        return [best] if best else []
    parts = []
    count = 0
    streams = [(name, child) for name, child in module.named_children() if _is_network(child)]
    for name, child in streams:
        part, equal, _ = _best(f"{path}.{name}", child, files, load_from)
        count += equal
        parts += [part] if part else []
    return parts if count > most else [best] if best else []


def _is_network(module: torch.nn.Module) -> bool:
    """Whether a part of a backbone is a model by itself, as one of two streams is, or has one inside."""
    from mmdet.registry import MODELS

    kinds = [type(one) for one in (module, *module.children())]
    own = [kind for kind in kinds if not kind.__module__.startswith(("torch.", "mmcv."))]
    return any(MODELS.get(kind.__name__) is kind for kind in own)


def _best(
    path: str, torch_module: torch.nn.Module, files: Sequence[LocalCheckpoint], load_from: str
) -> tuple[LoadedModule | None, int, bool]:
    """The module with the file that most of its values are from, how many, and whether these are all."""
    telling_names = {name for name, value in torch_module.state_dict().items() if telling(value)}
    best, most = None, 0
    for file in files:
        over = file.name == load_from
        module = LoadedModule(
            path, torch_module, file.name, f"{path}." if over else "", "load_from" if over else "code"
        )
        try:
            with open_checkpoint(file.path) as checkpoint:
                comparison = compare(module, checkpoint, file.converted, ())
        except CkptconvError:
            continue
        equal = len(telling_names.intersection((*comparison.equal, *comparison.same_numbers)))
        if equal > most:
            best, most = module, equal
    return best, most, most == len(telling_names) and best is not None

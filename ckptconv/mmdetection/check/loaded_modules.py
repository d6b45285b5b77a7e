"""Every module that starts from a file, and which of its entries: what the config says, and what classes do by code.

Knows torch; judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from ckptconv.errors import CkptconvError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection.check.by_value import telling
from ckptconv.mmdetection.check.compare import Site, compare, provided
from ckptconv.mmdetection.check.coverage import roots
from ckptconv.mmdetection.check.downloads import Held

Found = list[tuple[Site, frozenset[str]]]
"""The sites, and the entries of each that another one decides."""


def complete(model: torch.nn.Module, said: list[Site], held: dict[str, Held], opened: list[str], over: str) -> Found:
    """The sites that a config names, and those of files that a backbone's class reads without being told to.

    ``held`` are the files of the sites; those of others are added to it. ``opened``: what was read while the detector
    was built and initialised; ``over``: what was loaded over it, or ''.
    """
    found = _in_effect(model, said, held)
    paths = [site.path for site in said]
    for path, module in roots(model):
        if any(f"{path}.".startswith(f"{site}." if site else "") for site in paths):
            continue
        parts = [(path, module)]
        if any(site.startswith(f"{path}.") for site in paths):
            parts = [(f"{path}.{name}", child) for name, child in module.named_children()]
            parts = [(at, child) for at, child in parts if not any(f"{s}.".startswith(f"{at}.") for s in paths)]
        for at, part in parts:
            found += [(site, frozenset()) for site in _of_code(at, part, list(_files(opened, held)), over)]
    return found


def _in_effect(model: torch.nn.Module, said: list[Site], held: Mapping[str, Held]) -> Found:
    """The sites that decide anything: what a later one loads over an earlier one is the later one's."""
    if len(said) < 2 and not any(_holds_roots(model, site) for site in said):
        return [(site, frozenset()) for site in said]
    given = []
    for site in said:
        with open_checkpoint(held[site.checkpoint].path) as checkpoint:
            given.append({_full(site, name) for name in provided(site, checkpoint)})
    backbones = [f"{path}." for path, _ in roots(model)]
    found: Found = []
    for i, site in enumerate(said):
        later, earlier = set().union(*given[i + 1 :]), set().union(*given[:i])
        if given[i] and given[i] <= later:
            continue
        names = set(site.module.state_dict())
        others = {name for name in names if _full(site, name) in later or _full(site, name) in earlier - given[i]}
        if _holds_roots(model, site):  # a detector's: of its heads, those that fit
            others |= {
                name
                for name in names
                if _full(site, name) not in given[i] and not _full(site, name).startswith(tuple(backbones))
            }
        found.append((site, frozenset(others)))
    return found


def _holds_roots(model: torch.nn.Module, site: Site) -> bool:
    return any(path.startswith(f"{site.path}." if site.path else "") and path != site.path for path, _ in roots(model))


def _full(site: Site, name: str) -> str:
    return f"{site.path}.{name}" if site.path else name


def _files(opened: list[str], held: dict[str, Held]) -> Iterator[Held]:
    for name in opened:
        path = Path(name).expanduser()
        if name not in held and path.is_file():
            held[name] = Held(name, name, path)
        if name in held:
            yield held[name]


def _of_code(path: str, module: torch.nn.Module, files: list[Held], over: str) -> list[Site]:
    """The file that a module holds most of; of its parts, if those hold more by themselves."""
    best, most, whole = _best(path, module, files, over)
    if whole:
        return [best] if best else []
    parts = []
    count = 0
    streams = [(name, child) for name, child in module.named_children() if _is_network(child)]
    for name, child in streams:
        one, equal, _ = _best(f"{path}.{name}", child, files, over)
        count += equal
        parts += [one] if one else []
    return parts if count > most else [best] if best else []


def _is_network(module: torch.nn.Module) -> bool:
    """Whether a part of a backbone is a model by itself, as one of two streams is, or has one inside."""
    from mmdet.registry import MODELS

    kinds = [type(one) for one in (module, *module.children())]
    own = [kind for kind in kinds if not kind.__module__.startswith(("torch.", "mmcv."))]
    return any(MODELS.get(kind.__name__) is kind for kind in own)


def _best(path: str, module: torch.nn.Module, files: list[Held], over: str) -> tuple[Site | None, int, bool]:
    """The site of the file that most of a module's numbers are from, how many, and whether these are all."""
    state = module.state_dict()
    told = {name for name, value in state.items() if telling(value)}
    best, most = None, 0
    for one in files:
        by_load = one.checkpoint == over
        site = Site(path, module, one.checkpoint, f"{path}." if by_load else "", "load_from" if by_load else "code")
        try:
            with open_checkpoint(one.path) as checkpoint:
                found = compare(site, checkpoint, ())
                equal = len(told.intersection((*found.equal, *found.scattered)))
        except CkptconvError:
            continue
        if equal > most:
            best, most = site, equal
    return best, most, most == len(told) and best is not None

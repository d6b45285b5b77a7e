"""A module of a detector against the file it is to be initialised from, entry by entry.

`check` asks it after building a detector, `guard` inside a training. The file is read as mmengine reads it, or as the
module's class converts it; where that does not explain what the module holds, its numbers are looked for in the whole
file. It knows torch and mmengine's `init_cfg`, and judges nothing.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ckptconv import backbones
from ckptconv.formats.interface import Checkpoint, StoredTensor
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.by_value import Arrangement, arrangement, telling
from ckptconv.mmdetection.check.comparison import Comparison, under
from ckptconv.mmdetection.config.checkpoint import fresh_names, section_of
from ckptconv.mmdetection.loading.tensors import tensor
from ckptconv.mmdetection.type_names import loads
from ckptconv.rules import Pattern
from ckptconv.spec import DTYPES, StateSpec, TensorSpec

_CONVERTERS = {"SwinTransformer": "swin_converter", "PyramidVisionTransformer": "pvt_convert"}
"""The functions of mmdet/models/backbones that rename the authors' tensors if ``convert_weights`` is set."""
_DOUBTFUL = ("differing", "reshaped", "missing")
_STATISTICS = ("running_mean", "running_var")

_Read = Mapping[str, StoredTensor | torch.Tensor]
"""A file's tensors under the names that a module has for them."""


@dataclass(frozen=True)
class Site:
    """A module that starts from a checkpoint: where it is in the detector, the file, the prefix.

    ``by`` is what loads it: 'init_cfg', 'load_from', or 'code' of a class.
    """

    path: str
    module: torch.nn.Module
    checkpoint: str
    prefix: str
    by: str = "init_cfg"

    @property
    def specs(self) -> StateSpec:
        """Shape and type of each of its parameters and buffers."""
        return {
            name: TensorSpec(tuple(value.shape), DTYPES[str(value.dtype).removeprefix("torch.")])
            for name, value in self.module.state_dict().items()
        }


def sites(model: torch.nn.Module, path: str = "") -> list[Site]:
    """Every module that is to start from a checkpoint, in the order in which mmengine loads them: the outer ones last.

    Source: `BaseModule.init_weights` of mmengine/model/base_module.py, 0.10.7.
    """
    found: list[Site] = []
    for name, child in model.named_children():
        found += sites(child, f"{path}.{name}" if path else name)
    said = getattr(model, "init_cfg", None)
    for init_cfg in said if isinstance(said, list | tuple) else [said]:
        if isinstance(init_cfg, Mapping) and loads(init_cfg):
            prefix = init_cfg.get("prefix")
            dotted = "" if prefix is None else prefix if str(prefix).endswith(".") else f"{prefix}."  # as mmengine
            found.append(Site(path, model, str(init_cfg["checkpoint"]), dotted or _own_prefix(model)))
    return found


def _own_prefix(module: torch.nn.Module) -> str:
    """What MMDetection's Swin takes off the names by code of its own, whatever ``init_cfg`` says."""
    return "backbone." if _of_mmdet(module) == "SwinTransformer" else ""


def _of_mmdet(module: torch.nn.Module) -> str:
    """The class of MMDetection that loads the module's checkpoint by code of its own, '' for any other module."""
    loads = next((kind for kind in type(module).__mro__ if "init_weights" in vars(kind)), type(module))
    return loads.__name__ if loads.__name__ in _CONVERTERS and loads.__module__.startswith("mmdet.models.") else ""


def compare(site: Site, checkpoint: Checkpoint, all_sites: Iterable[Site], without: Collection[str] = ()) -> Comparison:
    """Compare each parameter and buffer with its tensor in the file, bit for bit, rounded to the module's type.

    What other sites take of the same file, as a C4 detector's shared head does, is nothing that this one leaves.
    ``without`` are entries that are not this site's.
    """
    all_sites = list(all_sites)
    by_names = _compared(site, checkpoint, read(site, checkpoint), all_sites, without)
    if by_names.equal and not by_names.wrong:
        return by_names
    state = {name: value for name, value in site.module.state_dict().items() if name not in without}
    found = arrangement(state, checkpoint)
    if found is None:
        return by_names
    if not (found.uniform or found.renamed):
        return replace(by_names, scattered=tuple(name for name in found.places if name not in by_names.equal))
    by_value = _by_value(site, checkpoint, found, all_sites, without)
    return by_value if len(by_value.equal) > len(by_names.equal) else by_names


def read(site: Site, checkpoint: Checkpoint, convert: bool | None = None) -> _Read:
    """The file's tensors as the module's class reads them; ``convert`` says whether it converts, if not as built."""
    kind = _of_mmdet(site.module)
    path = section_of(checkpoint)
    if kind and not path:  # mmdet/models/backbones/swin.py and pvt.py look there, too
        path = "model" if isinstance(checkpoint.tree, Mapping) and "model" in checkpoint.tree else ""
    stored = checkpoint.tensors(path) if path in checkpoint.sections else {}
    if kind and (convert if convert is not None else getattr(site.module, "convert_weights", False)):
        try:
            converter = getattr(sys.modules[_module_of(site.module, kind)], _CONVERTERS[kind])
            return under(converter({name: tensor(checkpoint, one) for name, one in stored.items()}), site.prefix)
        except (KeyError, ValueError, RuntimeError, AttributeError):  # names that are not the authors'
            return {}
    return under(stored, site.prefix)


def _module_of(module: torch.nn.Module, kind: str) -> str:
    return next(one.__module__ for one in type(module).__mro__ if one.__name__ == kind)


def fits_otherwise(site: Site, checkpoint: Checkpoint) -> bool:
    """Whether the file would fit with the other ``convert_weights`` of a class that has one."""
    if not _of_mmdet(site.module) or not hasattr(site.module, "convert_weights"):
        return False
    names = read(site, checkpoint, convert=not site.module.convert_weights)
    wanted = {name: value.shape for name, value in site.module.named_parameters()}
    fitting = [name for name in wanted if name in names and tuple(_spec(names[name]).shape) == tuple(wanted[name])]
    return 2 * len(fitting) > len(wanted)


def provided(site: Site, checkpoint: Checkpoint) -> set[str]:
    """The module's entries that the file has in their shapes."""
    found = read(site, checkpoint)
    state = site.module.state_dict()
    return {name for name, value in state.items() if name in found and _spec(found[name]).shape == tuple(value.shape)}


def _compared(
    site: Site, checkpoint: Checkpoint, stored: _Read, all_sites: Iterable[Site], without: Collection[str]
) -> Comparison:
    network = backbones.read(site.specs)
    plain = network.entries() if network else None
    fresh = [Pattern(text) for text in fresh_names(checkpoint)]
    groups: dict[str, list[str]] = {
        kind: [] for kind in ("equal", "differing", "reshaped", "missing", "absent", "added")
    }
    state = site.module.state_dict()
    lines = {_line(name) for name in stored} if any(name in stored for name in state) else set()
    for name, value in state.items():
        if name in without:
            continue
        found = stored.get(name)
        if found is None:
            optional = "absent" if name.endswith("num_batches_tracked") else "missing"
            own = any(pattern.match(site.prefix + name) is not None for pattern in fresh)
            own = own or (plain is not None and name not in plain) or (bool(lines) and _is_own(name, value, lines))
            kind = "added" if own else optional
        else:
            wanted = _tensor(checkpoint, found)
            if _own_prefix(site.module) and name.endswith(".relative_position_bias_table"):
                wanted = _resized(wanted, value.shape)
            alike = wanted.shape == value.shape
            kind = ("equal" if _same(value, wanted) else "differing") if alike else "reshaped"
        groups[kind].append(name)
    taken = {
        name
        for other in all_sites
        if (other.checkpoint, other.prefix) == (site.checkpoint, site.prefix)
        for name in other.module.state_dict()
    }
    extra = tuple(name for name in stored if name not in taken and name not in state)
    if plain is None and not extra:
        _add(groups, state, lines)
    if any(groups[kind] for kind in _DOUBTFUL):
        _after_loading(site, checkpoint, stored, groups)
    mixed = [name for name in groups["differing"] if _same_numbers(state[name], _tensor(checkpoint, stored[name]))]
    sorted_out: dict[str, Any] = {kind: tuple(names) for kind, names in groups.items()}
    return Comparison(
        **sorted_out,
        extra=extra,
        unplaced=_unplaced(site, stored, extra),
        scattered=tuple(mixed),
    )


def _after_loading(site: Site, checkpoint: Checkpoint, stored: _Read, groups: Mapping[str, list[str]]) -> None:
    """Take for equal what the module's own code makes of the file's tensors while it loads a state dict.

    MMPretrain's transformers resize their positions so, mmcv's layers rename what earlier versions have saved.
    """
    from mmengine.runner.checkpoint import load_state_dict

    state, copied = site.module.state_dict(), copy.deepcopy(site.module)
    for value in copied.state_dict().values():
        value.fill_(math.nan) if value.is_floating_point() else None
    given = OrderedDict((name, _tensor(checkpoint, found)) for name, found in stored.items())
    try:
        with runtime.quiet():
            load_state_dict(copied, given)
    except Exception:  # whatever a class does with tensors that are not its own
        return
    made = copied.state_dict()
    for kind in _DOUBTFUL:
        for name in list(groups[kind]):
            if name in made and telling(made[name]) and not made[name].isnan().any() and _same(state[name], made[name]):
                groups[kind].remove(name)
                groups["equal"].append(name)


def _tensor(checkpoint: Checkpoint, found: StoredTensor | torch.Tensor) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else tensor(checkpoint, found)


def _same_numbers(value: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether the numbers are the same in another order."""
    mine, theirs = (one.detach().cpu().to(value.dtype).reshape(-1).sort().values for one in (value, wanted))
    return telling(value) and bool(torch.equal(mine, theirs))


def _is_own(name: str, value: torch.Tensor, lines: Iterable[str]) -> bool:
    """Whether a file of the network does not have it: an index, or a constant such as a norm behind each stage."""
    if not value.is_floating_point():
        return not name.endswith("num_batches_tracked")
    return not telling(value) and not name.endswith(_STATISTICS) and _line(name) not in lines


def _add(groups: Mapping[str, list[str]], state: Mapping[str, torch.Tensor], lines: Collection[str]) -> None:
    """Take for a network's own what a file that has all the rest of it does not have in any block."""
    own = [name for name in groups["missing"] if _line(name) not in lines and not name.endswith(_STATISTICS)]
    here, there = (sum(state[name].numel() for name in names) for names in (own, groups["equal"]))
    if here < there and not groups["differing"] and not groups["reshaped"]:
        groups["missing"][:] = [name for name in groups["missing"] if name not in own]
        groups["added"] += own


def _line(name: str) -> str:
    """A name without its numbers: what is there in one block is there in all."""
    return re.sub(r"\d+", "*", name)


def _by_value(
    site: Site, checkpoint: Checkpoint, found: Arrangement, all_sites: Iterable[Site], without: Collection[str]
) -> Comparison:
    """The comparison by the names that the numbers were found under."""
    if found.uniform:
        stored = checkpoint.tensors(found.section)
        named = {
            found.inner + name.removeprefix(found.outer): one
            for name, one in stored.items()
            if name.startswith(found.outer)
        }
        where = f"{found.section}.{found.outer}" if found.section and found.outer else found.section or found.outer
        way = f"its class reads the file by code of its own{f', under {where!r}' if where else ''}"
        return replace(_compared(site, checkpoint, named, all_sites, without), way=way)
    state = {name: value for name, value in site.module.state_dict().items() if name not in without}
    told = {name for name, value in state.items() if telling(value)}
    return Comparison(
        equal=tuple(name for name in state if name in found.places),
        differing=(),
        reshaped=(),
        missing=tuple(name for name in state if name in told and name not in found.places),
        absent=tuple(name for name in state if name.endswith("num_batches_tracked")),
        added=tuple(name for name in state if name not in told and not name.endswith("num_batches_tracked")),
        extra=(),
        unplaced=(),
        way="its class has other names for the file's tensors: they were compared by their numbers and their order",
    )


def _resized(table: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A Swin's table of position biases for another window, as MMDetection's Swin resizes it when it loads one."""
    sides = [math.isqrt(rows) for rows in (len(table), shape[0])]
    fits = table.dim() == len(shape) == 2 and table.shape[1] == shape[1]
    if not fits or len(table) == shape[0] or [side**2 for side in sides] != [len(table), shape[0]]:
        return table
    grid = table.t().reshape(1, -1, sides[0], sides[0])
    grown = torch.nn.functional.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic")
    return grown.reshape(shape[1], shape[0]).t().contiguous()


def _spec(found: StoredTensor | torch.Tensor) -> TensorSpec:
    if isinstance(found, StoredTensor):
        return found.spec
    return TensorSpec(tuple(found.shape), DTYPES[str(found.dtype).removeprefix("torch.")])


def _unplaced(site: Site, stored: _Read, extra: Iterable[str]) -> tuple[str, ...]:
    """What is left of the file's network, but for whole stages that the module does not have."""
    network = backbones.read({name: _spec(found) for name, found in stored.items()})
    if network is None:
        return ()
    entries, parts = network.entries(), {name.partition(".")[0] for name in site.specs}
    return tuple(
        name for name in extra if name in entries and (not name.startswith("layer") or name.partition(".")[0] in parts)
    )


def _same(value: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Bit for bit, so that not-a-number equals itself and -0 does not equal 0."""
    mine, theirs = value.detach().cpu().reshape(-1), wanted.to(value.dtype).reshape(-1)
    return bool(torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8)))

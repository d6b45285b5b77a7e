"""A module of a detector against the file it is to be initialised from, entry by entry.

`check` asks it after building a detector, `guard` inside a training. It knows torch and mmengine's `init_cfg`, and
judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from ckptconv import backbones
from ckptconv.formats.interface import Checkpoint, StoredTensor
from ckptconv.mmdetection.comparison import Comparison, under
from ckptconv.mmdetection.kinds import loads
from ckptconv.mmdetection.pretrained import fresh_names, section_of
from ckptconv.mmdetection.tensors import tensor
from ckptconv.rules import Pattern
from ckptconv.spec import DTYPES, StateSpec, TensorSpec


@dataclass(frozen=True)
class Site:
    """A module whose ``init_cfg`` is a pretrained checkpoint: where it is in the detector, the file, the prefix."""

    path: str
    module: torch.nn.Module
    checkpoint: str
    prefix: str

    @property
    def specs(self) -> StateSpec:
        """Shape and type of each of its parameters and buffers."""
        return {
            name: TensorSpec(tuple(value.shape), DTYPES[str(value.dtype).removeprefix("torch.")])
            for name, value in self.module.state_dict().items()
        }


def sites(model: torch.nn.Module) -> list[Site]:
    """Every module that is to start from a checkpoint. One inside another does not count: the outer loads last."""
    found: list[Site] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer.path}." if outer.path else "") for outer in found):
            continue
        said = getattr(module, "init_cfg", None)
        for init_cfg in said if isinstance(said, list | tuple) else [said]:
            if isinstance(init_cfg, Mapping) and loads(init_cfg):
                prefix = init_cfg.get("prefix")
                dotted = "" if prefix is None else prefix if str(prefix).endswith(".") else f"{prefix}."  # as mmengine
                dotted = dotted or _own_prefix(module)
                found.append(Site(path, module, str(init_cfg["checkpoint"]), dotted))
    return found


def _own_prefix(module: torch.nn.Module) -> str:
    """What MMDetection's Swin takes off the names by code of its own, whatever ``init_cfg`` says."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(module).__mro__}
    return "backbone." if "mmdet.models.backbones.swin.SwinTransformer" in kinds else ""


def compare(site: Site, checkpoint: Checkpoint, all_sites: Iterable[Site]) -> Comparison:
    """Compare each parameter and buffer with the tensor of its name, bit for bit, rounded to the module's type.

    What other sites take of the same file, as a C4 detector's shared head does, is nothing that this one leaves.
    """
    path = section_of(checkpoint)
    stored = under(checkpoint.tensors(path) if path in checkpoint.sections else {}, site.prefix)
    network = backbones.read(site.specs)
    plain = network.entries() if network else None
    fresh = [Pattern(text) for text in fresh_names(checkpoint)]
    groups: dict[str, list[str]] = {
        kind: [] for kind in ("equal", "differing", "reshaped", "missing", "absent", "added")
    }
    state = site.module.state_dict()
    for name, value in state.items():
        found = stored.get(name)
        if found is None:
            optional = "absent" if name.endswith("num_batches_tracked") else "missing"
            own = any(pattern.match(site.prefix + name) is not None for pattern in fresh)
            kind = "added" if own or (plain is not None and name not in plain) else optional
        else:
            wanted = tensor(checkpoint, found)
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
    return Comparison(
        **{kind: tuple(names) for kind, names in groups.items()}, extra=extra, unplaced=_unplaced(site, stored, extra)
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


def _unplaced(site: Site, stored: Mapping[str, StoredTensor], extra: Iterable[str]) -> tuple[str, ...]:
    """What is left of the file's network, but for whole stages that the module does not have."""
    network = backbones.read({name: found.spec for name, found in stored.items()})
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

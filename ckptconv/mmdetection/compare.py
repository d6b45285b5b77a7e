"""A module of a detector against the file it is to be initialised from, entry by entry.

`check` asks it after building a detector, `guard` inside a training. It knows torch and mmengine's `init_cfg`, and
judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ckptconv.formats.interface import Checkpoint
from ckptconv.mmdetection.pretrained import section_of
from ckptconv.mmdetection.tensors import tensor
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
    """Every module that is to start from a checkpoint, outermost first."""
    found = []
    for path, module in model.named_modules():
        said = getattr(module, "init_cfg", None)
        for init_cfg in said if isinstance(said, list | tuple) else [said]:
            if isinstance(init_cfg, Mapping) and _is_pretrained(init_cfg.get("type")):
                prefix = str(init_cfg.get("prefix") or "")
                prefix += "" if not prefix or prefix.endswith(".") else "."  # as mmengine does
                found.append(Site(path, module, str(init_cfg.get("checkpoint")), prefix))
    return found


def _is_pretrained(kind: Any) -> bool:
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return name.rpartition(".")[2] in ("Pretrained", "PretrainedInit")


@dataclass(frozen=True)
class Comparison:
    """The entries of a site by how they compare with the file, and the file's names that the site has no entry for.

    Together ``equal``, ``differing``, ``reshaped``, ``missing`` and ``absent`` are all entries of the module; absent
    are those that no file needs to have: batch norm's step counters.
    """

    equal: tuple[str, ...]
    differing: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def total(self) -> int:
        return len(self.equal) + len(self.differing) + len(self.reshaped) + len(self.missing) + len(self.absent)


def compare(site: Site, checkpoint: Checkpoint) -> Comparison:
    """Compare each parameter and buffer with the tensor of its name, bit for bit, rounded to the module's type."""
    path = section_of(checkpoint)
    stored = checkpoint.tensors(path) if path in checkpoint.sections else {}
    groups: dict[str, list[str]] = {"equal": [], "differing": [], "reshaped": [], "missing": [], "absent": []}
    state = site.module.state_dict()
    for name, value in state.items():
        found = stored.get(site.prefix + name)
        if found is None:
            kind = "absent" if name.endswith("num_batches_tracked") else "missing"
        elif found.spec.shape != tuple(value.shape):
            kind = "reshaped"
        else:
            kind = "equal" if _same(value, tensor(checkpoint, found)) else "differing"
        groups[kind].append(name)
    names = [name.removeprefix(site.prefix) for name in stored if name.startswith(site.prefix)]
    extra = tuple(name for name in names if name not in state)
    return Comparison(**{kind: tuple(found) for kind, found in groups.items()}, extra=extra)


def _same(value: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Bit for bit, so that not-a-number equals itself and -0 does not equal 0."""
    mine, theirs = value.detach().cpu().reshape(-1), wanted.to(value.dtype).reshape(-1)
    return bool(torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8)))

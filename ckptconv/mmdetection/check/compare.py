"""A module of a detector against the file it is to be initialised from, entry by entry.

`check` asks it after building a detector, `guard` inside a training. The file is read as mmengine reads it, or as the
module's class converts it; where that does not explain what the module holds, its numbers are looked for in the whole
file. It knows torch and judges nothing.
"""

from __future__ import annotations

import copy
import math
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ckptconv import backbones
from ckptconv.backbones import Backbone
from ckptconv.conversion.converted import Converted
from ckptconv.formats.interface import Checkpoint
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.init_cfg import LoadedModule, is_optional
from ckptconv.mmdetection.check.mmdet_classes import resized
from ckptconv.mmdetection.check.reading import Tensors, read, specs_of, value_of
from ckptconv.patterns import Pattern
from ckptconv.proof.match_by_value import Arrangement, arrangement, telling
from ckptconv.proof.prove_module import equal
from ckptconv.text import fold, some

_Kind = Literal["equal", "differing", "size_mismatch", "missing", "optional_missing", "module_only"]
_DOUBTFUL = ("differing", "size_mismatch", "missing")
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Comparison:
    """The entries of a module by how they compare with the file, and the file's names that no module takes.

    The first six are together all entries of the module.
    """

    equal: tuple[str, ...] = ()
    """The same values, bit for bit."""
    differing: tuple[str, ...] = ()
    """Other values."""
    size_mismatch: tuple[str, ...] = ()
    """Another shape in the file."""
    missing: tuple[str, ...] = ()
    """Not in the file."""
    optional_missing: tuple[str, ...] = ()
    """Not in the file and not needed: batch norm's step counters."""
    module_only: tuple[str, ...] = ()
    """In no checkpoint of the plain network: offsets of deformable convolutions, say."""
    unexpected: tuple[str, ...] = ()
    """Names of the file that no module takes."""
    unexpected_backbone: tuple[str, ...] = ()
    """Those of them that belong to the file's network, in a part of it that the module has, too."""
    own_code: str = ""
    """How the module's class loads the file by code of its own; '' where mmengine loads it."""
    same_numbers: tuple[str, ...] = ()
    """Entries with numbers that the file has under another name or in another order."""
    module_backbone: Backbone | None = None
    """The network that the module is."""
    file_backbone: Backbone | None = None
    """The network that the file's tensors are."""

    def _repr_html_(self) -> str:
        from ckptconv.report.page import fragment

        network = self.module_backbone or self.file_backbone
        others = {
            "differing": self.differing,
            "another shape": self.size_mismatch,
            "not in the file": self.missing,
            "only in the module": self.module_only,
            "not in the module": self.unexpected,
        }
        facts = [
            ("network", network.name if network else ""),
            *((what, _some(names)) for what, names in others.items()),
        ]
        good = bool(self.equal) and not self.wrong
        return fragment("good" if good else "bad", f"{len(self.equal)} of {self.total} tensors are equal", facts)

    @property
    def total(self) -> int:
        """Entries that a file could fill."""
        parts = (self.equal, self.differing, self.size_mismatch, self.missing, self.optional_missing)
        return sum(map(len, parts))

    @property
    def wrong(self) -> tuple[str, ...]:
        """What keeps the module from being the file's network."""
        return (*self.differing, *self.size_mismatch, *self.missing, *self.unexpected_backbone)


def compare(
    module: LoadedModule,
    checkpoint: Checkpoint,
    converted: Converted,
    all_modules: Iterable[LoadedModule],
    without: Collection[str] = (),
) -> Comparison:
    """Compare each parameter and buffer with its tensor in the file, bit for bit, rounded to the module's type.

    What other modules take of the same file, as a C4 detector's shared head does, is not unexpected.
    ``without`` are entries of the module that another file decides.
    """
    return _Comparing(module, checkpoint, converted, tuple(all_modules), without).compare()


@dataclass(frozen=True)
class _Comparing:
    """One module and one open file."""

    module: LoadedModule
    checkpoint: Checkpoint
    converted: Converted
    all_modules: tuple[LoadedModule, ...]
    without: Collection[str]

    def compare(self) -> Comparison:
        by_names = self.by_names(read(self.module, self.checkpoint, self.converted))
        if by_names.equal and not by_names.wrong:
            return by_names
        arranged = arrangement(self.state(), self.checkpoint)
        if arranged is None:
            return by_names
        if not (arranged.uniform or arranged.renamed):
            return replace(
                by_names, same_numbers=tuple(name for name in arranged.sources if name not in by_names.equal)
            )
        by_value = self.by_value(arranged)
        return by_value if len(by_value.equal) > len(by_names.equal) else by_names

    def state(self) -> dict[str, torch.Tensor]:
        """The module's entries that this file decides."""
        state = self.module.torch_module.state_dict()
        return {name: value for name, value in state.items() if name not in self.without}

    def by_names(self, tensors: Tensors) -> Comparison:
        """Compare what has the same name."""
        state, known = self.state(), set(self.module.specs)
        unnumbered = {_unnumbered(name) for name in tensors} if known & set(tensors) else set[str]()
        kinds = {name: self.kind(name, value, tensors, unnumbered) for name, value in state.items()}
        taken = {
            name
            for other in self.all_modules
            if (other.checkpoint, other.prefix) == (self.module.checkpoint, self.module.prefix)
            for name in other.specs
        }
        unexpected = tuple(name for name in tensors if name not in taken and name not in known)
        if self.module.backbone is None and not unexpected:
            _take_for_module_only(kinds, state, unnumbered)
        if any(kind in _DOUBTFUL for kind in kinds.values()):
            self.after_loading(tensors, kinds, state)
        canonical = self.converted.backbone is not None and not self.converted.dialect.rules
        file_backbone = self.converted.backbone if canonical else backbones.read(specs_of(tensors))
        differing = _of_kind(kinds, "differing")
        return Comparison(
            equal=_of_kind(kinds, "equal"),
            differing=differing,
            size_mismatch=_of_kind(kinds, "size_mismatch"),
            missing=_of_kind(kinds, "missing"),
            optional_missing=_of_kind(kinds, "optional_missing"),
            module_only=_of_kind(kinds, "module_only"),
            unexpected=unexpected,
            unexpected_backbone=_of_backbone(unexpected, file_backbone, known),
            same_numbers=tuple(n for n in differing if _same_numbers(state[n], value_of(self.checkpoint, tensors[n]))),
            module_backbone=self.module.backbone,
            file_backbone=file_backbone,
        )

    def kind(self, name: str, value: torch.Tensor, tensors: Tensors, unnumbered: Collection[str]) -> _Kind:
        """How one entry compares with the tensor of its name."""
        if name not in tensors:
            if self.is_module_only(name, value, unnumbered):
                return "module_only"
            return "optional_missing" if is_optional(name) else "missing"
        stored = value_of(self.checkpoint, tensors[name])
        stored = resized(self.module.torch_module, name, stored, value.shape)
        if stored.shape != value.shape:
            return "size_mismatch"
        return "equal" if equal(value, stored) else "differing"

    def is_module_only(self, name: str, value: torch.Tensor, unnumbered: Collection[str]) -> bool:
        """Whether files of the plain network lack an entry: an index, or a norm that starts from constants."""
        if any(Pattern(text).match(self.module.prefix + name) is not None for text in self.converted.fresh):
            return True
        plain = self.module.backbone
        if plain is not None and name not in plain.entries():
            return True
        if not unnumbered or is_optional(name):
            return False
        constant = not telling(value) and not name.endswith(_STATISTICS) and _unnumbered(name) not in unnumbered
        return constant or not value.is_floating_point()

    def after_loading(self, tensors: Tensors, kinds: dict[str, _Kind], state: Mapping[str, torch.Tensor]) -> None:
        """Take for equal what the module's own code makes of the file's tensors while it loads a state dict.

        MMPretrain's transformers resize their positions so, mmcv's layers rename what earlier versions have saved.
        """
        from mmengine.runner.checkpoint import load_state_dict

        copied = copy.deepcopy(self.module.torch_module)
        for value in copied.state_dict().values():
            value.fill_(math.nan) if value.is_floating_point() else None
        given = OrderedDict((name, value_of(self.checkpoint, value)) for name, value in tensors.items())
        try:
            with runtime.quiet():
                load_state_dict(copied, given)
        except Exception:  # a class may raise anything for tensors that are not its own
            return
        for name, value in copied.state_dict().items():
            loaded = kinds.get(name) in _DOUBTFUL and telling(value) and not value.isnan().any()
            if loaded and equal(state[name], value):
                kinds[name] = "equal"

    def by_value(self, arranged: Arrangement) -> Comparison:
        """Compare under the names that the numbers were found under."""
        file = self.checkpoint.sections.get(self.converted.section)
        file_backbone = self.converted.backbone or backbones.read(file.tensors if file else {})
        if arranged.uniform:
            tensors = {
                arranged.inner + name.removeprefix(arranged.outer): stored
                for name, stored in self.checkpoint.tensors(arranged.section).items()
                if name.startswith(arranged.outer)
            }
            where = (
                f"{arranged.section}.{arranged.outer}"
                if arranged.section and arranged.outer
                else arranged.section or arranged.outer
            )
            own_code = f"its class loads the file by its own code{f', under {where!r}' if where else ''}"
            return replace(self.by_names(tensors), own_code=own_code, file_backbone=file_backbone)
        state = self.state()
        missing = [name for name, value in state.items() if name not in arranged.sources and telling(value)]
        rest = [name for name, value in state.items() if not telling(value)]
        return Comparison(
            equal=tuple(name for name in state if name in arranged.sources),
            missing=tuple(missing),
            optional_missing=tuple(name for name in rest if is_optional(name)),
            module_only=tuple(name for name in rest if not is_optional(name)),
            own_code="its class has other names than the file: tensors were compared by their values and their order",
            module_backbone=self.module.backbone,
            file_backbone=file_backbone,
        )


def _some(names: Sequence[str]) -> str:
    """How many names there are, and a few of them; '' for none."""
    return f"{len(names)}: {some(list(fold(names)), 3)}" if names else ""


def _of_kind(kinds: Mapping[str, _Kind], kind: _Kind) -> tuple[str, ...]:
    return tuple(name for name, one in kinds.items() if one == kind)


def _of_backbone(names: Iterable[str], backbone: Backbone | None, known: Iterable[str]) -> tuple[str, ...]:
    """Those that belong to the network, except for whole stages that the module does not have."""
    if backbone is None:
        return ()
    entries, parts = backbone.entries(), {name.partition(".")[0] for name in known}
    return tuple(
        name for name in names if name in entries and (not name.startswith("layer") or name.partition(".")[0] in parts)
    )


def _take_for_module_only(
    kinds: dict[str, _Kind], state: Mapping[str, torch.Tensor], unnumbered: Collection[str]
) -> None:
    """Take for a network's own what a file that has all the rest of it does not have in any block."""
    missing = _of_kind(kinds, "missing")
    own = [name for name in missing if _unnumbered(name) not in unnumbered and not name.endswith(_STATISTICS)]
    here, there = (sum(state[name].numel() for name in names) for names in (own, _of_kind(kinds, "equal")))
    if here < there and not {"differing", "size_mismatch"} & set(kinds.values()):
        kinds.update(dict.fromkeys(own, "module_only"))


def _unnumbered(name: str) -> str:
    """A name without its numbers: what is there in one block is there in all."""
    return re.sub(r"\d+", "*", name)


def _same_numbers(value: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether the numbers are the same in another order."""
    mine, theirs = (one.detach().cpu().to(value.dtype).reshape(-1).sort().values for one in (value, wanted))
    return telling(value) and bool(torch.equal(mine, theirs))

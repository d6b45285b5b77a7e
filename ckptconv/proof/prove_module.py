"""Whether a module holds the tensors of a file, whoever loaded it: the one comparison behind `check` and the guard.

"Loaded" is a line in a log everywhere; this is a comparison of numbers, after the framework's own loading. Tensors are
compared under their own names, under a prefix, or by their numbers alone where a class has other names for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ckptconv.arguments import call
from ckptconv.conversion.converted import Converted
from ckptconv.errors import ProofError, UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.patterns import Pattern
from ckptconv.text import some

if TYPE_CHECKING:
    import os

    import torch

    from ckptconv.formats.interface import Checkpoint
    from ckptconv.formats.storage import StoredTensor
    from ckptconv.proof.match_by_value import Arrangement

_COUNTERS = ("num_batches_tracked",)
"""Entries that no network needs."""


@dataclass(frozen=True)
class Proof:
    """What a module holds of a file. Names are the module's, but for ``not_in_module``."""

    equal: tuple[str, ...]
    """The same numbers as in the file, bit for bit in the module's type."""
    differing: tuple[str, ...]
    """Other numbers than in the file."""
    size_mismatch: tuple[str, ...]
    """Another shape than in the file."""
    not_in_module: tuple[str, ...]
    """Names of the file that the module does not have."""
    not_in_file: tuple[str, ...]
    """Parameters and buffers with numbers that the file does not have: a head, or a part that starts at random."""
    by_value: bool = False
    """Whether names did not help: tensors were found by their numbers."""

    @property
    def total(self) -> int:
        """The file's tensors."""
        return sum(map(len, (self.equal, self.differing, self.size_mismatch, self.not_in_module)))

    @property
    def proved(self) -> bool:
        """Whether the module holds every tensor of the file."""
        return bool(self.equal) and len(self.equal) == self.total

    def __repr__(self) -> str:
        return (
            f"Proof(proved={self.proved}, equal={len(self.equal)}, differing={len(self.differing)}, "
            f"size_mismatch={len(self.size_mismatch)}, not_in_module={len(self.not_in_module)}, "
            f"not_in_file={len(self.not_in_file)}, by_value={self.by_value})"
        )

    def _repr_html_(self) -> str:
        from ckptconv.report.page import fragment

        first, *rest = str(self).split("\n")
        return fragment("good" if self.proved else "bad", first, (), rest)

    def __str__(self) -> str:
        lines = [f"{len(self.equal)}/{self.total} tensors of the file are in the module, equal"]
        for names, what in (
            (self.differing, "with other numbers"),
            (self.size_mismatch, "with another shape"),
            (self.not_in_module, "not in the module"),
            (self.not_in_file, "in the module only"),
        ):
            if names:
                lines.append(f"{len(names)} {what}: {some(names, 3)}")
        return "\n".join(lines)


def prove(
    module: torch.nn.Module, file: str | os.PathLike[str], *, strict: bool = False, ignore: Iterable[str] = ()
) -> Proof:
    """Compare a module, after it was loaded in whatever way, with a checkpoint file on this machine.

    ``module`` is any ``torch.nn.Module``, on any device; tensors are rounded to its types before they are compared.
    ``file`` is what `convert` wrote, or any file whose tensors the module is to hold. ``strict`` raises ProofError if a
    tensor of the file is not in the module, or if the module has parameters that the file does not have; ``ignore`` are
    patterns of names that it may have beside them, such as ``head.{x...}``.
    Raises UsageError for what is not a file, and UnreadableError for one that is broken or not safe.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{path} is not a file", "Give the checkpoint that the module was loaded from.")
    patterns = [Pattern(text) for text in ignore]
    with open_checkpoint(path) as checkpoint:
        proof = _proof(module, checkpoint)
    if strict:
        extra = [name for name in proof.not_in_file if all(p.match(name) is None for p in patterns)]
        if extra or not proof.proved:
            raise ProofError(
                f"the module does not hold {path}: {proof}",
                "Load the file with strict=True, or name what the module has beside it: ignore=['head.{x...}']."
                if proof.proved
                else f"The framework loaded nothing of it, or a part. See its names: {call('inspect', str(path))}",
            )
    return proof


def equal(value: torch.Tensor, stored: torch.Tensor) -> bool:
    """Bit for bit in the type of ``value``, so that NaN equals itself and -0 does not equal 0."""
    import torch

    mine, theirs = value.detach().cpu().reshape(-1), stored.to(value.dtype).reshape(-1)
    return bool(torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8)))


def _proof(module: torch.nn.Module, checkpoint: Checkpoint) -> Proof:
    from ckptconv.proof.match_by_value import arrangement

    state = module.state_dict()
    section = _section(checkpoint, state)
    tensors = checkpoint.tensors(section) if section in checkpoint.sections else {}
    by_names = _compared(state, tensors, checkpoint)
    if by_names.proved:
        return by_names
    arranged = arrangement(state, checkpoint)
    if arranged is None:
        return by_names
    found = _by_value(state, arranged, checkpoint)
    return found if len(found.equal) > len(by_names.equal) else by_names


def _section(checkpoint: Checkpoint, state: Mapping[str, torch.Tensor]) -> str:
    """Where the file's weights are: as it says itself, else the section with the most of the module's names."""
    converted = Converted.read(checkpoint)
    if converted.origin is not None:
        return converted.section
    return max(checkpoint.sections, key=lambda one: len(state.keys() & checkpoint.tensors(one).keys()), default="")


def _compared(state: Mapping[str, torch.Tensor], tensors: Mapping[str, StoredTensor], checkpoint: Checkpoint) -> Proof:
    """Compare what has the same name."""
    from ckptconv.proof.tensors import tensor

    same, differing, mismatch = [], [], []
    for name, stored in tensors.items():
        if name not in state:
            continue
        if tuple(state[name].shape) != stored.spec.shape:
            mismatch.append(name)
        elif equal(state[name], tensor(checkpoint, stored)):
            same.append(name)
        else:
            differing.append(name)
    return Proof(
        tuple(same),
        tuple(differing),
        tuple(mismatch),
        tuple(name for name in tensors if name not in state and not name.endswith(_COUNTERS)),
        tuple(name for name in state if name not in tensors and _has_numbers(name, state[name])),
    )


def _by_value(state: Mapping[str, torch.Tensor], arranged: Arrangement, checkpoint: Checkpoint) -> Proof:
    """Compare under the names that the numbers were found under."""
    if arranged.uniform:
        inner, outer = arranged.inner, arranged.outer
        stored = checkpoint.tensors(arranged.section)
        renamed = {inner + name.removeprefix(outer): one for name, one in stored.items() if name.startswith(outer)}
        proof = _compared(state, renamed, checkpoint)
        outside = tuple(name for name in stored if not name.startswith(outer) and not name.endswith(_COUNTERS))
        return replace(proof, not_in_module=(*proof.not_in_module, *outside))
    taken = {one for names in arranged.sources.values() for one in names}
    section = _section_of(checkpoint, taken)
    return Proof(
        tuple(arranged.sources),
        (),
        (),
        tuple(name for name in _telling(checkpoint, section) if name not in taken),
        tuple(name for name in state if name not in arranged.sources and _has_numbers(name, state[name])),
        by_value=True,
    )


def _section_of(checkpoint: Checkpoint, names: set[str]) -> str:
    return max(checkpoint.sections, key=lambda one: len(names & checkpoint.tensors(one).keys()))


def _telling(checkpoint: Checkpoint, section: str) -> Iterable[str]:
    """The tensors of a section whose numbers tell where they are: others may be anywhere."""
    from ckptconv.proof.match_by_value import telling
    from ckptconv.proof.tensors import tensor

    return [name for name, stored in checkpoint.tensors(section).items() if telling(tensor(checkpoint, stored))]


def _has_numbers(name: str, value: torch.Tensor) -> bool:
    """Whether an entry is more than an index, a mask or a counter."""
    return bool(value.is_floating_point()) and not name.endswith(_COUNTERS)

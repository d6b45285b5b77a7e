"""Which tensors of a file a module holds, found by their numbers alone, under any names.

A class may load its weights by code of its own, which renames, transposes, joins or cuts them. Constant tensors, such
as zeros and ones, tell nothing: they are in every file. Knows torch and the inert reader; judges nothing.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import StoredTensor
from ckptconv.proof.tensors import tensor

_FEW = 8
"""Numbers; shorter tensors are not looked for inside others."""
_AXES = 5

_Sources = list[tuple[int, ...]]
"""Where a value may come from: each is one tensor of the file, or several that are joined."""


@dataclass(frozen=True)
class Arrangement:
    """Where a module's numbers are in a file.

    ``sources``: for each entry whose numbers are in the file, the names of the tensors that they may come from.
    ``uniform``: one rule gives all names: the module's ``inner + name`` is ``outer + name`` in the file's ``section``.
    ``renamed``: no rule does, but the tensors of each shape have the file's order, with none left out between them: the
    module's class has other names for them.
    """

    sources: Mapping[str, tuple[str, ...]]
    section: str = ""
    inner: str = ""
    outer: str = ""
    uniform: bool = False
    renamed: bool = False


def telling(value: torch.Tensor) -> bool:
    """Whether a tensor's numbers tell where they come from: floats that are not all the same."""
    flat = value.detach().reshape(-1)
    return value.is_floating_point() and flat.numel() > 1 and not bool((flat == flat[0]).all())


def arrangement(state: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> Arrangement | None:
    """How the numbers of a module's entries are arranged in a file; None if it has none of them."""
    file = _FileValues(checkpoint)
    values = {name: value.detach().cpu() for name, value in state.items() if telling(value)}
    whole = {name: sources for name, value in values.items() if (sources := file.whole(value))}
    if not whole:
        return None
    sources_of: dict[str, _Sources] = {}
    for name, value in values.items():
        sources = whole.get(name) or file.transposed(value) or file.joined(value) or file.cut(value)
        if sources:
            sources_of[name] = sources
    names = {name: tuple(file.names[parts[0]][1] for parts in sources) for name, sources in sources_of.items()}
    votes = Counter(
        rule
        for name, sources in sources_of.items()
        for rule in {_renaming(name, *file.names[parts[0]]) for parts in sources if len(parts) == 1}
    )
    rule, count = votes.most_common(1)[0] if votes else (("", "", ""), 0)
    if count == len(sources_of):
        section, inner, outer = rule
        return Arrangement(names, section, inner, outer, uniform=True)
    taken = {i for sources in sources_of.values() for parts in sources for i in parts}
    between = (i for i in range(min(taken), max(taken)) if i not in taken)
    left_out = any(len(file.tensors[i].spec.shape) > 1 and file.tells(i) for i in between)
    return Arrangement(names, renamed=not left_out and _in_order(state, sources_of))


def _renaming(entry: str, section: str, name: str) -> tuple[str, str, str]:
    """The section, and what precedes the segments that two names have in common at their ends."""
    mine, theirs = entry.split("."), name.split(".")
    same = 0
    while same < min(len(mine), len(theirs)) and mine[-1 - same] == theirs[-1 - same]:
        same += 1
    inner, outer = (".".join(parts[: len(parts) - same]) for parts in (mine, theirs))
    return section, f"{inner}." if inner else "", f"{outer}." if outer else ""


def _in_order(state: Mapping[str, torch.Tensor], sources_of: Mapping[str, _Sources]) -> bool:
    """Whether the entries of each shape follow one another as in the file, each tensor taken once."""
    last: dict[tuple[int, ...], int] = defaultdict(lambda: -1)
    for name, sources in sources_of.items():
        shape = tuple(state[name].shape)
        after = [parts for parts in sources if parts[0] > last[shape]]
        if not after:
            return False
        last[shape] = min(after)[-1]
    return True


class _FileValues:
    """Every tensor of a file by its first numbers; the rest is read where those are equal."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.names: list[tuple[str, str]] = []
        self.tensors: list[StoredTensor] = []
        for section in checkpoint.sections:
            for name, stored in checkpoint.tensors(section).items():
                self.names.append((section, name))
                self.tensors.append(stored)
        self._floats = [i for i, stored in enumerate(self.tensors) if stored.spec.dtype.kind == "float"]
        self._heads: dict[torch.dtype, dict[bytes, list[int]]] = {}
        self._rows: dict[tuple[torch.dtype, int], dict[bytes, list[tuple[int, int]]]] = {}
        self._sorted: dict[tuple[torch.dtype, int], torch.Tensor] = {}

    def flat(self, i: int, dtype: torch.dtype) -> torch.Tensor:
        return tensor(self._checkpoint, self.tensors[i]).to(dtype).reshape(-1)

    def tells(self, i: int) -> bool:
        return self.tensors[i].spec.dtype.kind == "float" and telling(self.flat(i, torch.float32))

    def whole(self, value: torch.Tensor) -> _Sources:
        """Tensors with these numbers in this order, in any shape."""
        flat = value.reshape(-1)
        return [(i,) for i in self._starting(flat) if torch.equal(self.flat(i, flat.dtype), flat)]

    def transposed(self, value: torch.Tensor) -> _Sources:
        """Tensors that equal it with their axes in another order, as other frameworks have them."""
        mine = value.reshape(-1).sort().values
        sources: _Sources = []
        for i in self._floats:
            if self.tensors[i].spec.numel != len(mine) or len(self.tensors[i].spec.shape) > _AXES:
                continue
            key = (value.dtype, i)
            if key not in self._sorted:
                self._sorted[key] = self.flat(i, value.dtype).sort().values[:_FEW].clone()
            if torch.equal(self._sorted[key], mine[:_FEW]):
                theirs = self.flat(i, value.dtype).reshape(self.tensors[i].spec.shape)
                permuted = (theirs.permute(axes) for axes in itertools.permutations(range(theirs.dim())))
                if any(one.shape == value.shape and torch.equal(one, value) for one in permuted):
                    sources.append((i,))
        return sources

    def joined(self, value: torch.Tensor) -> _Sources:
        """Tensors that give its numbers when they are joined."""
        flat = value.reshape(-1)
        joined: list[int] = []
        while flat.numel():
            parts = [i for i in self._starting(flat, shorter=True) if self._starts(flat, i)]
            if not parts:
                return []
            joined.append(max(parts, key=lambda i: self.tensors[i].spec.numel))
            flat = flat[self.tensors[joined[-1]].spec.numel :]
        return [tuple(joined)]

    def cut(self, value: torch.Tensor) -> _Sources:
        """A tensor that has its numbers in some of its rows."""
        flat = value.reshape(-1)
        row = flat.numel() // next(n for n in value.shape if n > 1)
        if row < _FEW:
            return []
        key = (value.dtype, row)
        if key not in self._rows:
            self._rows[key] = defaultdict(list)
            for i in self._floats:
                sizes = itertools.accumulate(reversed(self.tensors[i].spec.shape), lambda a, b: a * b)
                if row in sizes:
                    for at, one in enumerate(self.flat(i, value.dtype).reshape(-1, row)[:, :_FEW]):
                        self._rows[key][_bytes(one)].append((i, at * row))
        for i, at in self._rows[key].get(_bytes(flat[:_FEW]), ()):
            if torch.equal(self.flat(i, value.dtype)[at : at + flat.numel()], flat):
                return [(i,)]
        return []

    def _starting(self, flat: torch.Tensor, shorter: bool = False) -> list[int]:
        """Tensors of the same size (or a smaller one) that start with the same numbers."""
        if flat.dtype not in self._heads:
            heads: dict[bytes, list[int]] = defaultdict(list)
            for i in self._floats:
                heads[_bytes(self.flat(i, flat.dtype)[:_FEW])].append(i)
            self._heads[flat.dtype] = heads
        size = flat.numel()
        alike = self._heads[flat.dtype].get(_bytes(flat[:_FEW]), [])
        return [i for i in alike if (n := self.tensors[i].spec.numel) == size or (shorter and _FEW <= n < size)]

    def _starts(self, flat: torch.Tensor, i: int) -> bool:
        part = self.flat(i, flat.dtype)
        return bool(torch.equal(part, flat[: part.numel()]))


def _bytes(numbers: torch.Tensor) -> bytes:
    return bytes(numbers.contiguous().view(torch.uint8).numpy())

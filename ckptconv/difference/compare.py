"""`diff`: the difference of two checkpoints, whatever their formats and layouts, or of one and a module."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptconv.conversion.convert import MethodLike, PathLike, options_of
from ckptconv.difference import numbers, pairing
from ckptconv.difference.numbers import Distance
from ckptconv.difference.pairing import Held, Pairing
from ckptconv.difference.sides import Side, opened
from ckptconv.planning.matching import Move
from ckptconv.sources.interface import Fetching
from ckptconv.text import some

if TYPE_CHECKING:
    import torch

_COUNTERS = ("num_batches_tracked",)
"""Entries that no network needs."""
_SAMPLE = 4  # tensors that tell which of several copies is meant


@dataclass(frozen=True)
class DiffSide:
    """What one side is. ``size`` is in bytes, 0 in memory. Method and backbone are '' where no method explains it."""

    label: str
    format: str
    size: int
    section: str
    method: str
    backbone: str
    others: tuple[str, ...]
    """Its tensors that are not the network's and that the other side does not have."""


@dataclass(frozen=True)
class DifferingTensor:
    """A tensor whose numbers are not the same. ``sources_a`` and ``sources_b`` are its names in the two files."""

    name: str
    sources_a: tuple[str, ...]
    sources_b: tuple[str, ...]
    shape: tuple[int, ...]
    dtype_a: str
    dtype_b: str
    distance: Distance


@dataclass(frozen=True)
class DifferingShape:
    """A tensor whose shapes are not the same."""

    name: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]


@dataclass(frozen=True)
class Diff:
    """What two checkpoints hold of one network. Names are those of ``target``, or both files' own where it is ''.

    Tuples are in the order of the first file, but for ``differing``: there the largest relative difference is first.
    """

    a: DiffSide
    b: DiffSide
    target: str
    same_network: bool | None
    """Whether both are the same architecture; None where no method explains one of them."""
    equal: tuple[str, ...]
    """The same numbers, bit for bit."""
    rounded: tuple[str, ...]
    """The same numbers once the finer type is rounded to the coarser one."""
    differing: tuple[DifferingTensor, ...]
    shapes: tuple[DifferingShape, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both hold the same network with the same numbers. Counters that one side lacks do not matter."""
        lacking = [name for name in (*self.only_a, *self.only_b) if not name.endswith(_COUNTERS)]
        return bool(self.equal or self.rounded) and not (self.differing or self.shapes or lacking)

    @property
    def compared(self) -> int:
        """How many tensors both sides have."""
        return len(self.equal) + len(self.rounded) + len(self.differing) + len(self.shapes)

    def _repr_html_(self) -> str:
        from ckptconv.report.page import fragment

        networks = " and ".join(dict.fromkeys(side.backbone or "no known network" for side in (self.a, self.b)))
        counts = {
            "equal once rounded": self.rounded,
            "differing": [one.name for one in self.differing],
            "another shape": [one.name for one in self.shapes],
            "only in the first": self.only_a,
            "only in the second": self.only_b,
        }
        facts = [("networks", networks), ("first", self.a.label), ("second", self.b.label)]
        facts += [(what, f"{len(names)}: {some(names, 3)}" if names else "") for what, names in counts.items()]
        headline = "The same numbers" if self.same else "Not the same"
        equal = f"{headline}: {len(self.equal)} of {self.compared} tensors are equal"
        return fragment("good" if self.same else "bad", equal, facts)

    def __repr__(self) -> str:
        return (
            f"Diff(a={self.a.label!r}, b={self.b.label!r}, same={self.same}, equal={len(self.equal)}, "
            f"rounded={len(self.rounded)}, differing={len(self.differing)}, shapes={len(self.shapes)}, "
            f"only_a={len(self.only_a)}, only_b={len(self.only_b)})"
        )


def diff(
    a: PathLike | torch.nn.Module | Mapping[str, Any],
    b: PathLike | torch.nn.Module | Mapping[str, Any],
    *,
    method_a: MethodLike = "auto",
    method_b: MethodLike = "auto",
    section_a: str | None = None,
    section_b: str | None = None,
    rules: PathLike | None = None,
    fetching: Fetching | None = None,
) -> Diff:
    """Compare two checkpoints tensor by tensor, whatever their formats and layouts.

    Where a method explains both, their networks are compared under the names of one target; else their tensors under
    their own names. If a file holds several copies of the network, the one that is nearest to the other side is
    compared, and `DiffSide.method` names it.

    Args:
        a, b: a path, an address, a release's name, a ``torch.nn.Module``, or a state dict.
        method_a, method_b: 'auto', a method's name, a `Method`, or rules, as for `convert`.
        section_a, section_b: dotted path to the mapping with the weights; the method knows where to look if None.
        rules: a TOML file with a method of your own.
        fetching: how a source that lies elsewhere is fetched.

    Raises:
        UnreadableError: a file is not a checkpoint, is broken or is not safe.
        UnidentifiedError, IncompletePlanError: a method that was named does not fit.
        UsageError: an argument makes no sense.
    """
    fetching = fetching or Fetching()
    with ExitStack() as stack:
        side_a, side_b = (
            stack.enter_context(opened(given, method, options_of(None, rules, section=section), fetching))
            for given, method, section in ((a, method_a, section_a), (b, method_b, section_b))
        )
        return _compared(side_a, side_b)


def _compared(side_a: Side, side_b: Side) -> Diff:
    held_a, held_b = pairing.held_by(side_a), pairing.held_by(side_b)
    found = _nearest(side_a, held_a, side_b, held_b)
    names_a, names_b = dict(found.a), dict(found.b)
    others_a: dict[str, Move] = {}
    others_b: dict[str, Move] = {}
    if found.held is not None:  # heads and decoders, where both files have them under the same names
        others_a, others_b = dict(found.held[0].others), dict(found.held[1].others)
        for name in others_a.keys() & others_b.keys() - names_a.keys() - names_b.keys():
            names_a[name], names_b[name] = others_a.pop(name), others_b.pop(name)
    one_a, one_b = found.held or (next(iter(held_a), None), next(iter(held_b), None))
    both = [name for name in names_a if name in names_b]
    shapes = [name for name in both if names_a[name].spec.shape != names_b[name].spec.shape]
    both = [name for name in both if names_a[name].spec.shape == names_b[name].spec.shape]
    side_a.fetch(found.section_a, [names_a[name] for name in both])
    side_b.fetch(found.section_b, [names_b[name] for name in both])
    equal, rounded, differing = list[str](), list[str](), list[DifferingTensor]()
    for name in both:
        how = _of_one(name, side_a, found.section_a, names_a[name], side_b, found.section_b, names_b[name])
        if isinstance(how, DifferingTensor):
            differing.append(how)
        else:
            (equal if how else rounded).append(name)
    return Diff(
        a=_described(side_a, found.section_a, one_a, others_a),
        b=_described(side_b, found.section_b, one_b, others_b),
        target=found.held[0].target if found.held else "",
        same_network=_same_network(one_a, one_b),
        equal=tuple(equal),
        rounded=tuple(rounded),
        differing=tuple(sorted(differing, key=lambda one: -_size(one.distance))),
        shapes=tuple(DifferingShape(name, names_a[name].spec.shape, names_b[name].spec.shape) for name in shapes),
        only_a=tuple(name for name in names_a if name not in names_b),
        only_b=tuple(name for name in names_b if name not in names_a),
    )


def _same_network(a: Held | None, b: Held | None) -> bool | None:
    """Whether two networks, under the names of one target if one holds both, have the same names and shapes."""
    if a is None or b is None:
        return None
    return _shapes(a) == _shapes(b) if a.target == b.target else a.backbone.entries() == b.backbone.entries()


def _shapes(held: Held) -> dict[str, tuple[int, ...]]:
    return {name: move.spec.shape for name, move in held.moves.items() if not name.endswith(_COUNTERS)}


def _nearest(side_a: Side, held_a: list[Held], side_b: Side, held_b: list[Held]) -> Pairing:
    """The pair of networks whose numbers are nearest; the names alone where no two networks are of one family."""
    pairs = [pair for a in held_a for b in held_b if (pair := pairing.by_network(side_a, a, side_b, b)) is not None]
    if not pairs:
        return pairing.by_names(side_a, side_b)
    return pairs[0] if len(pairs) == 1 else min(pairs, key=lambda pair: _apart(side_a, side_b, pair))


def _apart(side_a: Side, side_b: Side, pair: Pairing) -> tuple[int, float]:
    """How many names only one side has, and how far a few of the common tensors are apart."""
    both = [n for n in pair.a if n in pair.b and pair.a[n].spec.shape == pair.b[n].spec.shape]
    kernels = [name for name in both if len(pair.a[name].spec.shape) > 1]
    found = (
        _of_one(name, side_a, pair.section_a, pair.a[name], side_b, pair.section_b, pair.b[name])
        for name in kernels[:: max(len(kernels) // _SAMPLE, 1)]
    )
    sizes = (_size(how.distance) if isinstance(how, DifferingTensor) else 0.0 for how in found)
    return len(pair.a) + len(pair.b) - 2 * len(both), sum(sizes)


def _of_one(
    name: str, side_a: Side, section_a: str, a: Move, side_b: Side, section_b: str, b: Move
) -> DifferingTensor | bool:
    """How one tensor differs; True if it does not, False if rounding makes it equal."""
    first, second = side_a.read(section_a, a), side_b.read(section_b, b)
    type_a, type_b = a.spec.dtype, b.spec.dtype
    if type_a == type_b and numbers.equal(first, second):
        return True
    if type_a != type_b and numbers.equal_when_rounded(first, type_a, second, type_b):
        return False
    distance = numbers.distance(first, type_a, second, type_b)
    return DifferingTensor(name, a.sources, b.sources, a.spec.shape, type_a.name, type_b.name, distance)


def _size(distance: Distance) -> float:
    """For ordering: what is not a number is far away."""
    return float("inf") if distance.not_finite or distance.relative is None else distance.relative


def _described(side: Side, section: str, held: Held | None, others: Mapping[str, Move]) -> DiffSide:
    return DiffSide(
        label=side.label,
        format=side.format,
        size=side.size,
        section=section,
        method=held.method if held else "",
        backbone=held.backbone.name if held else "",
        others=tuple(others),
    )

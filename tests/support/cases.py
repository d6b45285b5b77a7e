"""The case files in `tests/cases/`: every name of a real layout with what becomes of it, written without ckptconv.

A case starts with lines ``# key: value`` and goes on with one line a name::

    module.encoder_q.conv1.weight float32 64x3x7x7 -> conv1.weight
    module.queue_ptr int64 1 -> -
    config !dict -> -

``-`` is dropped, ``()`` a scalar, ``!kind`` no tensor. ``-> qkv.weight [1]`` is the second of the tensors that are
joined to one, ``-> q.weight 8x8, k.weight 8x8`` is cut into parts, ``-> conv.weight 96x1x7x7`` gets another
shape, or the same one with its numbers moved, ``-> qkv.bias by NAME`` reads another name beside it, of which the case
says itself what becomes. Keys of the head: ``source`` (the repository and code that wrote it), ``method``, ``also``
(methods that `auto` finds and that give the same plan), ``section``, ``backbone``, ``layout`` (the file in
`tests/layouts/` that the names were read from), ``prefix`` (what to ask for with it), ``target`` (where it is not the
family's usual one; ``none`` for a network that no target holds yet), ``auto: never`` for what is never guessed, and
``auto: METHOD`` where `auto` finds a method that takes another copy of the network, from the same section.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from ckptconv.backbones import TargetName
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.planning.same_result import Match
from ckptconv.spec import DTYPES, Section, TensorSpec

FOLDER = Path(__file__).parents[1] / "cases"
UNSUPPORTED = Path(__file__).parents[1] / "unsupported"
_HEAD = ("source", "method", "also", "section", "backbone", "layout", "prefix", "target", "auto")
_TOP = "(top level)"
_MATCHES: dict[str, Match] = {}


@dataclass(frozen=True)
class Case:
    """One layout. ``targets`` maps each source name to the name it must get, None where it must be dropped.

    ``others_of`` has the further names of one that is cut into several.
    """

    name: str
    source: str
    method: str
    also: frozenset[str]
    section: str
    backbone: str
    layout: str
    prefix: str
    target: TargetName | None
    auto: str
    held: bool
    tensors: dict[str, TensorSpec]
    others: dict[str, str]
    targets: dict[str, str | None]
    others_of: dict[str, tuple[str, ...]]
    positions: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    beside: dict[str, str]

    @property
    def sections(self) -> dict[str, Section]:
        return {self.section: Section(self.tensors, self.others)}

    @property
    def options(self) -> Options:
        """What to ask for with the method's name."""
        return Options(strip_prefix=self.prefix, target=self.target)

    @property
    def unasked(self) -> Options:
        """What to ask for where the method is to be found, or another one is tried."""
        return Options(target=self.target)

    @property
    def guessed(self) -> bool:
        """Whether `auto` finds the method."""
        return not self.auto

    @property
    def found(self) -> set[str]:
        """The methods that `auto` must find, which take what the case keeps."""
        return {self.method, *self.also} if self.guessed else set(self.also)

    @property
    def instead(self) -> str:
        """The method that `auto` finds, where that takes another copy; '' if there is none."""
        return "" if self.auto == "never" else self.auto

    @property
    def kept(self) -> dict[str, tuple[str, ...]]:
        """Source names by target name, in the order in which they are joined."""
        kept: dict[str, tuple[str, ...]] = {}
        for name in sorted(self.targets, key=lambda name: self.positions.get(name, 0)):
            target = self.targets[name]
            if target is not None:
                kept[target] = (*kept.get(target, ()), name)
            kept |= dict.fromkeys(self.others_of.get(name, ()), (name,))
        for target, other in self.beside.items():
            kept[target] = (*kept[target], other)
        return kept

    @property
    def dropped(self) -> set[str]:
        return {name for name, target in self.targets.items() if target is None}

    def __str__(self) -> str:
        return self.name


def _read(path: Path) -> Case:
    head: dict[str, str] = {}
    tensors: dict[str, TensorSpec] = {}
    others: dict[str, str] = {}
    targets: dict[str, str | None] = {}
    positions: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    beside: dict[str, str] = {}
    others_of: dict[str, tuple[str, ...]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            key, _, value = line[2:].partition(": ")
            assert key in _HEAD, f"{path.name}: unknown key {key}"
            assert key not in head, f"{path.name}: {key} twice"
            head[key] = value
            continue
        left, arrow, target = line.rpartition(" -> ")
        assert arrow, f"{path.name}: {line}"
        name, _, what = left.partition(" ")
        assert name not in targets, f"{path.name}: {name} twice"
        target, _, by = target.partition(" by ")
        target, *further = target.split(", ")
        for words in further:
            other, shape = words.split(" ")
            shapes[other] = _lengths(shape)
            others_of[name] = (*others_of.get(name, ()), other)
        target, *rest = target.split(" ")
        if by:
            beside |= dict.fromkeys((target, *others_of.get(name, ())), by)
        for word in rest:
            if word.startswith("["):
                positions[name] = int(word[1:-1])
            else:
                shapes[target] = _lengths(word)
        targets[name] = None if target == "-" else target
        if what.startswith("!"):
            others[name] = what[1:]
        else:
            dtype, shape = what.split(" ")
            tensors[name] = TensorSpec(_lengths(shape), DTYPES[dtype])
    case = Case(
        name=path.stem,
        source=head["source"],
        method=head["method"],
        also=frozenset(filter(None, head.get("also", "").split(", "))),
        section=head["section"].replace(_TOP, ""),
        backbone=head["backbone"],
        layout=head.get("layout", ""),
        prefix=head.get("prefix", ""),
        target=cast("TargetName | None", head.get("target")) if head.get("target") != "none" else None,
        held=head.get("target") != "none",
        auto=head.get("auto", ""),
        tensors=tensors,
        others=others,
        targets=targets,
        others_of=others_of,
        positions=positions,
        shapes=shapes,
        beside=beside,
    )
    counts = Counter(targets.values())
    joined = [name for name, target in targets.items() if target is not None and counts[target] > 1]
    assert set(joined) == set(positions), f"{path.name}: two names get one target, or one says it is one of several"
    return case


def _lengths(text: str) -> tuple[int, ...]:
    return () if text == "()" else tuple(map(int, text.split("x")))


@cache
def cases() -> tuple[Case, ...]:
    """Every case, in order of name."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.txt")))


@cache
def case(name: str) -> Case:
    return _read(FOLDER / f"{name}.txt")


@dataclass(frozen=True)
class Unsupported:
    """A file in `tests/unsupported/`, of a network that no target can hold: names without what becomes of them.

    Its head has ``source`` and ``section`` as a case's, ``what`` the network is, and the ``method`` that a person would
    name, if there is one.
    """

    name: str
    what: str
    method: str
    sections: dict[str, Section]

    def __str__(self) -> str:
        return self.name


@cache
def unsupported_files() -> tuple[Unsupported, ...]:
    """Every file of an unsupported network, in order of name."""
    found = []
    for path in sorted(UNSUPPORTED.glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
        assert {"source", "section", "what"} <= set(head) <= {"source", "section", "what", "method"}, path.name
        words = [line.split(" ") for line in lines if not line.startswith("# ")]
        tensors = {name: TensorSpec(_lengths(rest[1]), DTYPES[rest[0]]) for name, *rest in words if len(rest) == 2}
        others = {name: rest[0].removeprefix("!") for name, *rest in words if len(rest) == 1}
        assert len(tensors) + len(others) == len(words), f"{path.name}: a name twice"
        section = head["section"].replace(_TOP, "")
        found.append(Unsupported(path.stem, head["what"], head.get("method", ""), {section: Section(tensors, others)}))
    return tuple(found)


def by_name(case: Case) -> Match:
    """The match of a case that a target holds, with its method's name: planned once, since several tests ask for it."""
    if case.name not in _MATCHES:
        _MATCHES[case.name] = choose(case.sections, case.method, case.options)
    return _MATCHES[case.name]

"""Where in a nested checkpoint the state dicts lie. Works on any tree of dicts and lists; knows no file format."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.spec import Section, TensorSpec

BELOW = "..."
"""At the end of a path: everything below it, as one section."""

_MOST_CONTAINERS = 50_000
_MOST_ENTRIES = 1_500_000
_MOST_TENSORS = 50_000
_DEEPEST = 24
_MOST_ALIKE = 4
_LONGEST_NAME = 1_000  # letters, of a name or a path


def find_sections(tree: object, spec_of: Callable[[object], TensorSpec | None]) -> dict[str, Section]:
    """Every mapping that holds tensors directly, by its dotted path ('' is the top), outermost first.

    ``spec_of`` gives a tensor's spec and None for anything else. Raises UnreadableError for a tree that contains
    itself or has no end: pickles can build both.
    """
    sections: dict[str, Section] = {}
    queue: deque[tuple[str, int, object]] = deque([("", 0, tree)])
    visits = entries = found = 0
    while queue:
        path, depth, node = queue.popleft()
        visits += 1
        entries += len(node) if isinstance(node, Mapping | list | tuple) else 0
        if visits > _MOST_CONTAINERS or entries > _MOST_ENTRIES or depth > _DEEPEST or len(path) > _LONGEST_NAME:
            raise _endless("nests its contents without end")
        tensors: dict[str, TensorSpec] = {}
        others: dict[str, str] = {}
        named = isinstance(node, Mapping)
        for key, value in _items(node):
            spec = spec_of(value)
            if spec is not None and isinstance(key, str):
                tensors[key] = spec
                found += 1
                if found > _MOST_TENSORS:
                    raise _endless(f"holds more than {_MOST_TENSORS:,} tensors")
                if len(key) > _LONGEST_NAME:
                    raise _endless(f"holds a name of {len(key):,} letters")
                continue
            if named:
                others[str(key)] = kind_of(value)
            if isinstance(value, Mapping | list | tuple) and value:
                step = str(key) or "''"
                queue.append((f"{path}.{step}" if path else step, depth + 1, value))
        if tensors and isinstance(node, Mapping):
            alike = 0
            while path in sections:  # {'a.b': …} beside {'a': {'b': …}}
                path, alike = f"{path}'", alike + 1
                if alike > _MOST_ALIKE:
                    raise _endless("spells many of its paths alike")
            sections[path] = Section(tensors, others, node)
    return sections


def section_at(sections: Mapping[str, Section], path: str) -> Section | None:
    """The section at a path, or all sections below 'PATH...' as one; None if there is none.

    A tensor below is called by the path to it. A slash in it is a dot here: jax's libraries join the names of modules
    by slashes ('res_net50/~/initial_conv'), and a rule matches dotted segments.
    """
    if path in sections or not path.endswith(BELOW):
        return sections.get(path)
    root = path.removesuffix(BELOW)
    tensors: dict[str, TensorSpec] = {}
    others: dict[str, str] = {}
    node: dict[str, Any] = {}
    for at, section in sections.items():
        if root and at != root and not at.startswith(f"{root}."):
            continue
        head = at[len(root) :].lstrip(".")
        for key, value in section.node.items():
            spec = section.tensors.get(key)
            name = f"{head}.{key}".lstrip(".").replace("/", ".")
            while name in node:
                name += "'"
            if spec is not None:
                tensors[name], node[name] = spec, value
            elif not isinstance(value, Mapping | list | tuple):
                others[name] = section.others[str(key)]
    return Section(tensors, others, node) if tensors else None


def _endless(what: str) -> UnreadableError:
    return UnreadableError(f"the file {what}", "It was not written by a training script; get it again from its source.")


def _items(node: object) -> Iterable[tuple[object, object]]:
    if isinstance(node, Mapping):
        return node.items()
    return enumerate(node) if isinstance(node, list | tuple) else ()


def kind_of(value: object) -> str:
    """What a person calls a value that is no tensor: 'dict', 'int', 'argparse.Namespace'."""
    kind = getattr(value, "kind", None)
    return kind if isinstance(kind, str) else type(value).__name__

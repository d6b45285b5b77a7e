"""Where in a nested checkpoint the state dicts lie. Works on any tree of dicts and lists; knows no file format."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ckptconv.errors import UnreadableError
from ckptconv.spec import Section, TensorSpec

_MOST_CONTAINERS = 200_000
_DEEPEST = 24


def find_sections(tree: object, spec_of: Callable[[object], TensorSpec | None]) -> dict[str, Section]:
    """Every mapping that holds tensors directly, by its dotted path ('' is the top), outermost first.

    ``spec_of`` gives a tensor's spec and None for anything else. Raises UnreadableError for a tree that contains
    itself or has no end: pickles can build both.
    """
    sections: dict[str, Section] = {}
    queue: deque[tuple[str, int, object]] = deque([("", 0, tree)])
    visits = 0
    while queue:
        path, depth, node = queue.popleft()
        visits += 1
        if visits > _MOST_CONTAINERS or depth > _DEEPEST:
            raise UnreadableError(
                "the file nests its contents without end",
                "It was not written by a training script; get it again from its source.",
            )
        tensors: dict[str, TensorSpec] = {}
        others: dict[str, str] = {}
        for key, value in _items(node):
            spec = spec_of(value)
            if spec is not None and isinstance(key, str):
                tensors[key] = spec
                continue
            others[str(key)] = kind_of(value)
            if isinstance(value, Mapping | list | tuple) and value:
                step = str(key) or "''"
                queue.append((f"{path}.{step}" if path else step, depth + 1, value))
        if tensors and isinstance(node, Mapping):
            while path in sections:  # {'a.b': …} beside {'a': {'b': …}}
                path += "'"
            sections[path] = Section(tensors, others, node)
    return sections


def _items(node: object) -> Sequence[tuple[object, object]]:
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    return ()


def kind_of(value: object) -> str:
    """What a person calls a value that is no tensor: 'dict', 'int', 'argparse.Namespace'."""
    kind = getattr(value, "kind", None)
    return kind if isinstance(kind, str) else type(value).__name__

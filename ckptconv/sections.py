"""Where in a nested checkpoint the state dicts lie. Works on any tree of dicts and lists; knows no file format."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.spec import Section, TensorSpec, Unreadable

BELOW = "..."
"""At the end of a path: everything below it, as one section."""

_MOST_CONTAINERS = 50_000
_MOST_ENTRIES = 1_500_000
_MOST_TENSORS = 50_000
_MOST_LETTERS = 5_000_000
_DEEPEST = 24
_MOST_ALIKE = 4
_LONGEST_NAME = 1_000  # letters, of a name or a path


Look = Callable[[object], TensorSpec | Unreadable | Mapping[Any, Any] | None]
"""Says what a value is: a tensor, something that stands for one, a mapping in disguise, or nothing of these."""

NAMELESS = "Give it a name that is text where the file is made."


def find_sections(tree: object, look: Look) -> dict[str, Section]:
    """Every mapping that holds tensors directly, or what stands for tensors, by its dotted path, outermost first.

    The top is ''. Raises UnreadableError for a tree that contains itself or never ends: pickles can build both.
    """
    sections: dict[str, Section] = {}
    seen = look(tree)
    queue: deque[tuple[str, int, object]] = deque([("", 0, seen if isinstance(seen, Mapping) else tree)])
    visits = entries = found = letters = 0
    while queue:
        path, depth, node = queue.popleft()
        visits += 1
        entries += len(node) if isinstance(node, Mapping | list | tuple) else 0
        if visits > _MOST_CONTAINERS or entries > _MOST_ENTRIES or depth > _DEEPEST or len(path) > _LONGEST_NAME:
            raise _endless("nests its contents without end")
        tensors: dict[str, TensorSpec] = {}
        others: dict[str, str] = {}
        unreadable: dict[str, Unreadable] = {}
        stands = False
        for key, value in _items(node):
            seen = look(value)
            if isinstance(seen, TensorSpec) and isinstance(key, str):
                tensors[key] = seen
                found += 1
                letters += len(key)
                require_few(found)
                if letters > _MOST_LETTERS:
                    raise _endless(f"holds names of more than {_MOST_LETTERS:,} letters")
                if len(key) > _LONGEST_NAME:
                    raise _endless(f"holds a name of {len(key):,} letters")
                continue
            if isinstance(node, Mapping):
                name = _text(key, node)
                others[name] = kind_of(value)
                if isinstance(seen, TensorSpec):
                    unreadable[name] = Unreadable(f"a tensor whose name is not text but {kind_of(key)}", NAMELESS)
                elif isinstance(seen, Unreadable):
                    unreadable[name], stands = seen, True
            below = seen if isinstance(seen, Mapping) else value
            if isinstance(below, Mapping | list | tuple) and below:
                step = str(key) or "''"
                queue.append((f"{path}.{step}" if path else step, depth + 1, below))
        if isinstance(node, Mapping) and (tensors or stands):
            alike = 0
            while path in sections:  # {'a.b': …} next to {'a': {'b': …}}
                path, alike = f"{path}'", alike + 1
                if alike > _MOST_ALIKE:
                    raise _endless("spells many of its paths alike")
            sections[path] = Section(tensors, others, node, unreadable)
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
    unreadable: dict[str, Unreadable] = {}
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
                text = _text(key, section.node)
                others[name] = section.others[text]
                if text in section.unreadable:
                    unreadable[name] = section.unreadable[text]
    return Section(tensors, others, node, unreadable) if tensors or unreadable else None


def require_few(tensors: int) -> None:
    """Raise UnreadableError for a file of more tensors than any network has."""
    if tensors > _MOST_TENSORS:
        raise _endless(f"holds more than {_MOST_TENSORS:,} tensors")


def _endless(what: str) -> UnreadableError:
    return UnreadableError(
        f"the file {what}", "It was not written by a training script. Download it again from its source."
    )


def _items(node: object) -> Iterable[tuple[object, object]]:
    if isinstance(node, Mapping):
        return node.items()
    return enumerate(node) if isinstance(node, list | tuple) else ()


def _text(key: object, node: Mapping[Any, Any]) -> str:
    """A key as text that no key of the mapping is which is text itself."""
    if isinstance(key, str):
        return key
    text = str(key) if isinstance(key, int | float | tuple | type(None)) else kind_of(key)
    while text in node:
        text += "'"
    return text


def kind_of(value: object) -> str:
    """What a person calls a value that is not a tensor: 'dict', 'int', 'argparse.Namespace'."""
    kind = getattr(value, "kind", None)
    return kind if isinstance(kind, str) else type(value).__name__

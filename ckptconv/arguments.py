"""How a sentence names a parameter, or a call, of this library: as Python code between backticks.

An error, a hint or a finding is a plain text, in which a caller from Python reads what to type. `cli` finds the same
code in the text, and writes it as options and commands. No other module knows that there is a command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath

SOURCE, DESTINATION = "SRC", "DST"
"""What stands in a call for names that only the caller knows, see `name_files`."""

_CODE = re.compile(r"`(?=[a-z_]+[`=]|ckptconv\.)([^`\n]+)`")
_GIVEN_NOTHING = object()


@dataclass(frozen=True)
class Argument:
    """A parameter, with a value if one is given."""

    name: str
    value: object = _GIVEN_NOTHING

    @property
    def has_value(self) -> bool:
        return self.value is not _GIVEN_NOTHING

    def __str__(self) -> str:
        return f"{self.name}={_literal(self.value)}" if self.has_value else self.name


@dataclass(frozen=True)
class Call:
    """A call of one of the package's functions."""

    function: str
    positional: tuple[object, ...] = ()
    keywords: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        keywords = (str(Argument(name, value)) for name, value in self.keywords.items())
        return f"ckptconv.{self.function}({', '.join((*map(_literal, self.positional), *keywords))})"


def _literal(value: object) -> str:
    """A value as Python writes it, without backticks."""
    return repr(str(value) if isinstance(value, PurePath) else value).replace("`", "\\x60")


def argument(name: str, value: object = _GIVEN_NOTHING) -> str:
    """A parameter for a sentence.

    >>> print(f"{argument('image_size', 225)} is not a multiple of 16")
    `image_size=225` is not a multiple of 16
    """
    return f"`{Argument(name, value)}`"


def call(function: str, *positional: object, **keywords: object) -> str:
    """A call for a sentence. Keywords that are None or () are left out.

    >>> print(call("convert", "SRC", "DST", method="moco_v2", section=None))
    `ckptconv.convert('SRC', 'DST', method='moco_v2')`
    """
    given = {name: value for name, value in keywords.items() if value is not None and value != ()}
    return f"`{Call(function, positional, given)}`"


def rewrite(text: str, spell: Callable[[Argument | Call], str | None]) -> str:
    """The text, with every parameter and call in it spelled in another way; None leaves one as it is."""

    def spelled(match: re.Match[str]) -> str:
        found = _parsed(match[1])
        other = None if found is None else spell(found)
        return match[0] if other is None else other

    return _CODE.sub(spelled, text)


def _parsed(code: str) -> Argument | Call | None:
    """What `Argument` or `Call` has written; None for anything else."""
    import ast  # only refusals need it

    if code.isidentifier():
        return Argument(code)
    try:
        node = ast.parse(code if code.startswith("ckptconv.") else f"_({code})", mode="eval").body
        if not isinstance(node, ast.Call):
            return None
        positional = tuple(map(ast.literal_eval, node.args))
        keywords = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg is not None}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    if isinstance(node.func, ast.Attribute):
        return Call(node.func.attr, positional, keywords)
    return Argument(*keywords.popitem()) if len(keywords) == 1 and not positional else None


def name_files(text: str, source: str, destination: str | None = None, rules: str | None = None) -> str:
    """The text with a caller's own names in its calls: for SRC, for DST if it is known, and a rule file if one is used.

    ``rules`` belongs to every call, for with it the source was read.
    """

    def named(found: Argument | Call) -> str | None:
        if not isinstance(found, Call) or found.positional[:1] != (SOURCE,):
            return None
        rest = found.positional[1:]
        positional = (source, *((destination,) if rest == (DESTINATION,) and destination is not None else rest))
        keywords = found.keywords if rules is None else {**found.keywords, "rules": rules}
        return f"`{replace(found, positional=positional, keywords=keywords)}`"

    return rewrite(text, named)

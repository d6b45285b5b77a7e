"""Parameters and calls of the library, as they are named in its texts, spelled as options and commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import typer

from ckptconv.arguments import Argument, Call, rewrite
from ckptconv.errors import shell_word


def spell(text: str) -> str:
    """The text, in which Python's parameters and calls are those of the command line."""
    return rewrite(text, _spelled) if "`" in text else text


def option_of(parameter: str) -> str:
    """What the command line calls a parameter; '' if it has none."""
    return _names().get(parameter, "") if parameter else ""


def _spelled(found: Argument | Call) -> str | None:
    if isinstance(found, Argument):
        return " ".join(_option(found)) if found.name in _names() else None  # else it is code of another program
    if not found.keywords.keys() <= _names().keys():
        return None
    options = (word for name, value in found.keywords.items() for word in _option(Argument(name, value)))
    return " ".join(("ckptconv", found.function.replace("_", "-"), *options, *map(_word, found.positional)))


def _option(given: Argument) -> Iterator[str]:
    """The words of an option: it is repeated for a list, and a flag has no value."""
    name = _names()[given.name]
    if not given.has_value or isinstance(given.value, bool):
        yield name
    elif isinstance(given.value, list):
        for one in given.value:
            yield f"{name} {_word(one)}"
    else:
        yield f"{name} {_word(given.value)}"


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={one}" for key, one in value.items())
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    return shell_word(str(value))


@cache
def _names() -> dict[str, str]:
    """What the command line calls each parameter: the first name of an option, or the word for an argument."""
    from ckptconv.cli.app import app

    known = {"guard": "--no-guard"}  # it is named where it may be left out
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009 (typer gives a group, and calls it a command)
    for command in commands.values():
        for parameter in command.params:
            is_option = parameter.param_type_name == "option"
            known.setdefault(parameter.name, parameter.opts[0] if is_option else parameter.metavar)
    return known

"""The library knows no command line: it names parameters and calls, and `cli` alone spells them as options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer

import ckptconv
from ckptconv.arguments import Argument, Call, rewrite
from ckptconv.cli.app import app

PACKAGE = Path(ckptconv.__file__).parent
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

OTHER_PROGRAMS = {
    ("mmdetection/config/training_commands.py", "--launcher"),  # of MMDetection's tools/train.py
    ("mmdetection/verify/run/launch.py", "--nodes"),  # of srun
}
"""Options of other programs that ckptconv has, too, by the module that writes their commands."""


def own_options() -> set[str]:
    commands = getattr(typer.main.get_command(app), "commands").values()  # noqa: B009 (as in `spelling`)
    groups = [*commands, *(inner for one in commands for inner in getattr(one, "commands", {}).values())]
    return {name for command in groups for one in command.params for name in one.opts if name.startswith("--")}


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the package outside `cli`, docstrings and the parts of f-strings included, with its module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if not module.startswith("cli/"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield module, node.value


def test_no_text_of_the_library_has_an_option_of_the_command_line() -> None:
    own = own_options()
    assert {"--method", "--selfsup", "--drop", "--image-size", "--data-root", "--cache-dir"} <= own
    found = {(module, name) for module, text in texts() for name in _OPTION.findall(text) if name in own}
    assert found - OTHER_PROGRAMS == set()
    assert found >= OTHER_PROGRAMS  # an exception that nothing needs is an open door


def named() -> Iterator[tuple[str, Argument | Call]]:
    """Calls between backticks in the package's texts, and what `argument` and `call` are called for."""
    for module, text in texts():
        seen: list[Argument | Call] = []
        rewrite(text, lambda one, seen=seen: seen.append(one) or "")  # type: ignore[misc]
        yield from ((module, one) for one in seen if isinstance(one, Call))
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("argument", "call"):
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and path.name != "arguments.py":
                    module = path.relative_to(PACKAGE).as_posix()
                    words = {word.arg: None for word in node.keywords if word.arg}
                    name = str(first.value)
                    yield module, Argument(name) if node.func.id == "argument" else Call(name, (), words)


def test_every_call_that_a_text_names_is_public_and_a_command() -> None:
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009 (as in `spelling`)
    calls = [(module, one) for module, one in named() if isinstance(one, Call) and module != "arguments.py"]
    assert {one.function for _, one in calls} >= {"convert", "inspect", "emit_config"}
    for module, one in calls:
        assert one.function in ckptconv.__all__, module
        command = commands[one.function.replace("_", "-")]
        assert one.keywords.keys() <= {parameter.name for parameter in command.params}, (module, str(one))


def test_every_parameter_that_is_named_by_argument_is_one_of_the_command_line() -> None:
    commands = getattr(typer.main.get_command(app), "commands").values()  # noqa: B009 (as in `spelling`)
    known = {parameter.name for command in commands for parameter in command.params} | {"guard"}
    names = {(module, one.name) for module, one in named() if isinstance(one, Argument)}
    assert len(names) > 40
    assert {(module, name) for module, name in names if name not in known} == set()

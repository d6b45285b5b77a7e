"""Errors of usage carry the parameter that their message names, and `--json` says it, with the option."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptconv
from ckptconv.arguments import Argument, Call, rewrite
from ckptconv.cli import render
from ckptconv.errors import CkptconvError, UsageError

PACKAGE = Path(ckptconv.__file__).parent


def code_of_parameters(message: ast.expr, variables: dict[str, set[str]]) -> set[str]:
    """The parameters that a message names, each as the code of its name."""
    names: set[str] = set()

    def add(one: Argument | Call) -> None:
        if isinstance(one, Argument):
            names.add(repr(one.name))

    for node in ast.walk(message):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "argument":
            names.add(ast.unparse(node.args[0]))
        elif isinstance(node, ast.Name):
            names |= variables.get(node.id, set())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            rewrite(node.value, add)
    return names


def errors_that_name_one() -> Iterator[tuple[str, str, str]]:
    """The place of each UsageError whose message names exactly one parameter, that name, and the one it carries."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                yield from errors_of(function, path.relative_to(PACKAGE).as_posix())


def errors_of(function: ast.FunctionDef, module: str) -> Iterator[tuple[str, str, str]]:
    variables: dict[str, set[str]] = {}
    for node in sorted(ast.walk(function), key=lambda node: getattr(node, "lineno", 0)):  # the last value counts
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call):
            variables[node.targets[0].id] = code_of_parameters(node.value, {})
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UsageError":
            message, *rest = node.args
            named = code_of_parameters(message, variables)
            if len(named) == 1:
                given = [*rest[1:], *(word.value for word in node.keywords if word.arg == "parameter")]
                yield f"{module}:{node.lineno}", named.pop(), ast.unparse(given[0]) if given else "none"


def test_a_usage_error_that_names_one_parameter_carries_it() -> None:
    found = list(errors_that_name_one())
    assert len(found) > 25
    assert {"'frozen_stages'", "'channels'", "'drop'", "'expect'", "'classes'"} <= {named for _, named, _ in found}
    assert [one for one in found if one[1] != one[2]] == []


@pytest.mark.parametrize(
    ("problem", "parameter", "option"),
    [
        (UsageError("wrong", "hint", "image_size"), "image_size", "--image-size"),
        (UsageError("wrong", "hint", "method"), "method", "--selfsup"),
        (UsageError("wrong", "hint", "source"), "source", "SRC"),
        (UsageError("wrong", "hint", "guard"), "guard", "--no-guard"),
        (UsageError("wrong", "hint", "options"), "options", ""),  # of Python alone
        (CkptconvError("wrong"), "", ""),
    ],
)
def test_json_says_the_parameter_and_its_option(
    problem: CkptconvError, parameter: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    render.error(problem, 2, as_json=True)
    body = json.loads(capsys.readouterr().out)["error"]
    assert (body["parameter"], body["option"]) == (parameter, option)

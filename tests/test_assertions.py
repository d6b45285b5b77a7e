"""Every test can fail by what it has found: it asserts something, itself or through a helper of the tests."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HELPERS = [path for path in TESTS.rglob("*.py") if path.stem == "conftest" or path.parent.name == "support"]
RAISE = ("raises", "warns", "fail")
"""Functions of pytest that end a test. Those of other files do whose names begin with ``assert_`` or ``require``."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, Function)]


@cache
def called(function: Function) -> set[str]:
    """The last names of what a function calls."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


@cache
def checks(function: Function) -> bool:
    """Whether a function asserts, raises or has a process checked."""
    return any(
        isinstance(node, ast.Assert | ast.Raise)
        or (isinstance(node, ast.keyword) and node.arg == "check" and ast.unparse(node.value) == "True")
        for node in ast.walk(function)
    )


def asserts(function: Function, helpers: set[str]) -> bool:
    return checks(function) or any(
        name in RAISE or name in helpers or name.startswith(("require", "assert_")) for name in called(function)
    )


def asserting(candidates: list[Function]) -> set[str]:
    """The names of those that assert, themselves or through each other."""
    found: set[str] = set()
    while more := {f.name for f in candidates if f.name not in found and asserts(f, found)}:
        found |= more
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_every_test_asserts(path):
    own = functions(path)
    tests = [function for function in own if function.name.startswith("test_")]
    helpers = asserting([f for f in own if f not in tests] + [f for helper in HELPERS for f in functions(helper)])
    assert not [f"{path.name}:{test.lineno} {test.name}" for test in tests if not asserts(test, helpers)]


@pytest.mark.parametrize(
    ("code", "good"),
    [
        ("def test_it(): assert 1", True),
        ("def test_it(): work()", False),
        ("def test_it():\n  with suppress(ValueError): work()", False),
        ("def test_it():\n  with pytest.raises(ValueError): work()", True),
        ("def same(a, b): assert a == b\ndef each(a): same(a, 1)\ndef test_it(): each(1)", True),
    ],
)
def test_the_control_tells_them_apart(code, good):
    made = [node for node in ast.parse(code).body if isinstance(node, Function)]
    assert asserts(made[-1], asserting(made[:-1])) == good

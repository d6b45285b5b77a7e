"""The API page's reference, made from the package: signatures from the source, sentences from the docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import ckptconv
from ckptconv import errors

_WIDE = 100
_SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"    (\*?\w[^:]*): (.*)")
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def reference() -> str:
    """Functions, classes and errors of `ckptconv.__all__`, and all errors, as Markdown."""
    names = [name for name in ckptconv.__all__ if not name.startswith("_")]
    known = {name: getattr(ckptconv, name) for name in names}
    exceptions = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, Exception)]
    functions = {n: o for n, o in known.items() if inspect.isroutine(o)}
    classes = {n: o for n, o in known.items() if inspect.isclass(o) and not issubclass(o, Exception)}
    others = {n: o for n, o in known.items() if n not in functions | classes and not inspect.isclass(o)}
    parts = ["### Functions", *(_described(n, o) for n, o in functions.items())]
    parts += ["### Classes", *(_described(n, o) for n, o in classes.items())]
    parts += ["### Types", *(_described(n, o) for n, o in others.items())] if others else []
    if aliases := list(_aliases("\n".join(parts))):
        parts += ["### Names in signatures", "```py\n" + "\n".join(aliases) + "\n```"]
    return "\n\n".join([*parts, "### Exceptions", _table(exceptions)])


def _described(name: str, thing: object) -> str:
    home = importlib.import_module(_home(name, thing))
    node = _definition(home, name)
    code = (_class(node) if isinstance(node, ast.ClassDef) else _signature(node)).replace("'", '"')
    parts = [f"#### `{name}`", f"```py\n{code}\n```"]
    if not isinstance(node, ast.Assign | ast.AnnAssign) and (text := ast.get_docstring(node)):
        parts.append(markdown(text))
    fields = list(_documented(node)) if isinstance(node, ast.ClassDef) else []
    return "\n\n".join([*parts, "\n".join(f"* `{field}`: {said}" for field, said in fields)] if fields else parts)


def _aliases(text: str) -> Iterator[str]:
    """The definitions of the type aliases in the text's signatures."""
    used = set(re.findall(r": ([A-Z]\w+)", text)) - {"Path"}  # which is that of pathlib
    for path in sorted(Path(str(ckptconv.__file__)).parent.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(name, ast.Name) and name.id in used:
                used.remove(name.id)
                yield ast.unparse(node).replace("'", '"')


def _home(name: str, thing: object) -> str:
    """The module that defines it; a type's own ``__module__`` may be that of `typing`."""
    where = str(getattr(thing, "__module__", ""))
    return where if where.startswith("ckptconv") else f"ckptconv.{ckptconv._HOMES[name]}"


def _definition(home: ModuleType, name: str) -> Definition:
    tree = ast.parse(Path(str(home.__file__)).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(
            isinstance(t, ast.Name) and t.id == name for t in targets
        ):
            return node
    raise LookupError(f"{home.__name__} does not define {name}")


def _signature(node: Definition) -> str:
    if not isinstance(node, ast.FunctionDef):
        return ast.unparse(node)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({ast.unparse(node.args)}){returns}"
    if len(line) <= _WIDE:
        return line
    return "\n".join([f"{node.name}(", *(f"    {one}," for one in _arguments(node.args)), f"){returns}"])


def _arguments(args: ast.arguments) -> Iterator[str]:
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]
    yield from (_argument(a, d) for a, d in zip(positional, defaults, strict=True))
    if args.vararg or args.kwonlyargs:
        yield f"*{args.vararg.arg}" if args.vararg else "*"
    yield from (_argument(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True))
    if args.kwarg:
        yield f"**{_argument(args.kwarg, None)}"


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    typed = f"{arg.arg}: {ast.unparse(arg.annotation)}" if arg.annotation else arg.arg
    return typed + (f" = {ast.unparse(default)}" if default is not None else "")


def _class(node: ast.ClassDef) -> str:
    """A dataclass as its fields; of any other class its constructor."""
    fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign) and _public(one)]
    return "\n".join([f"class {node.name}:", *(f"    {field}" for field in fields or ["..."])])


def _public(field: ast.AnnAssign) -> bool:
    named = isinstance(field.target, ast.Name) and not field.target.id.startswith("_")
    return named and "ClassVar" not in ast.unparse(field.annotation)


def _documented(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Fields with the text below each."""
    for field, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and _public(field)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            text = " ".join(inspect.cleandoc(str(below.value.value)).split())
            yield ast.unparse(field.target), _code(text)


def _table(exceptions: Iterable[type[Exception]]) -> str:
    lines = ["| exception | is a | exit code | meaning |", "| --- | --- | --- | --- |"]
    for error in exceptions:
        code = getattr(error, "exit_code", "")
        said = " ".join(inspect.cleandoc(error.__doc__ or "").partition("\n\n")[0].split())
        lines.append(f"| `{error.__name__}` | `{error.__bases__[0].__name__}` | {code} | {_code(said)} |")
    return "\n".join(lines)


def markdown(text: str) -> str:
    """A docstring as Markdown: literals, and the lists of arguments, results and errors."""
    lines, made = _code(text).splitlines(), list[str]()
    inside = False
    for line in lines:
        if head := _SECTION.match(line):
            made += [f"{head[0]}", ""]
            inside = True
        elif inside and (entry := _ENTRY.match(line)):
            names = ", ".join(f"`{name.strip()}`" for name in entry[1].split(","))
            made.append(f"* {names}: {entry[2]}")
        elif inside and line.startswith("        "):
            made[-1] += f" {line.strip()}"
        elif inside and line.strip():
            made.append(line.strip() if made[-1] == "" else f"  {line.strip()}")
        else:
            made.append(line)
    return "\n".join(made)


def _code(text: str) -> str:
    return text.replace("``", "`")

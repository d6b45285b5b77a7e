"""The class names of MMDetection's data sets, read from its source: `import mmdet` takes seconds and needs torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

ORIGINAL = "CocoDataset"


@functools.cache
def classes_of(kind: str) -> tuple[str, ...] | None:
    """The classes of a data set that reads files as `CocoDataset` does: itself, or one that only has other classes.

    None for every other data set: it may read, number or filter in another way.
    """
    folder = _folder()
    if folder is None:
        return None
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if f"class {kind}(" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and node.name == kind and (kind == ORIGINAL or _only_renames(node)):
                return _classes(node)
    return None


def _folder() -> Path | None:
    try:
        spec = importlib.util.find_spec("mmdet")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent / "datasets" if spec and spec.origin else None


def _only_renames(node: ast.ClassDef) -> bool:
    """Whether a class is `CocoDataset` with other METAINFO: no method, no other attribute."""
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return bases == [ORIGINAL] and all(
        (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)) or _is_metainfo(part)
        for part in node.body
    )


def _is_metainfo(part: ast.stmt) -> bool:
    return (
        isinstance(part, ast.Assign)
        and len(part.targets) == 1
        and isinstance(part.targets[0], ast.Name)
        and part.targets[0].id == "METAINFO"
    )


def _classes(node: ast.ClassDef) -> tuple[str, ...] | None:
    """Of ``METAINFO = {'classes': (…), …}`` or ``METAINFO = dict(classes=(…), …)``."""
    for part in node.body:
        if not (isinstance(part, ast.Assign) and _is_metainfo(part)):
            continue
        value = part.value
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(value, ast.Dict):
            pairs = [
                (key.value, v) for key, v in zip(value.keys, value.values, strict=True) if isinstance(key, ast.Constant)
            ]
        elif isinstance(value, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in value.keywords]
        for name, literal in pairs:
            if name == "classes":
                try:
                    names = ast.literal_eval(literal)
                except ValueError:
                    return None
                return tuple(names) if isinstance(names, tuple | list) else None
    return None

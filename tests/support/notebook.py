"""The notebook of the guide, run without Jupyter: each cell's last expression is what the cell shows.

``python -m tests.support.notebook`` runs it and writes its outputs.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ckptconv import guide

NOTEBOOK = Path(guide.__file__).with_name("notebook.ipynb")
Cell = dict[str, Any]


def read() -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return notebook


def code(notebook: dict[str, Any]) -> list[Cell]:
    """The cells with code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """As `contextlib.chdir` of Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(cells: list[Cell], folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The outputs of each cell, in one namespace, in this folder."""
    names: dict[str, Any] = {}
    with _inside(folder):
        for number, cell in enumerate(cells, 1):
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            printed = io.StringIO()
            value = None
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, f"cell {number}", "exec"), names)
                if isinstance(last, ast.Expr):
                    value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            yield list(_outputs(printed.getvalue(), value, number))


def _outputs(printed: str, value: Any, number: int) -> Iterator[dict[str, Any]]:
    if printed:
        yield {"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)}
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": value._repr_html_().splitlines(keepends=True), **data}
        yield {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}


def updated() -> str:
    """The notebook with the outputs that its cells have now."""
    notebook = read()
    cells = code(notebook)
    with tempfile.TemporaryDirectory() as folder:
        for number, (cell, outputs) in enumerate(zip(cells, run(cells, Path(folder)), strict=True), 1):
            cell["outputs"], cell["execution_count"] = outputs, number
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(updated(), encoding="utf-8")

"""The notebook of the guide shows what its cells show when they are run."""

from __future__ import annotations

import json

import pytest

from tests.support import notebook
from tests.support.html_page import Parsed

pytestmark = pytest.mark.torch
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def cells() -> list[notebook.Cell]:
    return notebook.code(notebook.read())


def test_the_outputs_are_those_of_now():
    """Write them again: python -m tests.support.notebook."""
    assert notebook.NOTEBOOK.read_text(encoding="utf-8") == notebook.updated()


def test_it_shows_a_plan_a_receipt_a_diff_and_a_proof(cells):
    shown = [output["data"] for cell in cells for output in cell["outputs"] if "data" in output]
    html = ["".join(data["text/html"]) for data in shown if "text/html" in data]
    assert [Parsed(text).said("b")[0].split(":")[0] for text in html] == [
        "Complete", "Converted", "The same numbers", "119/120 tensors of the file are in the module, equal",
    ]  # fmt: skip
    assert all("text/plain" in data for data in shown)


def test_it_is_a_notebook(cells):
    """What nbformat 4 asks of each cell: https://nbformat.readthedocs.io/en/latest/format_description.html."""
    body = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    assert (body["nbformat"], body["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {cell["cell_type"] for cell in body["cells"]} == {"code", "markdown"}
    assert all(isinstance(cell["source"], list) for cell in body["cells"])


def test_a_notebook_has_no_path_of_a_machine():
    assert "/tmp" not in notebook.NOTEBOOK.read_text(encoding="utf-8")

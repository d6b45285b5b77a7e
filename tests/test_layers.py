"""Who may import whom: a module imports what stands in its own line or above it, at module level and inside functions.

`python -m tests.test_layers` prints the rooms (folders) and arrows (which folder imports which) of the package.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import ckptconv

PACKAGE = Path(ckptconv.__file__).parent

# From the ground up. A folder's name stands for every module in it that has no line of its own.
LAYERS = (
    ("arguments", "_version"),
    ("errors",),
    ("fields", "patterns", "spec", "text", "small_file", "wrappers", "guide", "report"),
    ("sections", "ops", "rules", "rule_index"),
    ("methods.interface", "methods.registry", "methods.rule_file", "methods", "backbones"),
    ("sources", "formats"),
    ("planning",),
    ("conversion",),
    ("inspection", "remap", "proof"),
    ("difference",),
    ("mmdetection.type_names", "mmdetection.coco_file", "mmdetection.file_order"),
    ("mmdetection.hints", "mmdetection.loading", "mmdetection.loader", "mmdetection.runtime"),
    ("mmdetection.environment",),
    ("mmdetection.config",),
    ("mmdetection.verify.data",),
    ("mmdetection.check", "mmdetection.guard"),
    ("mmdetection.modules",),
    ("mmdetection.verify.compare_ap",),
    ("mmdetection.verify.tiers",),
    ("mmdetection.verify.request", "mmdetection.verify.recipes", "mmdetection.verify.measure"),
    ("mmdetection.verify.run",),
    ("mmdetection.verify.report",),
    ("mmdetection.verify",),  # what a plan is made of
    ("mmdetection.verify.runs", "mmdetection.verify.target", "mmdetection.verify.expectation"),
    ("mmdetection.verify.plan",),
    ("mmdetection.verify.requirements", "mmdetection.verify.make_report", "mmdetection.verify.verdict"),
    ("mmdetection.verify.verify_ap",),
    ("cli",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def module(path: Path) -> str:
    """A file's name inside the package: ``sources.http``; a folder's for its ``__init__``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem[:2] != "__"
}


def imports(path: Path) -> set[str]:
    """Modules of ckptconv that a file imports, wherever in it."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.ImportFrom)]
    known = set()
    for node in nodes:
        if (node.module or "").split(".")[0] == "ckptconv":
            inside = (node.module or "").removeprefix("ckptconv").removeprefix(".")
            for alias in node.names:
                full = f"{inside}.{alias.name}".removeprefix(".")
                known.add(full if full in MODULES else inside)
    return known - {""}


def level(name: str) -> int:
    """The line of LAYERS of a module, or of the nearest folder around it."""
    while name not in LEVELS:
        assert name, "a module that stands in no line of LAYERS"
        name = name.rpartition(".")[0]
    return LEVELS[name]


@pytest.mark.parametrize("name", MODULES)
def test_layers_point_one_way(name):
    above = [other for other in imports(MODULES[name]) if level(other) > level(name)]
    assert not above, f"{name} imports {above}, which stand above it"


def test_environment_imports_nothing_else_of_mmdetection():
    for name, path in MODULES.items():
        if name.startswith("mmdetection.environment"):
            theirs = {other for other in imports(path) if other.startswith("mmdetection")}
            assert all(other.startswith("mmdetection.environment") for other in theirs), name


ROOT = PACKAGE.parent
OUTSIDE = ("ckptconv", "tests.support", "benchmarks", "tests")
"""The repository's folders from the ground up: each imports itself and those before it."""


def folder_outside(name: str) -> str:
    """Which of OUTSIDE a module of the repository stands in; '' for one of other packages."""
    return max((f for f in OUTSIDE if f"{name}.".startswith(f"{f}.")), key=len, default="")


def imports_outside(path: Path) -> set[str]:
    """Modules of the repository that a file imports, wherever in it."""
    known: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            known |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in known if folder_outside(name)}


def repository() -> dict[str, Path]:
    files = [path for top in ("ckptconv", "benchmarks", "tests") for path in (ROOT / top).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def test_package_helpers_benchmarks_and_tests_point_one_way():
    for name, path in repository().items():
        own = folder_outside(name)
        above = [o for o in imports_outside(path) if OUTSIDE.index(folder_outside(o)) > OUTSIDE.index(own)]
        assert not above, f"{name} imports {above}"


def test_no_two_benchmarks_import_each_other():
    files = {name: path for name, path in repository().items() if folder_outside(name) == "benchmarks"}
    reached = {
        name: {o for o in files if any(f"{i}.".startswith(f"{o}.") for i in imports_outside(path))}
        for name, path in files.items()
    }
    for _ in files:
        reached = {name: others.union(*(reached[o] for o in others)) for name, others in reached.items()}
    assert not [name for name, others in reached.items() if name in others]


def test_the_data_check_knows_files_and_tables_only():
    """It runs where torch and MMDetection are missing, and before anything is planned."""
    allowed = {"mmdetection.type_names", "mmdetection.coco_file", "mmdetection.config.channels"} | {
        "mmdetection.config.detectors"
    }
    for name, path in MODULES.items():
        if name.startswith("mmdetection.verify.data"):
            theirs = {other for other in imports(path) if other.startswith("mmdetection")}
            others = {other for other in theirs if not other.startswith("mmdetection.verify.data")}
            assert others <= allowed, name


def room(name: str) -> str:
    """The folder that a module lies in; a folder itself for its ``__init__``."""
    return name if MODULES[name].stem == "__init__" else name.rpartition(".")[0] or "ckptconv"


def arrows() -> Counter[tuple[str, str]]:
    """How many imports lead from each folder to each other folder."""
    pairs = ((room(name), room(other)) for name, path in MODULES.items() for other in imports(path))
    return Counter((one, other) for one, other in pairs if one != other)


def test_no_two_folders_import_each_other():
    pairs = {pair for pair in arrows() if not any(room.startswith(f"{other}.") for room, other in (pair, pair[::-1]))}
    assert not {pair for pair in pairs if pair[::-1] in pairs and "ckptconv" not in pair}


def main() -> None:
    found = arrows()
    lines = sorted(len(path.read_text("utf-8").splitlines()) for path in MODULES.values())
    print(f"{len({room(name) for name in MODULES})} rooms, {len(found)} arrows, {len(lines)} modules")
    print(f"median module {lines[len(lines) // 2]} lines, longest {lines[-1]}")
    for (one, other), count in sorted(found.items()):
        print(f"{one} -> {other}: {count}")


if __name__ == "__main__":
    main()

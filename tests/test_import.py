"""What importing and converting cost: no torch, and no shadowed names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ckptconv
from tests.support import hollow

PACKAGE = Path(ckptconv.__file__).parent


def run(code: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVIES = ("torch", "numpy", "mmengine", "mmdet", "pydantic", "requests", "urllib3", "fsspec", "huggingface_hub", "ssl")
HEAVY = f"import sys; print([m for m in {HEAVIES} if m in sys.modules])"


def test_import_loads_neither_torch_nor_numpy():
    assert run(f"import ckptconv, ckptconv.remap, ckptconv.conversion.convert; {HEAVY}").strip() == "[]"


def test_help_loads_neither_torch_nor_numpy():
    code = f"""
import sys
sys.argv = ['ckptconv', '--help']
from ckptconv.cli import main
try: main()
except SystemExit as end: assert not end.code
{HEAVY}"""
    assert run(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_whole_conversion_loads_neither_torch_nor_numpy(tmp_path, suffix):
    source = hollow.fill("lightly_moco_resnet18_sequential", tmp_path / "epoch.ckpt")
    code = f"""
import sys
sys.argv = ['ckptconv', 'convert', sys.argv[1], sys.argv[2]]
from ckptconv.cli import main
try: main()
except SystemExit as end: assert not end.code
{HEAVY}"""
    assert run(code, source, tmp_path / f"r18.{suffix}").splitlines()[-1] == "[]"
    assert (tmp_path / f"r18.{suffix}").exists()


MODULES = sorted(p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" and not p.stem.startswith("__"))
FOLDERS = sorted(p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists())


def test_no_public_name_is_a_module():
    assert not set(ckptconv.__all__) & {*MODULES, *FOLDERS}


@pytest.mark.parametrize("first", [f"ckptconv.{m}" for m in (*MODULES, *FOLDERS)])
def test_public_functions_stay_functions_whatever_was_imported_first(first):
    code = f"""
import {first}
import ckptconv, types
for name in ckptconv.__all__:
    assert not isinstance(getattr(ckptconv, name), types.ModuleType), name
import ckptconv.remap
assert isinstance(ckptconv.remap, types.ModuleType)
assert callable(ckptconv.convert) and callable(ckptconv.inspect) and callable(ckptconv.plan)
"""
    run(code)


def test_the_public_names_are_sorted_and_there():
    assert sorted(ckptconv.__all__) == ckptconv.__all__
    for name in ckptconv.__all__:
        assert getattr(ckptconv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ckptconv.nothing


def test_one_place_prints():
    for path in PACKAGE.rglob("*.py"):
        if path.parts[-2:] in (("cli", "render.py"), ("cli", "app.py")):
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {ast.unparse(c.func) for c in calls}
        assert not names & {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}, path


def test_nothing_imports_what_could_execute_a_pickle():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        nodes = ast.walk(ast.parse(text))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        assert not names & {"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}, path
        assert not re.search(r"(?<![.\w])(eval|exec)\(", text), path  # a module's .eval() is another thing

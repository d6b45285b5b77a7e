"""Interpreters of their own with a part of what is installed here, for tests of what is missing.

An environment is a virtual one whose packages are links to those of this interpreter: the distributions that are asked
for, and what they require, by their metadata. So a child of a child lacks the same packages.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import forked

ROOT = Path(__file__).parents[2]
CORE = ("ckptconv",)
MMDETECTION = ("torch", "mmengine", "mmcv", "mmdet", "setuptools")
_COMMAND = "import sys; sys.argv[0] = 'ckptconv'; sys.path.remove(''); from ckptconv.cli import main; main()"


def make(folder: Path, distributions: Iterable[str] = CORE, without: Iterable[str] = ()) -> Path:
    """The interpreter of a new environment with these distributions, less what is in ``without``; its path."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "ckptconv-here.pth").write_text(f"{ROOT}\n")
    for name in closure(distributions, without):
        link(name, packages)
    return folder / "bin" / "python"


def closure(distributions: Iterable[str], without: Iterable[str] = ()) -> list[str]:
    """These distributions and what they require, as far as it is installed here; not ckptconv itself."""
    never = {canonicalize_name(name) for name in without}
    names: dict[str, None] = {}
    waiting = [(canonicalize_name(name), frozenset({""})) for name in distributions]
    while waiting:
        name, extras = waiting.pop()
        if name in names or name in never:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        names[name] = None
        for text in required:
            one = Requirement(text)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((canonicalize_name(one.name), frozenset({"", *one.extras})))
    names.pop("ckptconv", None)
    return list(names)


def link(name: str, packages: Path) -> None:
    """Put the files of a distribution of this interpreter into another environment's packages."""
    here = importlib.metadata.distribution(name)
    for top in dict.fromkeys(file.parts[0] for file in here.files or ()):
        source = Path(str(here.locate_file(top)))
        if top not in ("..", "__pycache__") and source.exists() and not (packages / top).exists():
            (packages / top).symlink_to(source)


def hide(python: Path, *paths: str) -> None:
    """Take files or folders out of an environment's packages, such as ``mmcv/_ext*``."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    for path in paths:
        top = packages / Path(path).parts[0]
        if len(Path(path).parts) > 1 and top.is_symlink():
            source = top.resolve()
            top.unlink()
            shutil.copytree(source, top, copy_function=os.symlink)
        for found in list(packages.glob(path)):
            found.unlink()


def run(python: Path | forked.Server, *words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`ckptconv` with these words in that environment, in ``folder``, with a cache there."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CKPTCONV", "VIRTUAL"))}
    env = {**clean, "CKPTCONV_CACHE_DIR": str(folder / "cache"), **variables}
    if isinstance(python, forked.Server):
        return forked.run([python.python, "-c", _COMMAND, *words], cwd=folder, env=env, server=python)
    return subprocess.run(
        [str(python), "-c", _COMMAND, *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )

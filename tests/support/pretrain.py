"""mmpretrain, timm, torchvision and transformers for the tests alone: the real classes that networks are built with.

All of them import torchvision, whose wheels hold operators compiled for CUDA; beside a CPU torch they do not load, and
`import torchvision` raises. Were it in the virtual environment, mmengine's report of the environment would raise, too.
So `make` puts them into folders of their own, which are on the path while they are imported and no longer.
Good for names, shapes and forward passes, which need none of those operators; never for users.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(sys.prefix) / "pretrain"
TRANSFORMERS = Path(sys.prefix) / "transformers"
"""A folder of its own: mmpretrain imports transformers where there is one, and fails with version 5."""
_UNASKED = ("nms", "qnms")
"""Operators for which torchvision 0.28.0 registers shapes without asking whether they were loaded."""

_schemas: list[Any] = []  # a schema is gone when its library is


@cache
def module(name: str) -> ModuleType:
    """A module of the folders, such as `timm`. Raises ImportError where `make test` has not installed it."""
    import torch

    if torch.version.cuda is None and not _schemas:
        _schemas.append(torch.library.Library("torchvision", "DEF"))
        for operator in _UNASKED:
            _schemas[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    folders, hidden = [str(FOLDER)], dict[str, ModuleType]()
    if name.partition(".")[0] == "transformers":
        folders.append(str(TRANSFORMERS))
    else:
        hidden = {one: sys.modules.pop(one) for one in list(sys.modules) if one.partition(".")[0] == "transformers"}
    sys.path += folders
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    finally:
        for folder in folders:
            sys.path.remove(folder)
        sys.modules.update(hidden)


def transformers() -> Any:
    """Hugging Face transformers. It imports what a class needs when that is first used, so one class is used here."""
    module("transformers.models.vit.modeling_vit")
    library: Any = module("transformers")
    library.logging.disable_progress_bar()
    library.logging.set_verbosity_error()
    return library


def for_processes(folder: Path) -> dict[str, str]:
    """Environment variables with which other processes import timm and torchvision, as `module` does.

    ``folder`` is made: it holds links to the two, without mmpretrain, which mmdet would import, and what Python runs
    when it starts. {} where they are installed as usual.
    """
    if importlib.machinery.PathFinder.find_spec("timm", sys.path) is not None:  # not what `module` has imported
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("timm", "torchvision", "torchvision.libs"):
        link = folder / "only" / name
        link.parent.mkdir(exist_ok=True)
        if not link.exists() and (FOLDER / name).exists():
            link.symlink_to(FOLDER / name)
    (folder / "sitecustomize.py").write_text(_AT_START.format(folder=str(folder / "only"), operators=_UNASKED))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


_AT_START = """
import sys

class Finder:
    schemas = []

    def find_spec(self, name, path=None, target=None):
        if name in ("timm", "torchvision") and not self.schemas:
            import torch

            self.schemas.append(torch.library.Library("torchvision", "DEF"))
            for operator in {operators!r}:
                self.schemas[0].define(f"{{operator}}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.path.append({folder!r})
        return None

sys.meta_path.insert(0, Finder())
"""


def models() -> ModuleType:
    """`mmpretrain.models`."""
    return module("mmpretrain.models")

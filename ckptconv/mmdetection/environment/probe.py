"""Facts about this machine that need an import, one step after the other.

`collect` runs the text of this file in a fresh interpreter, since importing a broken package may end the process: the
step after the last line of the report is the one that ended it. So nothing of ckptconv is imported here, and nothing
heavy outside a step.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "mmengine", "mmcv", "mmdet", "setuptools", "torchvision", "timm")


def load(name: str) -> Any:
    return importlib.import_module(name)


def installed(_: Path) -> dict[str, Any]:
    """The interpreter, and which distributions provide the packages: forks have other names and the same modules."""
    providers = importlib.metadata.packages_distributions()
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {p: versions(providers.get(p, [p, f"onedl-{p}"])) for p in PACKAGES},
        "absent": [p for p in PACKAGES if importlib.util.find_spec(p) is None],
    }


def versions(distributions: list[str]) -> dict[str, str]:
    """Versions of those that are installed; Python 3.10 does not know the provider of every package."""
    found = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def torch(_: Path) -> dict[str, Any]:
    module = load("torch")
    module.zeros(1).numpy()  # raises if torch was built for numpy 1 and numpy 2 is installed
    gpus = [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())]
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin")
    return {"version": str(module.__version__), "cuda": module.version.cuda, "gpus": gpus, "nvcc": bool(nvcc)}


def mmengine(_: Path) -> dict[str, Any]:
    load("mmengine.runner")
    return {}


def mmcv(_: Path) -> dict[str, Any]:
    """Run one compiled operator wherever detection would run it."""
    pytorch, ops = load("torch"), load("mmcv.ops")
    devices = ["cpu", "cuda"] if pytorch.cuda.is_available() else ["cpu"]
    for device in devices:
        boxes = pytorch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 6, 6]], device=device)
        try:
            _, kept = ops.nms(boxes, pytorch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
        except Exception as error:
            raise RuntimeError(f"nms on {device}: {error}") from error
        if kept.tolist() != [0, 2]:
            raise RuntimeError(f"nms on {device} keeps {kept.tolist()} where [0, 2] is right")
    return {"devices": devices}


def mmdet(_: Path) -> dict[str, Any]:
    load("mmdet")
    return {}


def models(_: Path) -> dict[str, Any]:
    """Everything a detector's config may name."""
    load("mmdet.utils").register_all_modules(init_default_scope=False)
    return {}


def bases(folder: Path) -> dict[str, Any]:
    config = folder / "config.py"
    config.write_text("_base_ = 'mmdet::_base_/default_runtime.py'\n")
    load("mmengine.config").Config.fromfile(str(config))
    return {}


def report(_: Path) -> dict[str, Any]:
    """What mmengine's runner collects before it does anything else."""
    load("mmengine.utils.dl_utils").collect_env()
    return {}


def torchvision(_: Path) -> dict[str, Any]:
    load("torchvision")
    return {}


def timm(_: Path) -> dict[str, Any]:
    load("timm")
    return {}


def pkg_resources(_: Path) -> dict[str, Any]:
    load("pkg_resources")
    return {}


class UnpickleProbe:
    """Makes a folder when it is unpickled by a loader that does what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def loading(folder: Path) -> dict[str, Any]:
    """Give mmengine's own loader a checkpoint as its runner saves them, and one that holds code."""
    pytorch, loader = load("torch"), load("mmengine.runner").CheckpointLoader
    hub = load("mmengine.logging").MessageHub.get_instance("ckptconv doctor")
    hub.update_scalar("train/loss", 0.5)
    weights = OrderedDict(weight=pytorch.zeros(1))
    own, code, mark = folder / "own.pth", folder / "code.pth", folder / "mark"
    pytorch.save({"meta": {}, "state_dict": weights, "message_hub": hub.state_dict()}, own)
    pytorch.save({"meta": {}, "state_dict": weights, "more": UnpickleProbe(mark)}, code)

    def refusal(path: Path) -> str:
        try:
            loader.load_checkpoint(str(path), map_location="cpu")
        except Exception as error:
            return said(error)
        return ""

    refusal(code)
    return {"own": refusal(own), "ran": mark.exists()}


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    f.__name__: f
    for f in (installed, torch, mmengine, mmcv, mmdet, models, bases, report, torchvision, timm, pkg_resources, loading)
}


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].removesuffix(": ")


def main(folder: Path, steps: list[str]) -> None:
    for step in steps:
        try:
            line = {"step": step, "found": STEPS[step](folder)}
        except BaseException as error:  # a package may also call sys.exit
            line = {"step": step, "error": said(error)}
        with (folder / "report").open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""The commands that fix an environment, as text; nothing here looks at the machine.

The versions are the newest three that fit each other: mmdet 3.3.0 needs mmcv >=2.0.0rc4,<2.2.0 and mmengine
>=0.7.1,<1.0.0 (mmdet/__init__.py), and mmcv 2.1.0 is the newest below 2.2.0. mmdet 3.2 needs the same, 3.0 and 3.1 an
mmcv below 2.1.0. The forks (github.com/VBTI-development, distributions onedl-…) do not compare their versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PINS = {"mmengine": "mmengine==0.10.7", "mmcv": "mmcv==2.1.0", "mmdet": "mmdet==3.3.0"}
_FORKS = {"mmengine": "onedl-mmengine==0.10.12", "mmcv": "onedl-mmcv==2.3.6", "mmdet": "onedl-mmdetection==3.5.1"}

# mmcv's docs/en/_static/version.json: the CUDA versions for which mmcv 2.1.0 has wheels; each torch has CPU wheels.
_WHEELS = {
    "2.1": ("12.1", "11.8"),
    "2.0": ("11.8", "11.7"),
    "1.13": ("11.7", "11.6"),
    "1.12": ("11.6", "11.3", "10.2"),
    "1.11": ("11.5", "11.3", "10.2"),
    "1.10": ("11.3", "11.1", "10.2"),
    "1.9": ("11.1", "10.2"),
    "1.8": ("11.1", "10.2", "10.1"),
}
_WHEEL_MACHINES = ("Linux x86_64", "Windows AMD64")

SETUPTOOLS = ("pip install 'setuptools<82'",)  # 82 removed pkg_resources
TORCHVISION = ("pip uninstall -y torchvision",)
TIMM = ("pip install 'timm==1.0.31'",)  # as `pyproject.toml` says in its extra
LOADER = ("custom_imports = dict(imports=['ckptconv.mmdetection.loader'])  # in the config; emit-config writes it",)


def torch(error: str, numpy: Mapping[str, str]) -> tuple[str, ...]:
    """For a torch that is missing or broken; ``numpy`` is what provides numpy."""
    if "No module named 'torch'" in error:
        return ("pip install torch",)
    if "Numpy is not available" in error:  # torch before 2.3 was built for numpy 1
        return ("pip install 'numpy<2'" if numpy else "pip install numpy",)
    return ("pip install --force-reinstall torch",)


def torchvision(torch: Mapping[str, Any]) -> tuple[str, ...]:
    """The torchvision for this torch, where timm needs one: 0.28 belongs to torch 2.13, and so on down to 0.15."""
    major, minor, *_ = (*_numbers(str(torch.get("version", ""))), 0, 0)
    if major != 2:
        return ()
    cpu = "" if torch.get("cuda") else " --index-url https://download.pytorch.org/whl/cpu"
    return (f"pip install --force-reinstall --no-deps 'torchvision==0.{minor + 15}.*'{cpu}",)


def openmmlab(package: str, error: str, installed: Mapping[str, str], onedl: bool) -> tuple[str, ...]:
    """For an mmengine or mmdet that is missing, lacks a package or does not fit."""
    if "libGL" in error or "libgthread" in error or "libxcb" in error:  # opencv-python needs a desktop's libraries
        return ("pip uninstall -y opencv-python", "pip install --force-reinstall opencv-python-headless")
    if len(installed) == 1 and "ModuleNotFoundError" in error:
        ((name, version),) = installed.items()  # pip installs its missing requirements
        return (f"pip install '{name}=={version}'",)
    return (*_removal(installed), f"pip install '{(_FORKS if onedl else _PINS)[package]}'")


def needed_mmcv(onedl: bool) -> str:
    """The mmcv that the advised mmdet needs, in words."""
    return "MMDetection 3 needs mmcv 2" if onedl else "mmdet 3.3.0 needs mmcv>=2.0.0rc4, <2.2.0"


def mmdet_takes(mmcv: str, onedl: bool) -> bool:
    """Whether the advised mmdet takes this mmcv."""
    return _numbers(mmcv) >= (2,) if onedl else _numbers(mmcv)[:2] in ((2, 0), (2, 1))


def takes_advised_mmcv(mmdet: Mapping[str, str], onedl: bool) -> bool:
    """Whether this mmdet takes the advised mmcv; the fork's mmcv is 2.3 or newer."""
    return all(name.startswith("onedl-") if onedl else _numbers(version) >= (3, 2) for name, version in mmdet.items())


def builds_mmcv(python: str) -> bool:
    """Whether mmcv 2.1.0 can be built: its setup.py reads `locals()` after exec, which fails from Python 3.13."""
    return _numbers(python)[:2] < (3, 13)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _removal(installed: Mapping[str, str]) -> tuple[str, ...]:
    return (f"pip uninstall -y {' '.join(installed)}",) if installed else ()


def mmcv(machine: str, torch: Mapping[str, Any], installed: Mapping[str, str], onedl: bool) -> tuple[str, ...]:
    """For an mmcv that is missing, has no ops or does not fit; ``torch`` is what `probe.torch` found."""
    remove = _removal(installed)
    minor = ".".join(torch.get("version", "").split(".")[:2])
    cuda = torch.get("cuda")
    if onedl and cuda:  # there are wheels for pairs of CUDA and torch, and none for the CPU (onedl-mmcv's README)
        return (*remove, "pip install -U onedl-mim", "mim install onedl-mmcv")
    if not onedl and machine in _WHEEL_MACHINES and minor in _WHEELS and (not cuda or cuda in _WHEELS[minor]):
        return (*remove, "pip install -U openmim 'setuptools<82'", f"mim install '{_PINS['mmcv']}'")
    force = "FORCE_CUDA=1 " if cuda and (torch["gpus"] or torch["nvcc"]) else ""
    # Without --no-cache-dir, pip reuses a wheel that it built earlier without ops or for another torch.
    wanted = (_FORKS if onedl else _PINS)["mmcv"]
    name = wanted.partition("==")[0]
    build = f"pip install --no-cache-dir --no-build-isolation --no-binary {name} '{wanted}'"
    nvcc = f", needs nvcc {cuda}" if cuda and torch["gpus"] and not torch["nvcc"] else ""
    why = f"  # from source, about ten minutes{nvcc}"
    return (*remove, "pip install 'setuptools<82' wheel ninja", f"MMCV_WITH_OPS=1 {force}{build}{why}")

"""The commands that mend an environment, as text; nothing here looks at the machine.

The versions are the newest three that fit each other: mmdet 3.3.0 wants mmcv >=2.0.0rc4,<2.2.0 and mmengine
>=0.7.1,<1.0.0 (mmdet/__init__.py), and mmcv 2.1.0 is the newest below 2.2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PINS = {"mmengine": "mmengine==0.10.7", "mmcv": "mmcv==2.1.0", "mmdet": "mmdet==3.3.0"}
_FORKS = {"mmengine": "onedl-mmengine", "mmcv": "onedl-mmcv", "mmdet": "onedl-mmdetection"}

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
LOADER = ("custom_imports = dict(imports=['ckptconv.mmdetection.loader'])  # in the config; emit-config writes it",)


def torch(error: str, numpy: Mapping[str, str]) -> tuple[str, ...]:
    """For a torch that is missing or broken; ``numpy`` is what provides numpy."""
    if "No module named 'torch'" in error:
        return ("pip install torch",)
    if "Numpy is not available" in error:  # torch before 2.3 was built for numpy 1
        return ("pip install 'numpy<2'" if numpy else "pip install numpy",)
    return ("pip install --force-reinstall torch",)


def openmmlab(package: str, error: str, installed: Mapping[str, str], onedl: bool) -> tuple[str, ...]:
    """For an mmengine or mmdet that is missing, lacks a package or does not fit."""
    if "libGL" in error or "libgthread" in error or "libxcb" in error:  # opencv-python wants a desktop's libraries
        return ("pip uninstall -y opencv-python", "pip install --force-reinstall opencv-python-headless")
    if len(installed) == 1 and "ModuleNotFoundError" in error:
        ((name, version),) = installed.items()  # pip brings what it requires and is not there
        return (f"pip install '{name}=={version}'",)
    remove = (f"pip uninstall -y {' '.join(installed)}",) if installed else ()
    return (*remove, f"pip install {_FORKS[package]}" if onedl else f"pip install '{_PINS[package]}'")


def mmcv(machine: str, torch: Mapping[str, Any], installed: Mapping[str, str], onedl: bool) -> tuple[str, ...]:
    """For an mmcv that is missing, has no ops or does not fit; ``torch`` is what `probe.torch` found."""
    remove = (f"pip uninstall -y {' '.join(installed)}",) if installed else ()
    if onedl:
        return (*remove, "pip install -U onedl-mim", f"mim install {_FORKS['mmcv']}")
    minor = ".".join(torch.get("version", "").split(".")[:2])
    cuda = torch.get("cuda")
    if machine in _WHEEL_MACHINES and minor in _WHEELS and (not cuda or cuda in _WHEELS[minor]):
        return (*remove, "pip install -U openmim 'setuptools<82'", f"mim install '{_PINS['mmcv']}'")
    force = "FORCE_CUDA=1 " if cuda and (torch["gpus"] or torch["nvcc"]) else ""
    # Without --no-cache-dir, pip gives back a wheel that it once built without ops or for another torch.
    build = f"pip install --no-cache-dir --no-build-isolation --no-binary mmcv '{_PINS['mmcv']}'"
    nvcc = f", needs nvcc {cuda}" if cuda and torch["gpus"] and not torch["nvcc"] else ""
    why = f"  # from source, about ten minutes{nvcc}"
    return (*remove, "pip install 'setuptools<82' wheel ninja", f"MMCV_WITH_OPS=1 {force}{build}{why}")

"""What a run records of its environment: real where it can be told, None where not, and never an error."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import mmengine
import pytest
import torch

from ckptconv.mmdetection.verify.run import environment as collecting
from ckptconv.mmdetection.verify.run import worker
from ckptconv.mmdetection.verify.run.environment import PACKAGES, environment, value_or_none, version

pytestmark = pytest.mark.mmdet
KNOWN = {"mmengine": ["mmengine"], "mmcv": ["mmcv"]}


class Unforeseen(Exception):
    """Nobody has heard of it."""


def test_it_is_what_is_installed():
    import mmcv
    import mmdet
    import pycocotools.coco  # noqa: F401 (it says no version of itself)

    found = environment()
    assert found["python"] == platform.python_version()
    assert (found["torch"], found["mmengine"]) == (torch.__version__, mmengine.__version__)
    assert (found["mmcv"], found["mmdet"]) == (mmcv.__version__, mmdet.__version__)
    assert found["pycocotools"] == metadata.version("pycocotools")
    assert found["processes"] == 1
    assert found["cores"] == os.cpu_count()
    assert None not in [found[name] for name in PACKAGES]


@pytest.mark.parametrize(
    ("where", "facts"),
    [
        ("importlib.metadata.version", ("pycocotools",)),
        ("importlib.metadata.packages_distributions", ()),
        ("torch.cuda.is_available", ("device", "cuda")),
        ("mmengine.dist.get_world_size", ("processes",)),
        ("platform.python_version", ("python",)),
        ("platform.machine", ("system",)),
    ],
)
@pytest.mark.parametrize("error", [metadata.PackageNotFoundError("mmcv"), OSError(13, "no"), RuntimeError, Unforeseen])
def test_a_collector_that_fails_costs_its_facts_only(monkeypatch, where, facts, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    before = environment()
    monkeypatch.setattr(where, fail)
    found = environment()
    assert found.keys() == before.keys()
    assert {name: value for name, value in found.items() if name not in facts} == {
        name: value for name, value in before.items() if name not in facts
    }
    assert {found[name] for name in facts} <= {None}


def test_a_core_count_that_cannot_be_told_is_none(monkeypatch):
    def fail() -> None:
        raise OSError

    monkeypatch.setattr(collecting, "_MACHINE", dict.fromkeys(collecting._MACHINE, fail))
    assert {environment()[name] for name in collecting._MACHINE} == {None}


def test_a_gpu_without_a_name_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert environment()["device"] is None


@pytest.mark.parametrize(
    ("owners", "said", "of_distributions", "found"),
    [
        (["mmcv"], "2.1.0", {}, "2.1.0"),
        (["onedl-mmcv"], "2.3.6", {}, "2.3.6 (onedl-mmcv)"),
        (["mmcv-lite"], None, {"mmcv-lite": "2.1.0"}, "2.1.0 (mmcv-lite)"),
        (["mmcv", "mmcv-lite"], "2.1.0", {}, "2.1.0 (mmcv-lite)"),
        ([], None, {"mmcv": "2.1.0"}, "2.1.0"),  # an editable install, whose files no distribution lists
        ([], "2.1.0", {}, "2.1.0"),
        ([], None, {}, None),
        (["mmcv"], None, {}, None),
        (["onedl-mmcv"], (2, 3, 6), {"onedl-mmcv": "2.3.6"}, "2.3.6 (onedl-mmcv)"),
    ],
)
def test_a_version_is_told_by_the_module_or_by_whoever_brought_it(monkeypatch, owners, said, of_distributions, found):
    def of(name: str) -> str:
        if name not in of_distributions:
            raise metadata.PackageNotFoundError(name)
        return str(of_distributions[name])

    class Module:
        __version__ = said

    monkeypatch.setitem(__import__("sys").modules, "mmcv", Module)
    monkeypatch.setattr(metadata, "version", of)
    assert version("mmcv", {"mmcv": owners}) == found


def test_a_stop_is_no_failure_of_a_collector():
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        value_or_none(stop)


def test_the_worker_records_it():
    assert worker._environment is environment

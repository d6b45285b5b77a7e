"""A file is read once by a check and once by the guard: what it says of itself, and which network its tensors are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import ckptconv
from ckptconv import backbones
from ckptconv.conversion import provenance
from ckptconv.mmdetection import guard, runtime
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.options import choose
from tests.support import raw_files

pytestmark = pytest.mark.mmdet


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with a guard, and the file that it names."""
    monkeypatch.chdir(tmp_path)
    ckptconv.convert(raw_files.moco(tmp_path / "moco18.pth.tar"), "r18.pth", "moco")
    emit.write("r18.pth", Path("detector.py"), choose(detector="retinanet"))
    return Path("detector.py")


@pytest.fixture
def calls() -> Iterator[Counter[str]]:
    """How often a record of provenance was parsed, and a network read from names and shapes."""
    counted: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return function(*args, **kwargs)

        return call

    with (
        mock.patch.object(provenance, "_pixels", counting("provenance", provenance._pixels)),
        mock.patch.object(backbones, "read", counting("backbone", backbones.read)),
    ):
        yield counted


def test_check_reads_a_file_once(config: Path, calls: Counter[str]) -> None:
    assert check(config).good
    assert calls == {"provenance": 1, "backbone": 2}  # the file's network, and the module's


def test_the_guard_reads_a_file_once(config: Path, calls: Counter[str]) -> None:
    settings = runtime.read_config(config)
    model = runtime.build(settings, str(config))
    runtime.initialise(model)
    (hook,) = (hook for hook in settings.custom_hooks if hook["type"] == "CheckpointGuard")
    logged: list[str] = []
    runner = SimpleNamespace(model=model, iter=0, _load_from=None, logger=SimpleNamespace(info=logged.append))
    guard.CheckpointGuard(hook["fingerprint"], hook.get("modules", ("backbone",))).before_train(runner)
    assert [line.partition(" tensors")[0] for line in logged] == ["guard: 120/120"]
    assert calls == {"provenance": 1, "backbone": 2}

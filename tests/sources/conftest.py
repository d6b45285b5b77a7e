from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import hollow


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real layout, small enough to be fetched often: lightly's MoCo on a ResNet-18, a zip file of 94 MB."""
    return hollow.fill("lightly_moco_resnet18_sequential", tmp_path_factory.mktemp("served") / "epoch=9.ckpt")


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between tries; nobody really waits."""
    from ckptconv.sources import retries

    waited: list[float] = []
    monkeypatch.setattr(retries, "sleep", waited.append)
    return waited


@pytest.fixture(autouse=True)
def _no_cache_of_a_person(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is read from or left in the cache of whoever runs the tests."""
    monkeypatch.setenv("CKPTCONV_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "no-cache-but-this"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

"""Every test of this folder needs MMDetection, and without it none is collected.

MMDetection is imported here, once, with the warnings of its own old code; in the tests warnings are errors.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

FOLDER = Path(__file__).parent

if find_spec("mmdet") is None:
    collect_ignore_glob = ["*"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmdet.models  # noqa: F401
        from mmengine.config import config as reading
        from mmengine.config import utils

    from ckptconv.mmdetection.check import run as checking
    from ckptconv.mmdetection.check.verdict import CheckReport
    from tests.support import fixes, forked


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.mmdet)


@pytest.fixture(autouse=True, scope="session")
def _bases_are_found_once() -> Iterator[None]:
    """mmengine reads a hundred YAML files for each ``mmdet::`` base."""
    with mock.patch.object(utils, "load", functools.cache(utils.load)):
        yield


@pytest.fixture(autouse=True, scope="session")
def _configs_are_not_formatted() -> Iterator[None]:
    """yapf takes half a second for each config that mmengine prints or writes."""
    with mock.patch.object(reading, "FormatCode", forked.parse_only):
        yield


@pytest.fixture(autouse=True)
def _fixes_are_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Whatever `check` finds in this test is recorded, and what it says to type is typed when the test is over.

    The folder of the test is asked for, so that it is there until then.
    """
    seen: dict[Any, fixes.Seen] = {}
    kind = CheckReport

    def recorded(**fields: Any) -> Any:
        found = kind(**fields)
        if not found.good:
            text = Path(found.config).read_text()
            seen[found.findings] = fixes.Seen(Path.cwd(), found.config, text, found, tuple(sys.path))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(checking, "CheckReport", recorded)
        yield
    for one in seen.values():
        fixes.require_typed(one)

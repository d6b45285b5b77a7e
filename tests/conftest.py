"""For every test: each command in the hint of a refusal is typed, on the same names."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from ckptconv.errors import CkptconvError
from ckptconv.planning import identify
from ckptconv.planning.plan_search import Planner
from tests.support import hints
from tests.support.broken import PATIENCE

# One thread for torch in each process: several tests run at once, and more threads than cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, and no limit in time: what is drawn tells nothing of a machine's speed.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """MMDetection is not even imported where nothing that needs it is to run."""
    if config.option.markexpr == "not mmdet" and collection_path == Path(__file__).parent / "mmdetection":
        return True
    return None


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage looks at it again. mmengine makes one per data set."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _hints_are_typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every refusal of the planner that this test causes is recorded, and its hint is tried when the test is over."""
    decide = identify._decide
    refused: dict[str, tuple[Any, Any, Any, CkptconvError]] = {}

    def recorded(planner: Planner, method: Any) -> Any:
        try:
            return decide(planner, method)
        except CkptconvError as error:
            if len(refused) < hints.MOST:
                refused.setdefault(error.hint, (planner.sections, method, planner.options, error))
            raise

    monkeypatch.setattr(identify, "_decide", recorded)
    yield
    monkeypatch.undo()
    for sections, method, options, error in refused.values():
        hints.require_typed(sections, method, options, error)


@pytest.fixture
def guard_each() -> Iterator[Callable[[], object]]:
    """An end to what would otherwise have none: call it before each attempt."""

    def stop(*_: object) -> NoReturn:
        raise TimeoutError(f"no answer after {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    yield lambda: signal.alarm(PATIENCE)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def guard(guard_each: Callable[[], object]) -> None:
    guard_each()

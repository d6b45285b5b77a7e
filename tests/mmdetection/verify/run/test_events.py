"""Events as they are written, followed and gathered, whatever a kill leaves of them."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv.mmdetection.verify.run.events import Follower, Log, curve

pytestmark = pytest.mark.mmdet


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def opened():
    """Logs that are closed afterwards: a run's own is open until its process ends."""
    logs = []

    def log(path: Path) -> Log:
        logs.append(Log(path))
        return logs[-1]

    yield log
    for log in logs:
        log._file.close()


def start(log: Log, iteration: int = 0, iterations: int = 10) -> None:
    log.write("start", iteration=iteration, iterations=iterations, epochs=2)


def steps(log: Log, first: int, last: int, loss: float = 1.0, seconds: float | None = 0.5) -> None:
    for i in range(first, last + 1):
        log.write("step", iteration=i, epoch=1, loss=loss, lr=0.1, seconds=seconds, memory_mib=1.0)


def line(**body: object) -> bytes:
    return json.dumps(body).encode() + b"\n"


def test_what_is_written_is_read(path, opened):
    log = opened(path)
    start(log)
    steps(log, 1, 3)
    log.write("val", iteration=3, epoch=1, ap={"box": 20.5})
    assert [e["event"] for e in Follower(path).new()] == ["start", "step", "step", "step", "val"]
    assert path.read_text().count("\n") == 5  # an event a line, and each of them at once


def test_an_event_is_there_as_soon_as_it_is_written(path, opened):
    log, follower = opened(path), Follower(path)
    for i in range(1, 4):
        steps(log, i, i)
        assert [e["iteration"] for e in follower.new()] == [i]
    assert list(follower.new()) == []


def test_a_follower_waits_for_a_file_that_is_not_there_yet(path, opened):
    follower = Follower(path)
    assert list(follower.new()) == []
    steps(opened(path), 1, 1)
    assert len(list(follower.new())) == 1


def test_a_follower_from_the_end_sees_only_what_is_new(path, opened):
    steps(opened(path), 1, 3)
    follower = Follower(path, from_the_end=True)
    steps(opened(path), 4, 5)
    assert [e["iteration"] for e in follower.new()] == [4, 5]


def test_from_the_end_of_a_file_that_is_not_there_all_is_new(path, opened):
    follower = Follower(path, from_the_end=True)
    steps(opened(path), 1, 2)
    assert [e["iteration"] for e in follower.new()] == [1, 2]


@pytest.mark.parametrize("from_the_end", [False, True])
def test_half_a_line_is_no_event_and_spoils_none(path, opened, from_the_end):
    steps(opened(path), 1, 2)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        follower = Follower(path, from_the_end)
        before = [e["iteration"] for e in follower.new()]
        assert from_the_end or before == [1, 2][: whole[:cut].count(b"\n")]
        steps(opened(path), 7, 8)
        assert [e["iteration"] for e in follower.new()][-2:] == [7, 8]
        assert {e["iteration"] for e in Follower(path).new()} <= {1, 2, 7, 8}


def test_a_line_that_only_lacks_its_end_is_an_event_once_it_has_one(path, opened):
    path.write_bytes(line(event="step", iteration=1).rstrip())
    follower = Follower(path)
    assert list(follower.new()) == []
    steps(opened(path), 2, 2)
    assert [e["iteration"] for e in follower.new()] == [1, 2]


@pytest.mark.parametrize("other", [b"\n", b"\xff\xfe\n", b"{}\n", b"[1]\n", b"null\n", b'"event"\n', b"Traceback\n"])
def test_what_is_no_event_is_passed_over(path, other):
    path.write_bytes(line(event="step", iteration=1) + other + line(event="step", iteration=2))
    assert [e["iteration"] for e in Follower(path).new()] == [1, 2]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(1, 400), max_size=12), st.integers(0, 20))
def test_each_event_is_seen_once_however_the_file_grows(cuts, events):
    whole = b"".join(line(event="step", iteration=i, said="ä\n\u2028 " * (i % 3)) for i in range(events))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        follower, seen, at = Follower(path), [], 0
        for cut in [*cuts, len(whole)]:
            with path.open("ab") as file:
                file.write(whole[at : at + cut])
            at += cut
            seen += [e["iteration"] for e in follower.new()]
    assert seen == list(range(events))


def test_a_curve_is_the_whole_run(path, opened):
    log = opened(path)
    start(log)
    steps(log, 1, 5)
    log.write("evaluating", done=1, of=9)
    log.write("val", iteration=5, epoch=1, ap={"box": 20.5})
    steps(log, 6, 10)
    log.write("val", iteration=10, epoch=2, ap={"box": 30.5})
    went = curve(path)
    assert [s["iteration"] for s in went.steps] == list(range(1, 11))
    assert [(v["iteration"], v["ap"]["box"]) for v in went.evaluations] == [(5, 20.5), (10, 30.5)]
    assert (went.starts, went.iterations) == (1, 10)


def test_what_came_after_the_checkpoint_that_a_run_went_back_to_is_forgotten(path, opened):
    log = opened(path)
    start(log)
    steps(log, 1, 8, loss=1.0)
    log.write("val", iteration=5, epoch=1, ap={"box": 20.0})
    log.write("val", iteration=8, epoch=1, ap={"box": 25.0})
    log = opened(path)  # killed at 8; the last checkpoint is that of iteration 5
    start(log, iteration=5)
    steps(log, 6, 7, loss=2.0)
    went = curve(path)
    assert [(s["iteration"], s["loss"]) for s in went.steps] == [*((i, 1.0) for i in range(1, 6)), (6, 2.0), (7, 2.0)]
    assert [v["iteration"] for v in went.evaluations] == [5]
    assert went.starts == 2


def test_a_run_that_starts_again_from_nothing_has_forgotten_all(path, opened):
    log = opened(path)
    start(log)
    steps(log, 1, 4)
    start(log)
    assert curve(path).steps == ()
    assert curve(path).starts == 2


def test_an_iteration_that_is_told_again_counts_once_and_as_it_was_last(path, opened):
    log = opened(path)
    start(log)
    log.write("val", iteration=10, epoch=2, ap={"box": 1.0})
    start(log, iteration=10)  # killed in the evaluation after the last checkpoint
    log.write("val", iteration=10, epoch=2, ap={"box": 2.0})
    assert [v["ap"]["box"] for v in curve(path).evaluations] == [2.0]


def test_a_curve_is_in_order_of_iterations(path, opened):
    log = opened(path)
    start(log)
    for i in random.Random(0).sample(range(1, 11), 10):
        steps(log, i, i)
    assert [s["iteration"] for s in curve(path).steps] == list(range(1, 11))


def test_killed_anywhere_and_resumed_a_curve_is_that_of_a_run_that_was_not(path, opened):
    log = opened(path)
    start(log)
    steps(log, 1, 10)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        log = opened(path)
        start(log, iteration=0)
        steps(log, 1, 10)
        assert [s["iteration"] for s in curve(path).steps] == list(range(1, 11))


def test_the_time_of_a_step_is_the_median(path, opened):
    log = opened(path)
    start(log)
    for i, seconds in enumerate([9.0, 0.5, 0.1, 0.4, 0.6], 1):  # the first step is slow
        steps(log, i, i, seconds=seconds)
    assert curve(path).seconds == 0.5


def test_steps_without_a_time_do_not_count_for_it(path, opened):
    log = opened(path)
    start(log)
    for i, seconds in enumerate([None, 2.0, None], 1):
        steps(log, i, i, seconds=seconds)
    assert curve(path).seconds == 2.0


def test_a_run_of_which_nothing_is_known_has_an_empty_curve(path):
    went = curve(path)
    assert (went.steps, went.evaluations, went.starts, went.iterations) == ((), (), 0, 0)
    assert went.seconds is None

"""The hooks beside a stand-in for mmengine's Runner; hub, optimizer wrappers and CocoMetric are the real ones."""

from __future__ import annotations

import json
import math
import random
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from ckptconv.mmdetection.verify.run import hooks
from ckptconv.mmdetection.verify.run.hooks import EventLogHook, RecordingCocoMetric, ReseedHook

pytestmark = pytest.mark.mmdet


class Runner(SimpleNamespace):
    """What the hooks ask a Runner for. Its ``iter`` counts the iterations that are over, as mmengine's."""

    def __init__(self, iterations: int = 100, amp: bool = False, epochs: int = 5) -> None:
        wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper) if amp else OptimWrapper.__new__(OptimWrapper)
        # AmpOptimWrapper's own constructor wants a GPU
        OptimWrapper.__init__(wrapper, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.25))
        super().__init__(
            iter=0,
            epoch=0,
            max_iters=iterations,
            max_epochs=epochs,
            message_hub=MessageHub(uuid.uuid4().hex),
            optim_wrapper=wrapper,
            val_dataloader=range(8),
        )


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def event_log(path) -> Iterator[EventLogHook]:
    """A hook whose log is closed afterwards: a run's own is open until its process ends."""
    hook = EventLogHook(str(path))
    yield hook
    hook._log._file.close()


def step(hook: EventLogHook, runner: Runner, loss: float = 1.0, **losses: float) -> None:
    """One iteration, as the Runner and its other hooks have it."""
    for name, value in {"loss": loss, "time": 0.5, "data_time": 0.1, **losses}.items():
        runner.message_hub.update_scalar(f"train/{name}", value)
    hook.after_train_iter(runner, runner.iter, outputs={"loss": loss, **losses})
    runner.iter += 1


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind; what is no JSON, such as NaN, fails."""
    said = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    return [event for event in said if event["event"] == kind]


def test_a_start_says_where_it_begins_and_how_far_it_goes(event_log, path):
    runner = Runner(iterations=40, epochs=4)
    runner.iter = 20
    event_log.before_train(runner)
    assert events(path, "start") == [{"event": "start", "iteration": 20, "iterations": 40, "epochs": 4}]


def test_a_step_says_what_the_message_hub_knows(event_log, path):
    runner = Runner()
    event_log.before_train(runner)
    runner.epoch = 2
    step(event_log, runner, 1.5, loss_cls=1.0, loss_box=0.5, acc=99.0)
    (said,) = events(path, "step")
    assert said.pop("memory_mib") > 1
    assert said == {"event": "step", "iteration": 1, "epoch": 3, "loss": 1.5, "lr": 0.25, "seconds": 0.5} | {
        "losses": {"loss_cls": 1.0, "loss_box": 0.5},
        "data_seconds": 0.1,
    }


def test_the_steps_of_a_long_run_are_told_as_means_and_the_last_of_them_too(event_log, path, monkeypatch):
    monkeypatch.setattr(hooks, "_EVENTS", 3)
    runner = Runner(iterations=8)
    event_log.before_train(runner)
    for loss in range(1, 9):
        step(event_log, runner, float(loss))
    assert [(e["iteration"], e["loss"]) for e in events(path, "step")] == [(3, 2.0), (6, 5.0), (8, 7.0)]


def test_there_are_no_more_steps_than_are_said(event_log, path, monkeypatch):
    monkeypatch.setattr(hooks, "_EVENTS", 20)
    runner = Runner(iterations=39)
    event_log.before_train(runner)
    for _ in range(39):
        step(event_log, runner)
    assert len(events(path, "step")) <= 20


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_run_at_once(event_log, path, loss):
    runner = Runner()
    event_log.before_train(runner)
    step(event_log, runner)
    with pytest.raises(FloatingPointError, match=f"^the loss is {loss} at iteration 2$"):
        step(event_log, runner, loss)
    assert [event["iteration"] for event in events(path, "step")] == [1]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_with_amp_twenty_in_a_row_end_it(event_log, path, loss):
    runner = Runner(amp=True)
    event_log.before_train(runner)
    for _ in range(19):
        step(event_log, runner, loss, loss_cls=loss)
    with pytest.raises(FloatingPointError, match=f"^the loss is {loss} at iteration 20$"):
        step(event_log, runner, loss)
    said = events(path, "step")
    assert [event["iteration"] for event in said] == list(range(1, 20))
    assert {(event["loss"], event["losses"]["loss_cls"]) for event in said} == {(None, None)}


def test_with_amp_one_number_between_them_is_enough_to_go_on(event_log, path):
    runner = Runner(amp=True)
    event_log.before_train(runner)
    for loss in ([math.nan] * 19 + [1.0]) * 3:
        step(event_log, runner, loss)
    assert len(events(path, "step")) == 60


def test_an_evaluation_says_ap_in_percent_of_what_was_measured(event_log, path):
    runner = Runner()
    runner.iter, runner.epoch = 20, 2
    event_log.after_val_epoch(runner, {"coco/bbox_mAP": 0.25, "coco/segm_mAP": 0.5, "coco/bbox_mAP_50": 0.75})
    event_log.after_val_epoch(runner, {"coco/bbox_mAP": 0.125})
    event_log.after_val_epoch(runner, {})
    said = [(event["iteration"], event["epoch"], event["ap"]) for event in events(path, "val")]
    assert said == [(20, 2, {"box": 25.0, "mask": 50.0}), (20, 2, {"box": 12.5}), (20, 2, {})]


def test_an_evaluation_under_a_prefix_of_the_configs_own_says_the_same(event_log, path):
    event_log.after_val_epoch(Runner(), {"a/bbox_mAP": 0.25, "a/segm_mAP": 0.5, "a/bbox_mAP_50": 0.75})
    assert events(path, "val")[0]["ap"] == {"box": 25.0, "mask": 50.0}


def test_what_is_evaluated_aside_is_no_evaluation_of_the_training(event_log, path, pass_by):
    evaluated(event_log, pass_by, 8, 0.5)
    event_log.raw_weights = True
    evaluated(event_log, pass_by, 8, 0.25)
    event_log.after_val_epoch(Runner(), {"coco/bbox_mAP": 0.25})
    assert (events(path, "val"), event_log.evaluated) == ([], None)
    assert event_log.images_per_second == 4.0


# where nothing is annotated pycocotools says -1, and mmdet hands it on
def test_an_ap_that_does_not_exist_is_not_minus_100(event_log, path):
    event_log.after_val_epoch(Runner(), {"coco/bbox_mAP": -1.0})
    assert events(path, "val")[0]["ap"].get("box") is None


def test_it_knows_at_which_iteration_it_was_evaluated_last(event_log):
    runner = Runner()
    assert event_log.evaluated is None
    for runner.iter in (0, 20):
        event_log.after_val_epoch(runner, {})
        assert event_log.evaluated == runner.iter


@pytest.fixture
def pass_by(monkeypatch) -> Callable[[float], None]:
    """A clock of which time passes by as one says."""
    now = [100.0]
    monkeypatch.setattr(hooks, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def evaluated(hook: EventLogHook, pass_by: Callable[[float], None], batches: int, seconds: float) -> None:
    """An evaluation of two images a batch, with as much time again between two batches."""
    runner = Runner()
    hook.before_val_epoch(runner)
    for i in range(batches):
        hook.before_val_iter(runner, i)
        pass_by(50.0 if i < 5 else seconds)
        hook.after_val_iter(runner, i, outputs=[None, None])
        pass_by(seconds)


def test_the_speed_is_of_the_last_evaluation_without_loading_and_without_its_first_batches(event_log, pass_by):
    evaluated(event_log, pass_by, 8, 0.5)
    assert event_log.images_per_second == 4.0
    evaluated(event_log, pass_by, 8, 0.25)
    assert event_log.images_per_second == 8.0


def test_five_batches_are_too_few_for_a_speed(event_log, pass_by):
    assert event_log.images_per_second is None
    evaluated(event_log, pass_by, 5, 0.5)
    assert event_log.images_per_second is None


def test_how_far_an_evaluation_is_is_told_once_a_second(event_log, path, pass_by):
    runner = Runner()
    for i in range(8):
        pass_by(0.4)
        event_log.after_val_iter(runner, i, outputs=[None])
    assert [(event["done"], event["of"]) for event in events(path, "evaluating")] == [(1, 8), (4, 8), (7, 8)]


@pytest.fixture
def unseeded() -> Iterator[None]:
    """The generators that are everybody's are put back."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(kept[0])
    np.random.set_state(kept[1])
    torch.set_rng_state(kept[2])


def draws(seed: int, epoch: int) -> tuple[float, ...]:
    """What an epoch draws from each of the generators, with others' draws before it."""
    random.random(), np.random.rand(), torch.rand(1)
    ReseedHook(seed).before_train_epoch(SimpleNamespace(epoch=epoch))
    return random.random(), float(np.random.rand()), float(torch.rand(1))


@pytest.mark.usefixtures("unseeded")
def test_an_epoch_draws_the_same_whatever_was_drawn_before_it():
    assert draws(3, 7) == draws(3, 7)


@pytest.mark.usefixtures("unseeded")
def test_each_epoch_of_each_seed_draws_something_else():
    found = [draws(seed, epoch) for seed in range(3) for epoch in range(12)]
    for generator in zip(*found, strict=True):
        assert len(set(generator)) == len(found)


# numpy takes seeds below 2**32 only
@pytest.mark.usefixtures("unseeded")
@pytest.mark.parametrize("seed", [429_496, 429_497, 20_240_101])
def test_a_seed_may_be_a_date(seed):
    assert draws(seed, 11) == draws(seed, 11)


@pytest.fixture
def metric(tmp_path) -> RecordingCocoMetric:
    """The metric of a data set of four images, of which each has one box of the second class."""
    box = {"category_id": 9, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in (3, 5, 8, 9)],
        "categories": [{"id": 2, "name": "ball"}, {"id": 9, "name": "box"}, {"id": 11, "name": "unknown"}],
        "annotations": [{"id": n, "image_id": i, **box} for n, i in enumerate((3, 5, 8, 9), 1)],
    }
    (tmp_path / "val.json").write_text(json.dumps(truth))
    metric = RecordingCocoMetric(
        str(tmp_path / "evaluation.json"),
        ann_file=str(tmp_path / "val.json"),
        outfile_prefix=str(tmp_path / "detections"),
    )
    metric.dataset_meta = {"classes": ("ball", "box")}
    return metric


def record(
    metric: RecordingCocoMetric, tmp_path: Path, *images: int, found: int = 1, whole: bool = True
) -> dict[str, Any]:
    """Evaluate these images, on each of which as many boxes were found as there are.

    ``whole``: all numbers are noted.
    """
    boxes = {
        "bboxes": torch.tensor([[4.0, 4.0, 24.0, 24.0]] * found).reshape(-1, 4),
        "scores": torch.full((found,), 0.9),
        "labels": torch.ones(found, dtype=torch.long),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in images:
            metric.process({}, [{"img_id": image, "ori_shape": (64, 64), "pred_instances": boxes}])
        metrics = metric.evaluate(len(images))
    said: dict[str, Any] = json.loads((tmp_path / "evaluation.json").read_text())
    noted = {f"coco/{name}": value for name, value in said["mmdet"].items()}
    assert noted == (metrics if whole else {name: value for name, value in metrics.items() if math.isfinite(value)})
    return said


def test_which_images_were_evaluated_is_noted_once_each_and_in_order(metric, tmp_path):
    said = record(metric, tmp_path, 9, 3, 5, 3)
    assert said["images"] == [3, 5, 9]
    assert said["categories"] == [2, 9]  # of the detector's classes, not of the file
    assert 0 < said["mmdet"]["bbox_mAP"] < 1  # one image was missed
    assert len(json.loads((tmp_path / "detections.bbox.json").read_text())) == 4


def test_images_on_which_nothing_was_found_were_evaluated_too(metric, tmp_path):
    said = record(metric, tmp_path, 3, 5, 8, 9, found=0)
    assert said["images"] == [3, 5, 8, 9]
    assert said["mmdet"] == {}


def test_another_evaluation_may_be_noted_in_a_folder_of_its_own(metric, tmp_path):
    first = record(metric, tmp_path, 3, 5, 8, 9)
    (tmp_path / "raw").mkdir()
    metric.record_in(tmp_path / "raw")
    assert record(metric, tmp_path / "raw", 5)["images"] == [5]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == first
    for folder, found in ((tmp_path, 4), (tmp_path / "raw", 1)):
        assert len(json.loads((folder / "detections.bbox.json").read_text())) == found


def test_a_class_of_which_nothing_is_annotated_has_no_number_that_json_lacks(tmp_path, metric):
    metric.classwise = True
    assert "ball_precision" not in record(metric, tmp_path, 3, 5, 8, 9, whole=False)["mmdet"]


def test_the_note_is_of_the_last_evaluation(metric, tmp_path):
    record(metric, tmp_path, 3, 5, 8, 9)
    assert record(metric, tmp_path, 5)["images"] == [5]

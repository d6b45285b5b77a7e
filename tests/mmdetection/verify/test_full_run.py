"""A config's own training, on a CPU: an average of the weights, accumulated batches and a scaled rate, by mmengine."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.cli import render_verification
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.verify import config_edits, plan, verify_ap
from ckptconv.mmdetection.verify.data import synthetic
from ckptconv.mmdetection.verify.report.report import VerificationReport
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run import supervisor
from ckptconv.mmdetection.verify.run.events import Follower
from ckptconv.mmdetection.verify.verify_ap import planned, verify
from tests.support import forked
from tests.support.raw_files import moco

pytestmark = [pytest.mark.mmdet, pytest.mark.filterwarnings("ignore")]
SHORT = config_edits.SyntheticTraining(train_images=8, val_images=4, epochs=1, val_interval=1, image_size=64)
RATE = 1e-3


@pytest.fixture(scope="module", autouse=True)
def _workers_are_copies() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "subprocess", forked.as_subprocess())
        yield


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A small detector's config: batches of 2, of which 2 make a step of 4 images, and an average of the weights."""
    folder = tmp_path_factory.mktemp("own")
    ckptconv.convert(moco(folder / "raw.pth"), folder / "r18.pth", "moco")
    synthetic.make(folder / "data", SHORT.train_images, SHORT.val_images, SHORT.image_size)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(plan, "SMOKE", SHORT)
        asked = Request(
            "mocov2-mask-rcnn-r50-fpn-1x", "smoke", pretrained=str(folder / "r18.pth"), work_dir=str(folder), gpus=0
        )
        config: dict[str, Any] = dict(planned(asked).runs[0].config)
    config["train_dataloader"]["batch_size"] = 2
    config["auto_scale_lr"] = {"enable": True, "base_batch_size": 4}
    config["optim_wrapper"] |= {"accumulative_counts": 2, "optimizer": {"type": "AdamW", "lr": RATE}}
    config["param_scheduler"] = []
    config["custom_hooks"].append({"type": "EMAHook", "momentum": 0.3})
    (folder / "own.py").write_text(python_source.assignments(config))
    return folder


@pytest.fixture(scope="module")
def trained(own) -> tuple[VerificationReport, Path]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(verify_ap, "require_machine", lambda *_: None)  # which wants a GPU for it
        request = Request(str(own / "own.py"), "full", expect={"box": 0.0}, gpus=0, work_dir=str(own / "full"))
        report, work = verify(request)
    return report, work / "seed0"


def checkpoint(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / "epoch_1.pth", weights_only=False)
    return saved


def test_the_optimizer_steps_once_for_all_batches_that_are_accumulated(trained):
    report, run = trained
    iterations = report.runs[0].iterations
    assert iterations in (3, 4)  # of 2 images each; some have no object
    states = checkpoint(run)["optimizer"]["state"].values()
    assert {int(state["step"]) for state in states} == {2}
    assert report.recipe.images_per_step == 4


def test_the_rate_is_scaled_as_mmdetection_scales_it_and_that_is_said(trained):
    report, run = trained
    steps = [event for event in Follower(run / "events.jsonl").new() if event["event"] == "step"]
    assert {step["lr"] for step in steps} == {RATE * 2 / 4}  # one process with 2 images, base_batch_size 4
    assert (
        "auto_scale_lr: MMDetection does not count accumulated batches, so it trains with 1/2 of the learning rate"
        in report.notes
    )


def detections(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "detections.bbox.json").read_text())
    assert found
    return found


def test_the_average_is_judged_and_the_raw_weights_are_measured_too(own, trained, capsys):
    report, run = trained
    saved = checkpoint(run)
    raw = {k.removeprefix("module."): v for k, v in saved["ema_state_dict"].items() if k.startswith("module.")}
    torch.save({"state_dict": raw, "meta": {}}, own / "raw_detector.pth")
    for name, detector, folder in (
        ("average", run / "epoch_1.pth", run),
        ("raw", own / "raw_detector.pth", run / "raw"),
    ):
        tested, work = verify(
            Request(str(own / "own.py"), "eval", checkpoint=str(detector), gpus=0, work_dir=str(own / name))
        )
        assert detections(work / "test") == detections(folder)
        (alone,) = tested.runs
        assert alone.metrics == (report.runs[0].metrics if name == "average" else report.runs[0].raw)
    assert detections(run) != detections(run / "raw")
    noted = work / "test" / "evaluation.json"
    said = json.loads(noted.read_text())
    said["mmdet"]["bbox_mAP"] += 0.25
    noted.write_text(json.dumps(said))
    tested, _ = verify(Request(str(own / "own.py"), "eval", checkpoint=str(detector), gpus=0, work_dir=str(work)))
    assert tested.verdict.status == "inconclusive"
    (reason,) = tested.verdict.reasons
    assert re.fullmatch(r"test: box AP is \d+\.\d\d, CocoMetric reports 0\.\d+ for the same detections", reason)
    assert [event["iteration"] for event in Follower(run / "events.jsonl").new() if event["event"] == "val"] == [
        report.runs[0].iterations
    ]
    capsys.readouterr()
    render_verification.verdict(report, Path("out"), as_json=False)
    shown = capsys.readouterr().out
    assert " of the average, " in shown
    assert "seed0, raw weights: box AP " in shown
    assert "custom_hooks[1] (EMAHook): the AP is that of the average, as MMDetection evaluates it" in shown
    assert "seed0, raw weights: box AP " in (run.parent / "report.md").read_text()
    assert "seed0, raw weights" in (run.parent / "report.html").read_text()

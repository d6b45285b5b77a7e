"""verify-ap as it runs: real trainings by mmengine in processes of their own, only shorter than a user's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

import ckptconv
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.verify import config_edits, lift, plan, verify_ap
from ckptconv.mmdetection.verify.report.report import from_json
from ckptconv.mmdetection.verify.report.write import WRITERS
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run import supervisor
from ckptconv.mmdetection.verify.run.events import Follower
from ckptconv.mmdetection.verify.run.supervisor import locked
from ckptconv.mmdetection.verify.verify_ap import planned, verify
from tests.support import forked
from tests.support.raw_files import moco

pytestmark = pytest.mark.mmdet
ROW = "mocov2-mask-rcnn-r50-fpn-1x"
SHORT = config_edits.SyntheticTraining(train_images=12, val_images=8, epochs=3, val_interval=2, image_size=64)
ANY = {"box": 0.0}


@pytest.fixture(scope="module", autouse=True)
def _short():
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(plan, "SMOKE", SHORT)
        patch.setattr(plan, "LIFT", replace(SHORT, epochs=1, val_interval=1))
        patch.setattr(supervisor, "subprocess", forked.as_subprocess())
        yield


@pytest.fixture(autouse=True)
def _unwarned():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    ckptconv.convert(moco(folder / "raw.pth"), folder / "r18.pth", "moco")
    return folder


def smoke(folder: Path, work: str, **said: object) -> Request:
    said = {"expect": ANY, **said}
    return Request(ROW, "smoke", pretrained=str(folder / "r18.pth"), work_dir=str(folder / work), gpus=0, **said)


def events(work: Path, run: str = "seed0", kind: str = "step") -> list[dict]:
    return [e for e in Follower(work / run / "events.jsonl").new() if e["event"] == kind]


@pytest.fixture(scope="module")
def first(folder, _short):
    watched = []
    report, work = verify(smoke(folder, "first"), lambda run, event: watched.append((run.name, event["event"])))
    return report, work, watched


def test_a_smoke_run_is_whole(first):
    report, work, watched = first
    (run,) = report.runs
    assert report.verdict.status == "pass"
    assert report.proof.equal == report.proof.total == 120
    assert run.iterations == len(events(work)) <= SHORT.iterations
    assert run.starts == 1
    assert [iteration for iteration, _ in run.evaluations][-1] == run.iterations
    assert run.metrics.keys() == {"box", "mask"}
    assert report.data.images == report.data.annotated == SHORT.val_images
    assert run.peak_mib > 100
    assert run.images_per_second > 0
    assert ("seed0", "step") in watched
    assert from_json(json.loads((work / "report.json").read_text())) == report
    assert "| Method | Backbone | Style | Lr schd | Mem (GB) | Inf time (fps) |" in (work / "report.md").read_text()


def test_mmengine_leaves_the_config_as_it_was_written(first, folder):
    _, work, _ = first
    written = Config.fromfile(str(work / "seed0" / "config.py"))
    assert written.val_evaluator.type == "CocoMetric"
    assert "outfile_prefix" not in written.val_evaluator
    assert "work_dir" not in written


def test_the_guard_was_there(first):
    _, work, _ = first
    assert "guard: 120/120 tensors of backbone equal" in (work / "seed0" / "output.log").read_text()


def test_asked_again_nothing_runs(first, folder):
    report, work, _ = first
    before = (work / "seed0" / "events.jsonl").read_bytes()
    again, _ = verify(smoke(folder, "first"))
    assert again.runs == report.runs
    assert (work / "seed0" / "events.jsonl").read_bytes() == before


def test_the_same_finished_run_is_judged_by_another_expectation(first, folder):
    report, _, _ = first
    measured = report.runs[0].ap["box"]
    failed, _ = verify(smoke(folder, "first", expect={"box": measured + 5}))
    assert failed.verdict.status == "fail"
    assert "5.00 points below the tolerance of 0.3" not in failed.verdict.reasons[0]
    assert "4.70 points below the tolerance of 0.3" in failed.verdict.reasons[0]


@pytest.mark.parametrize("form", ["report.html", "report.md", "report.json"])
def test_a_form_of_the_report_that_fails_leaves_the_verdict(first, folder, monkeypatch, form):
    report, work, _ = first
    verify(smoke(folder, "first"))  # another test has had it judged by another expectation
    written = (work / form).read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(WRITERS, form, fail)
    stages: list[str] = []
    again, _ = verify(smoke(folder, "first"), stage=stages.append)
    assert again.verdict == report.verdict
    assert stages[-1] == (
        f"{work / form} could not be written: OSError: [Errno 28] No space left on device; the same command writes it, "
        "without training again"
    )
    assert not (work / form).exists()
    monkeypatch.undo()
    verify(smoke(folder, "first"))
    assert len((work / form).read_bytes()) == pytest.approx(len(written), abs=20)  # the date differs


def test_killed_between_the_ap_and_the_report_nothing_is_trained_again(first, folder, monkeypatch):
    report, work, _ = first
    before = (work / "seed0" / "events.jsonl").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_ap, "collect", killed)
    (work / "seed0" / "ap.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        verify(smoke(folder, "first"))
    assert json.loads((work / "seed0" / "ap.json").read_text())["ap"] == report.runs[0].metrics
    monkeypatch.undo()
    for name in ("detections.bbox.json", "evaluation.json"):
        (work / "seed0" / name).rename(work / name)
    again, _ = verify(smoke(folder, "first"))
    for name in ("detections.bbox.json", "evaluation.json"):
        (work / name).rename(work / "seed0" / name)
    assert again.runs[0].metrics == report.runs[0].metrics
    assert (work / "seed0" / "events.jsonl").read_bytes() == before


def test_another_question_in_the_same_folder_is_refused(first, folder):
    with pytest.raises(UsageError, match="holds another run: its seed differs"):
        verify(smoke(folder, "first", seed=7))


def test_two_calls_do_not_work_in_one_folder(first, folder):
    _, work, _ = first
    with locked(work), pytest.raises(UsageError, match="another verify-ap is running in"):
        verify(smoke(folder, "first"))


def test_the_same_seed_gives_the_same_numbers(first, folder):
    report, work, _ = first
    again, other = verify(smoke(folder, "again"))
    assert [r.metrics for r in again.runs] == [r.metrics for r in report.runs]
    assert [e["loss"] for e in events(other)] == [e["loss"] for e in events(work)]


def test_a_test_of_the_trained_detector_gives_the_same_ap(first, folder):
    report, work, _ = first
    detector = str(work / "seed0" / f"epoch_{SHORT.epochs}.pth")
    target = str(work / "seed0" / "config.py")
    request = Request(target, "eval", checkpoint=detector, work_dir=str(folder / "eval"), gpus=0)
    tested, _ = verify(request)
    assert tested.verdict.status == "measured"
    for metric, ap in report.runs[0].ap.items():
        assert tested.runs[0].ap[metric] == pytest.approx(ap, abs=1e-4)


def test_a_detector_with_other_tensors_is_not_tested(first, folder):
    _, work, _ = first
    target = str(work / "seed0" / "config.py")
    request = Request(target, "eval", checkpoint=str(folder / "r18.pth"), work_dir=str(folder / "eval2"), gpus=0)
    found, _ = verify(request)
    assert found.verdict.status == "fail"
    assert "tensors of the detector are missing in" in found.verdict.reasons[0]
    assert found.runs == ()


def test_a_detector_that_was_trained_anew_is_another_question(first, folder, tmp_path):
    _, work, _ = first
    detector = shutil.copy(work / "seed0" / f"epoch_{SHORT.epochs}.pth", tmp_path / "detector.pth")
    request = Request(
        str(work / "seed0" / "config.py"), "eval", checkpoint=str(detector), work_dir=str(tmp_path / "work"), gpus=0
    )
    verify(request)
    shutil.copy(work / "seed0" / f"epoch_{SHORT.epochs - 1}.pth", detector)
    with pytest.raises(UsageError, match="holds another run: its detector_sha256 differs"):
        verify(request)


def test_a_lift_on_data_of_the_users_own(first, folder, tmp_path, monkeypatch):
    _, work, _ = first
    shutil.copytree(work / "data", tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    request = Request(
        str(work / "seed0" / "config.py"), "lift", data_root="coco", images=3, work_dir="lift", gpus=0, seeds=2
    )
    found, _ = verify(request)
    assert (found.data.generated, found.data.images, found.data.annotated) == (False, 3, 3)
    assert len(found.runs) == 4


def test_two_processes_train_together(folder):
    report, work = verify(smoke(folder, "two", launcher="pytorch"))
    (run,) = report.runs
    assert run.environment["processes"] == 2
    assert report.data.images == SHORT.val_images
    assert (work / "seed0" / "output.log").read_text().count("guard: 120/120") == 1  # rank 0 logs
    assert run.iterations == len(events(work))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_another_node_is_started_with_the_command_that_is_shown(folder, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    others = []

    def stage(text: str) -> None:
        shown, found, command = text.partition("on each of the other nodes: python ")
        if found and not shown:
            others.append(subprocess.Popen(f"{sys.executable} {command}", shell=True))

    report, work = verify(smoke(folder, "nodes", launcher="pytorch", nodes=2), stage=stage)
    (other,) = others
    assert other.wait(60) == 0
    (run,) = report.runs
    assert run.environment["processes"] == 4
    assert report.data.images == SHORT.val_images
    assert run.iterations == len(events(work))


def test_a_swapped_checkpoint_stops_before_the_first_step(folder, tmp_path):
    emit.write(folder / "r18.pth", tmp_path / "emitted.py")
    text = (tmp_path / "emitted.py").read_text().replace(str(folder / "r18.pth"), str(tmp_path / "swapped.pth"))
    (tmp_path / "emitted.py").write_text(text)
    ckptconv.convert(moco(tmp_path / "raw.pth", seed=5), tmp_path / "swapped.pth", "moco")
    request = Request(str(tmp_path / "emitted.py"), "smoke", work_dir=str(tmp_path / "work"), gpus=0)
    found, work = verify(request)
    assert found.verdict.status == "fail"
    assert "the guard will stop the training: it expects the fingerprint" in found.verdict.reasons[0]
    assert events(work) == []


def test_a_backbone_that_does_not_load_is_never_trained(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the hint's command writes when it is typed
    text = "_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n"
    start = f"dict(type='Pretrained', checkpoint={str(folder / 'raw.pth')!r})"
    text += f"model = dict(backbone=dict(depth=18, init_cfg={start}), neck=dict(in_channels=[64, 128, 256, 512]))\n"
    (tmp_path / "raw.py").write_text(text)
    found, work = verify(Request(str(tmp_path / "raw.py"), "smoke", work_dir=str(tmp_path / "work"), gpus=0))
    assert found.verdict.status == "fail"
    assert "nothing was loaded" in found.verdict.reasons[0]
    assert found.verdict.meaning == "it is not proved that the detector starts from its checkpoint"
    assert found.verdict.rule == "ckptconv check"
    assert not (work / "seed0").exists()


def test_a_loss_that_is_no_number_ends_the_run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SMOKE", replace(SHORT, lr=1e12))
        found, work = verify(smoke(folder, "diverged"))
    assert found.verdict.status == "fail"
    assert "the loss is" in found.verdict.reasons[0]
    assert len(events(work)) < SHORT.iterations


def test_the_lift_compares_arms_with_the_same_seeds(folder):
    request = Request(ROW, "lift", pretrained=str(folder / "r18.pth"), work_dir=str(folder / "lift"), gpus=0, seeds=2)
    found, _ = verify(request)
    assert [(r.group, r.seed) for r in found.runs] == [
        ("converted", 0),
        ("random", 0),
        ("converted", 1),
        ("random", 1),
    ]
    assert "random weights" in found.verdict.reasons[0]


def test_a_random_arm_that_breaks_says_nothing_about_the_checkpoint(folder, monkeypatch):
    whole = lift.from_random

    def broken(config, takes):
        random = whole(config, takes)
        random["optim_wrapper"]["optimizer"]["lr"] = 1e12
        return random

    monkeypatch.setattr(lift, "from_random", broken)
    request = Request(ROW, "lift", pretrained=str(folder / "r18.pth"), work_dir=str(folder / "weak"), gpus=0, seeds=2)
    found, _ = verify(request)
    assert found.verdict.status == "inconclusive"
    (reason,) = found.verdict.reasons
    assert reason.startswith("random-seed0 was stopped: the loss is")


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(after[1]), []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


CALL = """
import sys, warnings
warnings.simplefilter("ignore")
from tests.mmdetection.verify.test_verify_ap import SHORT, smoke, plan, verify
from pathlib import Path
plan.SMOKE = SHORT
verify(smoke(Path(sys.argv[1]), "killed"))
"""


def call(folder: Path) -> forked.Popen:
    """The same in a process of its own, whose worker is one that it starts itself."""
    return forked.Popen([sys.executable, "-c", CALL, str(folder)], cwd=forked.ROOT, stderr=subprocess.DEVNULL)


def wait_until(reached: Callable[[], bool], process: forked.Popen) -> None:
    while not reached():
        assert process.poll() is None, "it has ended before"
        time.sleep(0.01)


def test_killed_at_any_moment_the_same_command_ends_as_if_it_had_not_been(first, folder):
    report, _, _ = first
    work = folder / "killed"
    moments = (
        lambda: (work / "config.py").exists(),
        lambda: len(events(work)) > 1,
        lambda: (work / "seed0" / "epoch_1.pth").exists(),
        lambda: bool(events(work, kind="val")),
    )
    for reached in moments:
        process = call(folder)
        wait_until(reached, process)
        for pid in tree(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    process = call(folder)
    assert process.wait(300) == 0
    found = from_json(json.loads((folder / "killed" / "report.json").read_text()))
    assert found.runs[0].iterations == report.runs[0].iterations
    assert found.runs[0].metrics == report.runs[0].metrics
    assert [s[0] for s in found.runs[0].steps] == [s[0] for s in report.runs[0].steps]


def test_terminated_it_takes_its_processes_with_it(folder):
    shutil.rmtree(folder / "killed", ignore_errors=True)
    process = call(folder)
    started = folder / "killed" / "seed0" / "output.log"
    wait_until(lambda: started.exists() and bool(started.stat().st_size), process)
    below = tree(process.pid)[1:]
    assert below
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


def test_what_is_planned_writes_nothing(folder):
    threads = threading.active_count()
    made = planned(smoke(folder, "nothing"))
    assert len(list(made.commands())) == 1
    assert not (folder / "nothing").exists()
    assert threading.active_count() == threads

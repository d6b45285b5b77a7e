"""The guard in real trainings: mmengine's Runner, MMDetection's RetinaNet, one process or two over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ckptconv
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check import guard_record
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.options import Choices
from tests.support import forked, raw_files, tiny_coco

pytestmark = pytest.mark.mmdet

ROOT = Path(__file__).parents[2]
STOPPED = "ckptconv.errors.ProofError: stopped before the first iteration: "


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return raw_files.moco(tmp_path_factory.mktemp("raw") / "moco.pth.tar")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return raw_files.moco(tmp_path_factory.mktemp("raw") / "moco_again.pth.tar", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_coco.make(tmp_path_factory.mktemp("data") / "coco", images=2)


@pytest.fixture
def choices(data) -> Choices:
    return Choices("retinanet", norm="BN", classes=("box",), data_root=str(data), batch_size=1, gpus=1)


@pytest.fixture
def folder(tmp_path, monkeypatch, raw, choices) -> Path:
    """The current folder, with a converted checkpoint and the config that was emitted for it."""
    monkeypatch.chdir(tmp_path)
    ckptconv.convert(raw, "r18.pth", "moco")
    emit.write("r18.pth", Path("detector.py"), choices)
    return tmp_path


def train(folder: Path, *options: str, processes: int = 1, script: str = "") -> subprocess.CompletedProcess[str]:
    """Train one epoch of two images. ``script`` runs before it, in the same process."""
    run = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run"]
    run += [] if processes == 1 else [f"--nproc_per_node={processes}", "--standalone"]
    code = folder / "train.py"
    code.write_text(f"import runpy\n{script}\nrunpy.run_module('tests.support.training', run_name='__main__')\n")
    words = [*run, str(code), "detector.py", 'work_dir="work"', *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return forked.run(words, cwd=folder, env=env)


def iterations(done: subprocess.CompletedProcess[str]) -> int:
    return done.stdout.count("Epoch(train)")


def test_the_right_checkpoint_trains(folder):
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert f"guard: 120/120 tensors of backbone equal {folder}/r18.pth" in done.stdout
    assert iterations(done) == 2
    assert (folder / "work" / "epoch_1.pth").exists()


def test_a_checkpoint_that_was_swapped_stops_it(folder, other):
    expected = ckptconv.convert(other, folder / "r18.pth", "moco", force=True).fingerprint
    meant = (folder / "detector.py").read_text().split("fingerprint='")[1][:16]
    done = train(folder)
    assert done.returncode == 1
    sentence = next(line for line in done.stderr.splitlines() if line.startswith(STOPPED))
    assert sentence == (
        f"{STOPPED}{folder}/r18.pth is not the file this config was made for "
        f"(its fingerprint is {expected[:16]}; the config has {meant})"
    )
    assert iterations(done) == 0
    assert not list((folder / "work").glob("*.pth"))


def test_a_file_in_which_mmengine_finds_no_weights_stops_it(folder):
    torch.save({"model": torch.load(folder / "r18.pth")["state_dict"]}, folder / "r18.pth")
    done = train(folder)
    assert done.returncode == 1
    sentence = next(line for line in done.stderr.splitlines() if line.startswith(STOPPED))
    assert "is not the file this config was made for (it has no weights for mmengine; the config has " in sentence
    assert iterations(done) == 0


def test_two_processes_over_gloo(folder, other):
    distributed = ('launcher="pytorch"', 'model_wrapper_cfg={"type": "MMDistributedDataParallel", "device_ids": null}')
    # mmengine starts a group on GPUs only, and goes on with one that stands
    group = "import torch; torch.distributed.init_process_group('gloo')"
    done = train(folder, *distributed, processes=2, script=group)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"guard: 120/120 tensors of backbone equal {folder}/r18.pth" in done.stdout
    assert iterations(done) == 1  # of two images, one for each

    ckptconv.convert(other, folder / "r18.pth", "moco", force=True)
    done = train(folder, *distributed, processes=2, script=group)
    assert done.returncode != 0
    assert done.stderr.count(STOPPED) == 2  # every process comes to the verdict by itself
    assert iterations(done) == 0


def stopped(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert iterations(done) == 0
    (sentence,) = (line.removeprefix(STOPPED) for line in done.stderr.splitlines() if line.startswith(STOPPED))
    return sentence


@pytest.mark.parametrize("moment", ["before_train", "before_train_epoch"])
def test_weights_that_are_overwritten_after_loading_stop_it(folder, moment):
    hook = f"""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
@HOOKS.register_module()
class Resetting(Hook):
    def {moment}(self, runner):
        runner.model.backbone.conv1.weight.data.zero_()
"""
    text = (folder / "detector.py").read_text().replace("custom_hooks = [", "custom_hooks = [dict(type='Resetting'), ")
    (folder / "detector.py").write_text(text)
    assert stopped(train(folder, script=hook)) == (
        f"1 of 120 tensors of backbone differ from {folder}/r18.pth: conv1.weight"
    )


def test_a_detector_that_is_loaded_over_it_stops_it(folder):
    assert train(folder).returncode == 0
    os.rename(folder / "work" / "epoch_1.pth", folder / "detector.pth")
    sentence = stopped(train(folder, 'load_from="detector.pth"'))
    assert sentence.startswith(
        f"114 of 120 tensors of backbone differ from {folder}/r18.pth after load_from='detector.pth' was loaded: "
    )


def test_a_detector_without_the_checkpoint_stops_it(folder):
    text = (folder / "detector.py").read_text()
    text = text.replace("init_cfg=dict(type='Pretrained', checkpoint='{{ fileDirname }}/r18.pth')", "init_cfg=None")
    (folder / "detector.py").write_text(text)
    assert stopped(train(folder)) == "backbone is not initialised from a checkpoint"


def test_a_backbone_that_leaves_a_part_of_the_network_out_stops_it(folder):
    text = (folder / "detector.py").read_text()
    (folder / "detector.py").write_text(text.replace("norm_eval=False,", "norm_eval=False, deep_stem=True,"))
    assert stopped(train(folder)) == (
        f"6 of 114 tensors of backbone differ from {folder}/r18.pth: conv1.weight, bn1.weight, bn1.bias and 3 more"
    )


def test_what_else_is_pretrained_is_not_its_business(folder):
    model = runtime.build(runtime.read_config(folder / "detector.py"), "the detector")
    torch.save({"state_dict": model.state_dict()}, "whole.pth")
    text = (folder / "detector.py").read_text()
    text += "model['neck'] |= dict(init_cfg=dict(type='Pretrained', checkpoint='whole.pth', prefix='neck.'))\n"
    (folder / "detector.py").write_text(text)
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert "load neck. in model from: whole.pth" in done.stdout
    assert f"guard: 120/120 tensors of backbone equal {folder}/r18.pth" in done.stdout


def test_a_training_that_is_resumed_is_what_its_checkpoint_says(folder, other):
    assert "guard: 120/120" in train(folder, "resume=true").stdout  # nothing to resume yet
    mark = (folder / "detector.py").read_text().split("fingerprint='")[1][:64]
    first = folder / "work" / "epoch_1.pth"
    assert guard_record.of_file(first) == {"backbone": mark}
    ckptconv.convert(other, folder / "r18.pth", "moco", force=True)  # it has been read
    more = ("resume=true", 'load_from="work/epoch_1.pth"', 'train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 2}')

    done = train(folder, *more)
    assert done.returncode == 0, done.stderr
    said = (
        f"guard: resumed at iteration 2 of a training that started from the checkpoint with the fingerprint {mark[:16]}"
    )
    assert said in done.stdout
    assert iterations(done) == 2
    assert guard_record.of_file(folder / "work" / "epoch_2.pth") == {"backbone": mark}  # it is handed on

    text = (folder / "detector.py").read_text()
    (folder / "detector.py").write_text(text.replace(mark, "0" * 64))
    done = train(folder, *more)
    assert (done.returncode, iterations(done)) == (1, 0)
    assert (
        "ckptconv.errors.ProofError: stopped before iteration 3: the resumed training started backbone from the file "
        f"with the fingerprint {mark[:16]}, and not from the file with the fingerprint 0000000000000000" in done.stderr
    )

    saved = torch.load(first, weights_only=False)
    del saved["meta"][guard_record.KEY]
    torch.save(saved, first)
    (folder / "detector.py").write_text(text)
    done = train(folder, *more)
    assert done.returncode == 0, done.stderr
    assert (
        "guard: resumed at iteration 2 from a checkpoint that does not record how its training started: it is unknown "
        f"whether it was from the file with the fingerprint {mark[:16]}" in done.stdout
    )
    assert iterations(done) == 2
    assert guard_record.of_file(folder / "work" / "epoch_2.pth") == {}


@pytest.mark.parametrize("said", [None, 3, "no json", "[1]", '{"backbone": 3}', "[" * 100_000])
def test_what_is_no_record_says_nothing(said):
    assert guard_record.read(said) == {}


def test_ema_and_mixed_precision_are_no_difference(folder):
    # Mixed precision refuses to start without a GPU; what the guard sees is the same with autocast switched off.
    script = "import mmengine.optim.optimizer.amp_optimizer_wrapper as amp; amp.is_cuda_available = lambda: True"
    text = (folder / "detector.py").read_text().replace("custom_hooks = [", "custom_hooks = [dict(type='EMAHook'), ")
    (folder / "detector.py").write_text(text)
    done = train(folder, 'optim_wrapper.type="AmpOptimWrapper"', script=script)
    assert done.returncode == 0, done.stderr
    assert f"guard: 120/120 tensors of backbone equal {folder}/r18.pth" in done.stdout
    assert "AmpOptimWrapper" in (folder / "work" / "detector.py").read_text()


def test_a_checkpoint_in_half_precision_is_compared_as_it_is_loaded(folder, raw, choices):
    ckptconv.convert(raw, "r18.pth", "moco", dtype="float16", force=True)
    emit.write("r18.pth", Path("detector.py"), choices, force=True)
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert "guard: 120/120" in done.stdout

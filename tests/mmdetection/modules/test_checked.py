"""TimmBackbone under `check` and the guard: a converted file, in real detectors and trainings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import ckptconv
from ckptconv.errors import EnvironmentMissingError
from ckptconv.mmdetection.check.run import check
from tests.mmdetection.modules.networks import NETWORKS, randomise, retinanet, timms
from tests.support import forked, tiny_coco

ROOT = Path(__file__).parents[3]
IMPORTS = ["ckptconv.mmdetection.modules", "ckptconv.mmdetection.guard", "ckptconv.mmdetection.loader"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_coco.make(tmp_path_factory.mktemp("data") / "coco", images=2)


def dino(seed: int = 0) -> str:
    """A training file of DINO with a small ViT."""
    torch.manual_seed(seed)
    state = timms("vit", embed_dim=64, num_heads=1).state_dict()
    torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, "dino.pth")
    return "dino.pth"


def converted(name: str = "vit.pth", seed: int = 0) -> str:
    """The fingerprint of that file, converted."""
    return ckptconv.convert(dino(seed), name, "dino", target="timm", force=True).fingerprint


def config(model: dict[str, Any], more: str = "") -> Path:
    path = Path("detector.py")
    bases = [f"mmdet::_base_/{part}.py" for part in ("datasets/coco_detection", "default_runtime")]
    path.write_text(
        f"_base_ = {bases}\ncustom_imports = dict(imports={IMPORTS}, allow_failed_imports=False)\nmodel = {model!r}\n"
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1),\n"
        "    constructor='LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(decay_rate=0.7))\n" + more
    )
    return path


def detector(kind: str, checkpoint: str, **options: Any) -> dict[str, Any]:
    small = {"arguments": {**NETWORKS["vit"][1], "embed_dim": 64, "num_heads": 1}} if kind == "vit" else {}
    return retinanet(kind, **small, **options, init_cfg={"type": "Pretrained", "checkpoint": checkpoint})


@pytest.mark.parametrize("name", ["vit.pth", "vit.safetensors"])
@pytest.mark.parametrize("norm", [True, False])
def test_a_converted_file_is_all_there(name, norm):
    """Also where no map depends on the last norm: it is loaded and needs no gradient."""
    converted(name)
    found = check(config(detector("vit", name, norm=norm, frozen=1)))
    (report,) = found.modules
    total = len(timms("vit").state_dict())
    assert (report.equal, report.total, report.problems, found.good) == (total, total, (), True)


@pytest.mark.parametrize("kind", ["beit", "hiera", "swinv2", "regnet", "dinov3", "xcit"])
def test_a_file_with_timms_names_is_all_there(kind):
    """Those of networks of one size are for another one: their tables are resized while they are loaded."""
    size = {"img_size": 224} if kind in ("beit", "hiera") else {}
    model = timms(kind, **size)
    randomise(model)
    state = model.state_dict()
    torch.save({"state_dict": state}, "timm.pth")
    found = check(config(detector(kind, "timm.pth")))
    (report,) = found.modules
    counters = sum(name.endswith("num_batches_tracked") for name in state)
    assert (report.equal, report.total) in ((len(state), len(state)), (len(state) - counters, len(state) - counters))
    assert (report.problems, found.good) == ((), True)


def test_another_file_is_not():
    state = timms("dinov3").state_dict()
    state["blocks.1.attn.proj.weight"] = state.pop("blocks.1.attn.out.weight", torch.zeros(1))
    torch.save({"state_dict": state}, "timm.pth")
    found = check(config(detector("dinov3", "timm.pth")))
    (report,) = found.modules
    assert not found.good
    assert report.equal == report.total - 1


def of_two_heads(**options: Any) -> None:
    """A file of a ViT of 128 channels, converted, in a detector with two attention heads."""
    model = timms("vit", embed_dim=128, num_heads=2)
    randomise(model)
    torch.save(model.state_dict(), "raw.pth")
    ckptconv.convert("raw.pth", "vit.pth", "timm", force=True, **options)
    arguments = {**NETWORKS["vit"][1], "embed_dim": 128, "num_heads": 2}
    init_cfg = {"type": "Pretrained", "checkpoint": "vit.pth"}
    config(retinanet("vit", arguments=arguments, init_cfg=init_cfg))


def test_another_number_of_attention_heads_is_found_though_every_tensor_fits():
    of_two_heads(num_heads=4)
    found = check("detector.py")
    (report,) = found.modules
    assert (report.equal, found.good) == (report.total, False)
    (problem,) = report.problems
    assert problem.certain
    assert problem.text == (
        "TimmBackbone has 2 attention heads, and vit.pth says 4: its tensors fit, its features are others"
    )
    assert problem.fixes == ("model.backbone.arguments.num_heads=4",)
    arguments = {**NETWORKS["vit"][1], "embed_dim": 128, "num_heads": 4}
    init_cfg = {"type": "Pretrained", "checkpoint": "vit.pth"}
    assert check(config(retinanet("vit", arguments=arguments, init_cfg=init_cfg))).good


def test_an_assumed_number_of_attention_heads_is_a_note_and_another_is_not_proved():
    of_two_heads()
    found = check("detector.py")
    assert found.good
    (note,) = (note for note in found.modules[0].notes if "heads" in note.text)
    assert note.text == (
        "assumed: 2 attention heads, of about 64 channels. No tensor shows it; num_heads of convert gives another"
    )
    arguments = {**NETWORKS["vit"][1], "embed_dim": 128, "num_heads": 4}
    init_cfg = {"type": "Pretrained", "checkpoint": "vit.pth"}
    found = check(config(retinanet("vit", arguments=arguments, init_cfg=init_cfg)))
    (problem,) = found.modules[0].problems
    assert not problem.certain
    assert problem.text == (
        "not proved: TimmBackbone has 4 attention heads, and vit.pth says 2, which is an assumption: num_heads of "
        "convert gives another"
    )


def test_without_timm_the_command_that_installs_it_is_named():
    converted()
    path = config(detector("vit", "vit.pth"))
    with mock.patch.dict(sys.modules, {"timm": None}), pytest.raises(EnvironmentMissingError) as caught:
        check(path)
    assert caught.value.message == "detector.py: its model cannot be built: TimmBackbone needs the package timm"
    assert caught.value.hint == "pip install 'timm==1.0.31'"


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    code = folder / "train.py"
    code.write_text(
        "import runpy\nfrom tests.support import pretrain\npretrain.module('timm')\n"
        "runpy.run_module('tests.support.training', run_name='__main__')\n"
    )
    words = [sys.executable, str(code), "detector.py", 'work_dir="work"', *options]
    return forked.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def test_a_training_its_resumption_and_a_file_that_was_swapped(here, data):
    fingerprint = converted()
    loader = f"batch_size=1, dataset=dict(data_root='{data}/', metainfo=dict(classes=('box',)))"
    more = (
        f"train_dataloader = dict({loader})\n"
        f"custom_hooks = [dict(type='CheckpointGuard', fingerprint='{fingerprint}')]\n"
    )
    config(detector("vit", str(here / "vit.pth"), with_cp=True, window=2), more)
    done = train(here)
    assert done.returncode == 0, done.stderr[-3000:]
    total = len(timms("vit").state_dict())
    assert f"guard: {total}/{total} tensors of backbone equal {here}/vit.pth" in done.stdout
    first = torch.load(here / "work" / "epoch_1.pth", weights_only=False)
    rates = sorted({group["lr"] for group in first["optimizer"]["param_groups"]})
    assert rates == pytest.approx([1e-3 * 0.7**n for n in range(5, -1, -1)])

    done = train(here, "resume=true", 'train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 2}')
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed epoch: 1, iter: 2" in done.stdout
    second = torch.load(here / "work" / "epoch_2.pth", weights_only=False)
    assert second["state_dict"].keys() == first["state_dict"].keys()
    assert second["meta"]["iter"] == 4

    converted(seed=1)
    done = train(here)
    assert done.returncode == 1
    assert f"{here}/vit.pth is not the file this config was made for" in done.stderr

"""What a machine must have for a plan, and what is said where it has not."""

from __future__ import annotations

import re

import pytest

import ckptconv
from ckptconv.errors import EnvironmentMissingError, UsageError
from ckptconv.mmdetection.verify.plan import VerificationPlan, make_plan
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.requirements import require_machine
from tests.support.raw_files import moco

pytestmark = pytest.mark.mmdet
ROW = "mocov2-mask-rcnn-r50-fpn-1x"


@pytest.fixture(scope="module")
def r50(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("r50")
    ckptconv.convert(moco(folder / "raw.pth", 50), folder / "moco.pth", "moco")
    return str(folder / "moco.pth")


def planned(target: str, tier: str, there: int = 8, **said: object) -> VerificationPlan:
    return make_plan(Request(target, tier, **said), there)


def test_the_full_tier_needs_a_gpu_and_says_what_for(r50, tmp_path):
    made = planned(ROW, "full", 0, pretrained=r50, data_root=str(tmp_path))
    with pytest.raises(EnvironmentMissingError) as error:
        require_machine(made, 0)
    assert error.value.message == (
        "`tier='full'` needs a GPU, and this machine has none: it trains 12 epochs with 16 images per step, which its "
        "config divides among 8 GPUs with 2 images each"
    )
    assert error.value.hint.startswith("On the CPU: `tier='smoke'`, `tier='lift'`.\n")
    assert "annotations/instances_train2017.json, train2017/" in error.value.hint


@pytest.mark.parametrize(
    ("batch", "images", "more", "meant"),
    [
        (4, 4, "", "4 images per step, which its config divides among 1 GPU with 4 images"),
        (2, 16, "", "16 images per step, which its config divides among 8 GPUs with 2 images each"),
        (3, 16, "", "16 images per step"),
        (
            *(2, 16, "optim_wrapper = dict(accumulative_counts=8)\n"),
            "16 images per step, which its config divides among 1 GPU with 2 images, 8 times",
        ),
    ],
)
def test_the_machine_that_a_config_means_is_its_own(tmp_path, batch, images, more, meant):
    text = f"train_dataloader = dict(batch_size={batch})\nauto_scale_lr = dict(base_batch_size={images})\n{more}"
    (tmp_path / "own.py").write_text(f"_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n{text}")
    made = planned(str(tmp_path / "own.py"), "full", 0, gpus=0, expect={"box": 30.0})
    with pytest.raises(EnvironmentMissingError) as error:
        require_machine(made, 0)
    assert (
        error.value.message == f"`tier='full'` needs a GPU, and this machine has none: it trains 12 epochs with {meant}"
    )


def test_mixed_precision_of_a_config_needs_a_gpu_too(r50, tmp_path):
    text = "optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')\n"
    (tmp_path / "own.py").write_text(f"_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n{text}")
    target = str(tmp_path / "own.py")
    made = planned(target, "lift", 0, gpus=0, pretrained=r50, data_root=str(tmp_path))
    with pytest.raises(EnvironmentMissingError) as error:
        require_machine(made, 0)
    assert (error.value.message, error.value.hint) == (
        f"{target}: optim_wrapper.type is AmpOptimWrapper, which needs a GPU",
        "Set it to 'OptimWrapper'.",
    )
    require_machine(planned(target, "smoke", 0, gpus=0, pretrained=r50), 0)  # which has its own optimizer


def test_more_gpus_than_there_are_are_refused(r50):
    with pytest.raises(EnvironmentMissingError) as error:
        require_machine(planned(ROW, "smoke", 2, pretrained=r50, gpus=4), 2)
    assert (error.value.message, error.value.hint) == (
        "the run needs 4 GPUs, and this machine has 2",
        "Give fewer `gpus`, or more `nodes`.",
    )
    require_machine(planned(ROW, "smoke", 2, pretrained=r50, gpus=4, launcher="slurm"), 2)  # they are elsewhere


def test_nodes_that_do_not_know_where_to_meet_are_refused(r50, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    made = planned(ROW, "smoke", 0, pretrained=r50, gpus=0, nodes=2, launcher="pytorch")
    with pytest.raises(UsageError) as error:
        require_machine(made, 0)
    assert error.value.message == "2 nodes need a rendezvous address"
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("MASTER_PORT", "29500")
    require_machine(made, 0)


def test_mixed_precision_needs_a_gpu(r50):
    with pytest.raises(EnvironmentMissingError) as error:
        require_machine(planned(ROW, "smoke", 0, pretrained=r50, amp=True), 0)
    assert (error.value.message, error.value.hint) == ("`amp` needs a GPU", "Leave it out.")


def test_missing_data_are_named(tmp_path):
    made = planned(ROW, "eval", 0, checkpoint="detector.pth", data_root=str(tmp_path))
    with pytest.raises(UsageError) as error:
        require_machine(made, 0)
    files = "annotations/instances_val2017.json, val2017/ are missing"
    assert error.value.message == f"the data set is incomplete: {files} in {tmp_path}/"
    assert re.fullmatch(
        r"Download COCO 2017 from https://\S+, .*\nData in another folder: `data_root='DIR'`", error.value.hint
    )


def test_data_that_are_there_are_not_missing(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    assert planned(ROW, "eval", 0, checkpoint="d.pth", data_root=str(tmp_path)).missing_files == ("val2017/",)
    (tmp_path / "val2017").mkdir()
    made = planned(ROW, "eval", 0, checkpoint="d.pth", data_root=str(tmp_path))
    assert made.missing_files == ()
    with pytest.raises(UsageError) as error:
        require_machine(made, 0)
    assert error.value.message == "d.pth does not exist"


@pytest.mark.parametrize("gpus", [None, 0])
def test_coco_is_not_trained_on_the_cpus_of_a_cluster(r50, gpus):
    with pytest.raises((EnvironmentMissingError, UsageError)):
        require_machine(planned(ROW, "full", 0, pretrained=r50, gpus=gpus, launcher="slurm"), 0)

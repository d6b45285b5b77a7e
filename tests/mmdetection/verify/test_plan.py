"""What a request amounts to: the published recipes are themselves, and what is no recipe is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

import ckptconv
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config import emit as emitting
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.verify.plan import LIFT, SMOKE, VerificationPlan, make_plan
from ckptconv.mmdetection.verify.recipes import RECIPES, digest
from ckptconv.mmdetection.verify.request import Request
from tests.support.converted import OWN, at, read
from tests.support.raw_files import backbone_state, moco

pytestmark = pytest.mark.mmdet
ROW = "mocov2-mask-rcnn-r50-fpn-1x"
SWAV = "swav-mask-rcnn-r50-fpn-1x"
FILES = {
    "mocov2-mask-rcnn-r50-fpn-1x": "mask-rcnn_r50-mocov2-pre_fpn_1x_coco.py",
    "mocov2-mask-rcnn-r50-fpn-ms-2x": "mask-rcnn_r50-mocov2-pre_fpn_ms-2x_coco.py",
    "swav-mask-rcnn-r50-fpn-1x": "mask-rcnn_r50-swav-pre_fpn_1x_coco.py",
    "swav-mask-rcnn-r50-fpn-ms-2x": "mask-rcnn_r50-swav-pre_fpn_ms-2x_coco.py",
}
GPUS = pytest.mark.parametrize(("gpus", "nodes"), [(8, 1), (4, 1), (4, 2), (16, 1)])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Converted ResNet-50s by method."""
    folder = tmp_path_factory.mktemp("r50")
    ckptconv.convert(moco(folder / "raw.pth", 50), folder / "moco.pth", "moco")
    state = {f"module.{name}": value for name, value in backbone_state(50).items()}
    torch.save({"state_dict": state}, folder / "raw.pth")
    ckptconv.convert(folder / "raw.pth", folder / "swav.pth", "swav")
    return {method: str(folder / f"{method}.pth") for method in ("moco", "swav")}


@pytest.fixture(scope="module")
def r50(files) -> str:
    return files["moco"]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def planned(target: str, tier: str, there: int = 8, **said: object) -> VerificationPlan:
    if said.get("nodes", 1) != 1:
        said = {"launcher": "slurm", **said}
    return make_plan(Request(target, tier, **said), there)


def refused(target: str, tier: str, there: int = 8, **said: object) -> tuple[str, str]:
    with pytest.raises(UsageError) as error:
        planned(target, tier, there, **said)
    return error.value.message, error.value.hint


@pytest.mark.parametrize("name", FILES)
@GPUS
def test_a_published_recipe_is_itself_on_any_number_of_gpus(files, name, gpus, nodes):
    row = RECIPES[name]
    made = planned(name, "full", pretrained=files[row.method], gpus=gpus, nodes=nodes)
    own = read(OWN / "selfsup_pretrain" / FILES[name])
    assert made.digest == row.digest == digest(own, gpus=8)
    assert made.expected is not None
    assert made.expected.ap == {"box": row.box, "mask": row.mask}
    assert (made.expected.tolerance, made.expected.source) == (row.tolerance, row.source)
    assert made.images_per_step == 16
    (run,) = made.runs
    assert run.config["train_dataloader"]["batch_size"] * gpus * nodes == 16
    assert digest(run.config, gpus * nodes) == row.digest  # what is run is what was compared
    assert run.job.train
    assert run.job.cuda


@pytest.mark.parametrize("root", ["/data/coco", "/data/coco/", "elsewhere"])
def test_a_recipe_is_itself_wherever_the_data_are(r50, root):
    made = planned(ROW, "full", pretrained=r50, gpus=8, data_root=root)
    assert made.digest == RECIPES[ROW].digest
    assert made.runs[0].config["val_evaluator"]["ann_file"].startswith(f"{root.rstrip('/')}/annotations/")


def test_a_recipe_is_tested_without_its_pretrained_weights_within_another_tolerance():
    made = planned(ROW, "eval", checkpoint="detector.pth", gpus=1)
    assert made.digest == RECIPES[ROW].digest
    assert made.pretrained is None
    assert made.expected is not None
    assert made.expected.tolerance == 0.07
    assert made.expected.above == "fail"
    (run,) = made.runs
    assert (run.name, run.job.train, run.job.detector) == ("test", False, "detector.pth")


def test_what_is_expected_can_be_said(r50):
    said = {"expect": {"box": 39.0}, "tolerance": 0.5, "gpus": 8}
    made = planned(ROW, "full", pretrained=r50, **said)
    assert made.expected is not None
    assert (made.expected.ap, made.expected.tolerance) == ({"box": 39.0}, 0.5)
    assert (made.expected.reason, made.expected.source) == ("as asked", "given by the user")
    row = planned(ROW, "full", pretrained=r50, gpus=8, tolerance=0.0)
    assert row.expected is not None
    assert row.expected.ap == {"box": RECIPES[ROW].box, "mask": RECIPES[ROW].mask}
    assert row.expected.tolerance == 0


def test_mixed_precision_is_another_recipe(r50):
    assert refused(ROW, "full", pretrained=r50, gpus=8, amp=True) == (
        f"the AP of {ROW} does not apply: `amp` changes the recipe",
        "Give the AP that you expect: `expect={'box': 'AP', 'mask': 'AP'}`",
    )
    made = planned(ROW, "full", pretrained=r50, gpus=8, amp=True, expect={"box": 38.0})
    assert made.runs[0].config["optim_wrapper"]["type"] == "AmpOptimWrapper"


def test_a_row_speaks_of_its_own_weights_only(r50):
    assert refused(SWAV, "full", pretrained=r50, gpus=8) == (
        f"{r50} holds weights of moco, and {SWAV} was published for swav",
        "A published AP is of its own weights only. For others, give a config instead, and `expect`.",
    )


@pytest.mark.parametrize("tier", ["load", "smoke", "lift"])
def test_where_no_row_is_compared_other_weights_are_taken(r50, tier):
    assert planned(SWAV, tier, 0, pretrained=r50).pretrained.method == "moco"


def test_an_unknown_recipe_is_refused_with_the_nearest(r50):
    message, hint = refused("mocov2-mask-rcnn-r50-fpn-1", "full", pretrained=r50)
    assert message == "there is no recipe 'mocov2-mask-rcnn-r50-fpn-1'"
    assert hint.startswith(f"Did you mean {ROW}")
    message, hint = refused("zzz", "smoke", pretrained=r50)
    assert (message, hint) == ("there is no recipe 'zzz'", f"Known: {', '.join(RECIPES)}.")


def test_a_row_of_a_config_that_only_a_clone_has_is_refused(r50):
    name = "mae-mask-rcnn-vit-b-100e"
    message, hint = refused(name, "full", pretrained=r50, gpus=8)
    assert message == (
        f"{name} is the recipe of projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py, which the wheel of "
        "MMDetection does not have"
    )
    assert hint == "Give that file of a clone instead of the name. The AP applies if you change paths only."


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if not row.digest])
def test_a_row_of_another_framework_is_refused(name, r50):
    message, hint = refused(name, "full", pretrained=r50, gpus=8)
    assert message.startswith(f"{name} was trained with another framework ({RECIPES[name].source})")
    assert "`expect`" in hint


@pytest.mark.parametrize("tier", ["load", "smoke", "lift", "full"])
def test_a_recipe_without_its_checkpoint_is_refused(tier):
    assert refused(ROW, tier) == (f"{ROW} needs a converted checkpoint", "Give it: `pretrained='CKPT'`.")


@pytest.mark.parametrize(
    ("tier", "said", "images", "processes"),
    [
        ("full", {"gpus": 3}, 16, 3),
        ("full", {"gpus": 32}, 16, 32),
        ("full", {"gpus": 4, "nodes": 3}, 16, 12),
        ("smoke", {"gpus": 3}, 4, 3),
        ("lift", {"gpus": 3, "nodes": 1}, 4, 3),
    ],
)
def test_images_that_cannot_be_shared_are_refused(r50, tier, said, images, processes):
    assert refused(ROW, tier, pretrained=r50, **said) == (
        f"{images} images per step cannot be divided among {processes} processes",
        f"Choose `gpus` and `nodes` whose product divides {images}.",
    )


def test_one_process_cannot_be_several(r50):
    with pytest.raises(UsageError, match="`launcher='none'` starts one process"):
        planned(ROW, "full", pretrained=r50, launcher="none", gpus=2)


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        (
            "mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
            "val_evaluator.type is VOCMetric, which is not CocoMetric",
            "Leave one CocoMetric in val_evaluator: verify-ap measures COCO's AP only.",
        ),
        (
            "mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py",
            "val_evaluator.type is LVISMetric, which is not CocoMetric",
            "Leave one CocoMetric in val_evaluator: verify-ap measures COCO's AP only.",
        ),
        (
            "mmdet::rpn/rpn_r50_fpn_1x_coco.py",
            "val_evaluator.metric='proposal_fast' does not measure box AP",
            "Set it to 'bbox', or to ['bbox', 'segm'].",
        ),
    ],
)
def test_what_is_not_judged_by_cocos_ap_of_boxes_is_refused(target, message, hint):
    assert refused(target, "eval", checkpoint="detector.pth", gpus=0) == (f"{target}: {message}", hint)
    assert planned(target, "load", 0).runs == ()  # nothing is evaluated there


def written(folder: Path, text: str, base: str = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py") -> str:
    """A config of one's own on one of MMDetection's."""
    (folder / "own.py").write_text(f"_base_ = {base!r}\n{text}")
    return str(folder / "own.py")


ACCUMULATED = "optim_wrapper = dict(accumulative_counts={})\ntrain_dataloader = dict(batch_size={})\n"


@pytest.mark.parametrize(
    ("counts", "batch", "said", "gpus", "images", "each"),
    [
        (8, 2, "", 1, 16, 2),
        (8, 2, "", 2, 16, 1),
        (2, 2, "", 1, 16, 8),
        (2, 2, "", 4, 16, 2),
        (4, 3, "auto_scale_lr = dict(_delete_=True, enable=False)\n", 8, 96, 3),
        (4, 3, "auto_scale_lr = dict(_delete_=True, enable=False)\n", 1, 96, 24),
        (3, 2, "auto_scale_lr = dict(base_batch_size=12)\n", 2, 12, 2),
    ],
)
def test_images_a_step_are_those_of_all_batches_that_are_accumulated(tmp_path, counts, batch, said, gpus, images, each):
    target = written(tmp_path, ACCUMULATED.format(counts, batch) + said)
    made = planned(target, "full", expect={"box": 30.0}, gpus=gpus)
    assert (made.images_per_step, made.accumulative_counts, made.batch_size) == (images, counts, each)
    (run,) = made.runs
    assert run.config["train_dataloader"]["batch_size"] == each
    assert run.config["optim_wrapper"]["accumulative_counts"] == counts
    assert digest(run.config, gpus) == made.digest


def test_accumulated_batches_that_make_no_step_are_refused(tmp_path):
    target = written(tmp_path, ACCUMULATED.format(8, 2))
    assert refused(target, "full", expect={"box": 30.0}, gpus=8) == (
        "16 images per step cannot be divided among 8 processes, each with 8 batches",
        "Choose `gpus` and `nodes` whose product divides 2.",
    )
    target = written(tmp_path, ACCUMULATED.format(3, 2))
    assert refused(target, "full", expect={"box": 30.0}, gpus=1) == (
        "16 images per step cannot be divided into optim_wrapper.accumulative_counts=3 batches",
        "Set auto_scale_lr.base_batch_size to the images per step: batch size x GPUs x 3.",
    )


def test_a_recipe_with_accumulated_batches_is_another_one_with_as_many_images():
    config = read(OWN / "faster_rcnn" / "faster-rcnn_r50_fpn_1x_coco.py")
    config["optim_wrapper"]["accumulative_counts"] = 4
    config["train_dataloader"]["batch_size"] = 2
    other = {**config, "train_dataloader": {**config["train_dataloader"], "batch_size": 1}}
    assert digest(config, 2) == digest(other, 4)
    assert digest(config, 2) != digest(config, 8)


def test_a_smoke_test_accumulates_nothing_scales_nothing_and_averages_nothing_and_says_so(r50, tmp_path):
    text = "optim_wrapper = dict(accumulative_counts=8)\nauto_scale_lr = dict(enable=True)\n"
    text += "custom_hooks = [dict(type='EMAHook')]\n"
    made = planned(written(tmp_path, text), "smoke", 0, pretrained=r50)
    (run,) = made.runs
    assert (made.images_per_step, made.accumulative_counts, made.batch_size) == (SMOKE.batch_size, 1, SMOKE.batch_size)
    assert "accumulative_counts" not in run.config["optim_wrapper"]
    assert run.config["auto_scale_lr"]["enable"] is False
    assert [hook["type"] for hook in run.config["custom_hooks"]] == ["CheckpointGuard"]
    assert [note.partition(" is off")[0] for note in made.notes] == [
        "custom_hooks[0] (EMAHook)",
        "auto_scale_lr",
        "optim_wrapper.accumulative_counts=8",
    ]


def test_a_list_of_one_evaluator_is_that_evaluator(tmp_path):
    said = "dict(type='CocoMetric', ann_file='data/coco/annotations/instances_val2017.json', metric='bbox'{})"
    text = f"val_evaluator = [{said.format('')}]\n"
    made = planned(written(tmp_path, text), "eval", 0, checkpoint="d.pth")
    plain = planned("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "eval", 0, checkpoint="d.pth")
    assert made.runs[0].config["val_evaluator"] == {
        k: v for k, v in plain.runs[0].config["val_evaluator"].items() if k not in ("backend_args", "format_only")
    } | {"type": "CocoMetric"}
    both = written(tmp_path, f"val_evaluator = [{said.format('')}, {said.format(', prefix=1')}]\n")
    assert refused(both, "eval", checkpoint="d.pth")[0] == (
        f"{both}: val_evaluator[1] is a second CocoMetric, so it is not clear which AP counts"
    )
    assert planned(both, "load", 0).runs == ()


def test_settings_of_an_evaluator_that_is_not_used_are_not_asked_for(r50, tmp_path):
    target = written(tmp_path, "val_evaluator = dict(iou_thrs=[0.5])\n")
    assert refused(target, "eval", checkpoint="d.pth")[0] == (
        f"{target}: val_evaluator.iou_thrs=[0.5]: COCO's AP is the mean over 0.50, 0.55, …, 0.95"
    )
    assert planned(target, "smoke", 0, pretrained=r50).runs[0].config["val_evaluator"].get("iou_thrs") is None


def test_what_is_other_test_parts_is_named(tmp_path):
    target = written(tmp_path, "test_evaluator = dict(ann_file='test.json')\n")
    made = planned(target, "eval", 0, checkpoint="d.pth")
    assert made.notes == (
        "the AP is that of val_dataloader and val_evaluator; test_evaluator.ann_file would give another AP",
    )
    assert planned(target, "load", 0).notes == ()


def emitted(folder: Path, checkpoint: str, **said: object) -> str:
    emitting.write(checkpoint, folder / "emitted.py", Choices(**said))
    return str(folder / "emitted.py")


@pytest.mark.parametrize("name", FILES)
def test_a_config_with_the_recipe_and_the_method_of_a_row_is_compared_with_it(files, tmp_path, name):
    row = RECIPES[name]
    target = emitted(tmp_path, files[row.method], detector=row.detector, schedule=row.schedule)
    own = planned(f"mmdet::selfsup_pretrain/{FILES[name]}", "full", gpus=8, pretrained=files[row.method])
    for made in (planned(target, "full", gpus=8), planned(target, "eval", checkpoint="detector.pth", gpus=1), own):
        assert made.digest == row.digest
        assert made.recipe is row
        assert made.expected is not None
        assert (made.expected.ap, made.expected.source) == ({"box": row.box, "mask": row.mask}, row.source)
        assert made.how_to_compare == ""
    named = planned(name, "full", pretrained=files[row.method], gpus=8)
    assert own.expected == named.expected


def test_a_config_of_no_recipe_is_compared_with_nothing(r50, tmp_path):
    target = emitted(tmp_path, r50, schedule="2x")
    made = planned(target, "full", gpus=8)
    assert made.digest not in {row.digest for row in RECIPES.values()}
    assert made.expected is None


@pytest.mark.parametrize("name", FILES)
def test_a_config_of_a_recipe_with_weights_of_nobody_knows_whom_names_the_rows(name):
    """MMDetection's own config of the row starts from a file that is not here, so nobody knows whose it is."""
    made = planned(f"mmdet::selfsup_pretrain/{FILES[name]}", "full", gpus=8)
    assert made.digest == RECIPES[name].digest
    assert (made.pretrained, made.recipe, made.expected) == (None, None, None)
    assert f"{name} (box AP {RECIPES[name].box:g}" in made.how_to_compare
    assert made.how_to_compare.endswith(
        "to compare with it, give the converted checkpoint of its weights, `pretrained='CKPT'`"
    )
    assert made.purpose == "measures the AP; there is nothing to compare it with"


def test_mixed_precision_of_a_config_is_compared_with_nothing(r50, tmp_path):
    target = emitted(tmp_path, r50)
    assert planned(target, "full", gpus=8, amp=True).expected is None


def test_the_arms_of_a_lift_share_seeds_and_data(r50):
    made = planned(ROW, "lift", 0, pretrained=r50, seeds=2, seed=5)
    assert [(run.name, run.group, run.job.seed) for run in made.runs] == [
        ("converted-seed5", "converted", 5),
        ("random-seed5", "random", 5),
        ("converted-seed6", "converted", 6),
        ("random-seed6", "random", 6),
    ]
    with_it, without = made.runs[:2]
    assert with_it.job == without.job
    assert with_it.job.repeatable
    for part in ("train_dataloader", "val_dataloader", "val_evaluator", "train_cfg", "optim_wrapper"):
        assert with_it.config[part] == without.config[part]
    assert with_it.config["model"]["backbone"]["init_cfg"]["checkpoint"] == r50
    assert "init_cfg" not in without.config["model"]["backbone"]
    assert "r50.pth" not in json.dumps(without.config["model"], default=str)
    assert made.expected is None
    assert made.synthetic == LIFT


def test_a_lift_has_three_seeds_and_a_smoke_test_one(r50):
    assert len(planned(ROW, "lift", 0, pretrained=r50).runs) == 6
    assert [run.name for run in planned(ROW, "smoke", 0, pretrained=r50).runs] == ["seed0"]


def test_the_arms_of_a_lift_on_the_users_data_share_what_was_chosen_of_them(r50, tmp_path):
    said = {"images": 50, "data_root": "/data/coco", "work_dir": str(tmp_path)}
    made = planned(ROW, "lift", 4, pretrained=r50, gpus=4, **said)
    assert made.synthetic is None
    for run in made.runs:
        assert run.config["train_dataloader"]["dataset"]["ann_file"] == str(tmp_path / "data" / "train.json")
        assert run.config["val_evaluator"]["ann_file"] == str(tmp_path / "data" / "val.json")
        assert run.config["train_dataloader"]["dataset"]["data_root"] == "/data/coco/"
        assert run.config["model"]["backbone"]["frozen_stages"] == -1  # a frozen stem of random numbers would be unfair


def test_a_smoke_test_is_small_and_has_a_floor(r50, tmp_path):
    made = planned(ROW, "smoke", 0, pretrained=r50, work_dir=str(tmp_path))
    assert made.synthetic == SMOKE
    assert made.expected is not None
    assert (made.expected.ap, made.expected.tolerance, made.expected.above) == ({"box": 20.0}, 0, "pass")
    (run,) = made.runs
    assert run.folder == tmp_path / "seed0"
    assert run.config["data_root"] == f"{tmp_path / 'data'}/"
    assert run.config["train_dataloader"]["batch_size"] == SMOKE.batch_size
    assert not run.job.cuda
    assert "SyncBN" not in json.dumps(run.config["model"], default=str)
    assert made.missing_files == ()


@pytest.mark.parametrize(("gpus", "images"), [(1, 4), (2, 2), (4, 1), (8, 1), (32, 1)])
def test_a_smoke_test_has_as_many_images_a_step_on_any_number_of_gpus_and_one_each_at_least(r50, gpus, images):
    (run,) = planned(ROW, "smoke", pretrained=r50, gpus=gpus).runs
    assert run.config["train_dataloader"]["batch_size"] == images
    assert "SyncBN" in json.dumps(run.config["model"], default=str)


def test_a_proof_of_load_runs_nothing(r50):
    made = planned(ROW, "load", 0, pretrained=r50)
    assert (made.runs, made.expected, made.synthetic) == ((), None, None)


def test_the_folder_is_named_after_target_and_tier(r50):
    assert planned(ROW, "smoke", 0, pretrained=r50).folder == Path(f"work_dirs/{ROW}-smoke")
    target = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
    assert planned(target, "load", 0).folder == Path("work_dirs/mask-rcnn_r50_fpn_1x_coco-load")


def test_a_plan_writes_nothing(r50, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tier in ("load", "smoke", "lift", "full"):
        planned(ROW, tier, 1, pretrained=r50)
    assert list(tmp_path.iterdir()) == []


def test_commands_can_be_typed(r50):
    many = planned(ROW, "full", pretrained=r50, gpus=8, work_dir="my work")
    (command,) = many.commands()
    torchrun = "python -m torch.distributed.run --standalone --nproc-per-node=8"
    assert command == f"{torchrun} -m ckptconv.mmdetection.verify.run.worker 'my work/seed0'"
    nodes = planned(ROW, "full", pretrained=r50, gpus=4, nodes=2, launcher="pytorch", work_dir="work")
    (command,) = nodes.commands()
    assert " --rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT " in command  # for the shell to fill in
    slurm = planned(ROW, "full", pretrained=r50, gpus=4, nodes=2, launcher="slurm", work_dir="work")
    assert next(slurm.commands()).startswith("srun ")


def test_both_metrics_are_measured_where_the_config_has_them(r50):
    assert planned(ROW, "full", pretrained=r50, gpus=8).metrics == ("box", "mask")
    boxes = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    assert planned(boxes, "eval", 0, checkpoint="detector.pth").metrics == ("box",)


@pytest.mark.parametrize("tier", ["smoke", "lift", "full"])
def test_mixed_precision_is_what_is_run(r50, tier):
    made = planned(ROW, tier, pretrained=r50, gpus=4, amp=True, **({"expect": {"box": 38.0}} if tier == "full" else {}))
    assert {run.config["optim_wrapper"]["type"] for run in made.runs} == {"AmpOptimWrapper"}


def test_the_whole_data_set_is_taken_for_a_lift_if_nobody_says_how_much(r50):
    made = planned(ROW, "lift", 1, pretrained=r50, data_root="/coco")
    assert made.runs[0].config["train_dataloader"]["dataset"]["ann_file"] == "annotations/instances_train2017.json"


def test_chosen_images_are_found_from_anywhere(r50):
    made = planned(ROW, "lift", 1, pretrained=r50, data_root="/coco", images=5)
    for part in ("train", "val"):
        found = Path(made.runs[0].config[f"{part}_dataloader"]["dataset"]["ann_file"])
        assert found == made.data.absolute() / f"{part}.json"


@pytest.mark.parametrize("gpus", [1, 3, 6, 32])
def test_a_detector_is_tested_on_any_number_of_gpus(gpus):
    made = planned(ROW, "eval", 32, checkpoint="detector.pth", gpus=gpus)
    assert made.digest == RECIPES[ROW].digest
    assert made.expected is not None


@pytest.mark.parametrize("tier", ["load", "smoke", "lift", "full"])
@pytest.mark.parametrize("gpus", [1, 4])
def test_a_recipe_is_itself_in_every_tier(r50, tier, gpus):
    assert planned(ROW, tier, pretrained=r50, gpus=gpus).digest == RECIPES[ROW].digest


def test_a_lift_is_no_race_against_frozen_random_numbers(r50, tmp_path):
    target = emitted(tmp_path, r50, norm="frozen")
    assert at(planned(target, "lift", 0, data_root="/coco").config, "model.backbone")[0]["norm_eval"]
    for run in planned(target, "lift", 0, data_root="/coco").runs:
        backbone = run.config["model"]["backbone"]
        assert (backbone["frozen_stages"], backbone["norm_eval"]) == (-1, False)
        assert backbone["norm_cfg"]["requires_grad"]


def test_the_mask_ap_of_a_config_without_masks_cannot_be_expected():
    target = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    said = {"checkpoint": "detector.pth", "gpus": 0, "expect": {"mask": 30.0}}
    assert refused(target, "eval", **said) == (f"{target} does not measure mask AP", "Leave mask out of `expect`.")


def test_what_is_no_detector_is_refused():
    target = "mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
    assert refused(target, "smoke", 0) == (f"{target} has no model.backbone", "Give a detector's config.")


def test_a_backbone_is_told_only_what_it_knows():
    target = "mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py"
    (run,) = planned(target, "smoke", 0).runs
    assert "frozen_stages" not in run.config["model"]["backbone"]


@pytest.mark.parametrize("tier", ["smoke", "lift"])
def test_generated_data_need_one_gpu_whatever_is_there(r50, tier):
    assert planned(ROW, tier, 16, pretrained=r50).launch.processes == 1
    assert planned(ROW, "full", 16, pretrained=r50).launch.processes == 16


NEW_STYLE = """
from mmengine.config import read_base
from mmengine.model.weight_init import PretrainedInit
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.models import FPN, ResNet, RetinaNet
import mmdet.models

default_scope = None
model = dict(
    type=RetinaNet,
    backbone=dict(type=ResNet, depth=50, init_cfg=dict(type=PretrainedInit, checkpoint=FILE)),
    neck=dict(type=FPN, in_channels=[256, 512, 1024, 2048], out_channels=256),
    bbox_head=dict(type=mmdet.models.RetinaHead, num_classes=80))
train_dataloader = dict(batch_size=2, dataset=dict(type=CocoDataset, ann_file='train.json'))
val_dataloader = dict(dataset=dict(type=CocoDataset, ann_file='val.json'))
val_evaluator = dict(type=CocoMetric, ann_file='val.json')
optim_wrapper = dict()
"""


@pytest.mark.parametrize("tier", ["smoke", "lift"])
def test_a_config_in_the_new_style_is_small_and_trains_whole_too(r50, tmp_path, tier):
    (tmp_path / "new.py").write_text(NEW_STYLE.replace("FILE", repr(r50)))
    made = planned(str(tmp_path / "new.py"), tier, 0)
    assert made.pretrained is not None
    assert made.title == "RetinaNet"
    for run in made.runs[:2]:
        backbone = run.config["model"]["backbone"]
        assert backbone["type"] == "mmdet.models.ResNet"
        assert (backbone["frozen_stages"], backbone["norm_eval"]) == (-1, False)
        assert backbone.get("zero_init_residual") is (False if run.group == "random" else None)
        assert ("init_cfg" in backbone) == (run.group != "random")
        assert run.config["model"]["neck"]["out_channels"] == 64
        assert run.config["default_scope"] == "mmdet"  # CocoDataset and its like are found in it

"""What a tier leaves out of a config, in words, and what no tier can honour."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from mmdet.registry import HOOKS as OF_MMDET
from mmengine.registry import HOOKS

from ckptconv.errors import UsageError
from ckptconv.mmdetection.verify import adjustments
from ckptconv.mmdetection.verify.adjustments import accumulated, adjusted, require_supported
from tests.support.converted import OWN, read

pytestmark = pytest.mark.mmdet
EMA = {"type": "EMAHook", "momentum": 0.0002}
SWITCH = {"type": "PipelineSwitchHook", "switch_epoch": 280, "switch_pipeline": []}
STOP = {"type": "EarlyStoppingHook", "monitor": "coco/bbox_mAP"}
KEPT = {"type": "CheckInvalidLossHook", "interval": 50}
NO_AVERAGE = "a short training is judged by the trained weights, and a slow average would hide them"


def config(*hooks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"custom_hooks": list(hooks), "optim_wrapper": {"optimizer": {"lr": 0.02}}, **more}


def test_a_short_training_has_no_average_and_says_so():
    before = config(KEPT, EMA)
    for tier, generated in (("smoke", True), ("lift", True), ("lift", False)):
        changed, notes = adjusted(before, tier, generated)
        assert changed["custom_hooks"] == [KEPT]
        assert notes == (f"custom_hooks[1] (EMAHook) is off: {NO_AVERAGE}",)
    assert before == config(KEPT, EMA)


def test_the_full_training_keeps_its_average_and_says_which_ap_is_judged():
    changed, notes = adjusted(config(KEPT, EMA), "full", False)
    assert changed == config(KEPT, EMA)
    assert notes == ("custom_hooks[1] (EMAHook): the AP is that of the average, as MMDetection evaluates it",)


@pytest.mark.parametrize("kind", ["EMAHook", "mmengine.hooks.EMAHook", "mods.MyEMAHook", "mods.SWAHook"])
def test_averages_are_known_by_their_names(kind):
    assert list(adjustments.averages(config({"type": kind}))) == [f"custom_hooks[0] ({kind.rpartition('.')[2]})"]


def test_an_average_among_the_default_hooks_is_turned_off_too():
    before = config(default_hooks={"timer": {"type": "IterTimerHook"}, "average": EMA})
    changed, notes = adjusted(before, "smoke", True)
    assert changed["default_hooks"] == {"timer": {"type": "IterTimerHook"}}
    assert notes == (f"default_hooks.average (EMAHook) is off: {NO_AVERAGE}",)


def test_hooks_of_the_configs_own_schedule_are_off_in_another_one():
    hooks = [{"type": name} for name in adjustments._OWN_SCHEDULE]
    changed, notes = adjusted(config(*hooks, KEPT), "smoke", True)
    assert changed["custom_hooks"] == [KEPT]
    assert [note.partition(" is off: ")[0] for note in notes] == [
        f"custom_hooks[{i}] ({hook['type']})" for i, hook in enumerate(hooks)
    ]


def test_a_lift_on_the_users_data_keeps_the_schedule_and_its_hooks():
    changed, notes = adjusted(config(SWITCH, STOP), "lift", False)
    assert changed["custom_hooks"] == [SWITCH]
    assert notes == ("custom_hooks[1] (EarlyStoppingHook) is off: every training of this tier has the same length",)


@pytest.mark.parametrize("name", ["EMAHook", *adjustments._OWN_SCHEDULE])
def test_the_hooks_that_are_named_are_there(name):
    assert OF_MMDET.get(name) or HOOKS.get(name)


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("yolox/yolox_s_8xb8-300e_coco.py", ["YOLOXModeSwitchHook", "EMAHook"]),
        ("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", ["EMAHook", "PipelineSwitchHook"]),
    ],
)
def test_mmdetections_own_configs_with_an_average_have_none_in_a_smoke_test(file, kinds):
    before = read(OWN / file)
    changed, notes = adjusted(before, "smoke", True)
    assert [kind for kind in kinds if any(f"({kind}) is off: " in note for note in notes)] == kinds
    assert not {hook["type"] for hook in changed["custom_hooks"]} & set(kinds)


def test_what_a_schedule_of_ones_own_cannot_use_is_off():
    before = config(auto_scale_lr={"enable": True, "base_batch_size": 16}, compile=True)
    before["optim_wrapper"]["accumulative_counts"] = 8
    changed, notes = adjusted(before, "smoke", True)
    assert changed["auto_scale_lr"] == {"enable": False, "base_batch_size": 16}
    assert changed["compile"] is False
    assert notes == (
        "auto_scale_lr is off: this tier sets its own learning rate",
        "optim_wrapper.accumulative_counts=8 is off: this tier has its own optimizer",
        "compile is off: compiling takes longer than this tier trains",
    )


def test_the_configs_own_training_scales_its_rate_as_mmdetection_does():
    before = config(auto_scale_lr={"enable": True, "base_batch_size": 16})
    assert adjusted(before, "full", False) == (before, ())
    before["optim_wrapper"]["accumulative_counts"] = 8
    changed, notes = adjusted(before, "full", False)
    assert changed == before
    said = "auto_scale_lr: MMDetection does not count accumulated batches, so it trains with 1/8 of the learning rate"
    assert notes == (said,)


@pytest.mark.parametrize("tier", ["eval", "full", "smoke", "lift"])
def test_a_config_with_nothing_of_it_stays_as_it_is(tier):
    before = read(OWN / "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    assert adjusted(deepcopy(before), tier, tier != "full") == (before, ())


@pytest.mark.parametrize(("said", "counts"), [({}, 1), ({"accumulative_counts": 4}, 4), (None, 1)])
def test_accumulated_batches(said, counts):
    assert accumulated({"optim_wrapper": said}) == counts


REFUSED = [
    ({"runner_type": "FlexibleRunner"}, "runner_type='FlexibleRunner', and verify-ap uses mmengine's Runner only"),
    (
        {"resume": True, "load_from": "epoch_3.pth"},
        "resume=True continues the training of load_from='epoch_3.pth', and verify-ap trains from the start",
    ),
    (
        {"auto_scale_lr": {"enable": True}},
        "auto_scale_lr.enable=True needs base_batch_size",
    ),
]


@pytest.mark.parametrize(("said", "message"), REFUSED)
def test_what_no_run_of_ours_can_honour_is_refused_with_its_line(said, message):
    with pytest.raises(UsageError) as error:
        require_supported(config(**said), "own.py", "full", False)
    assert error.value.message == f"own.py: {message}"
    assert error.value.hint


def test_what_makes_no_difference_is_not_refused():
    for said in ({"runner_type": "Runner"}, {"resume": True, "load_from": None}, {"load_from": "start.pth"}):
        require_supported(config(**said), "own.py", "full", False)
    require_supported(config(auto_scale_lr={"enable": True}), "own.py", "smoke", True)
    require_supported(config(resume=True, load_from="epoch_3.pth"), "own.py", "eval", False)

"""What a request amounts to: the published recipes are themselves, and what is no recipe is refused."""

from __future__ import annotations

import warnings

import pytest

import ckptconv
from ckptconv.errors import EnvironmentMissingError, UsageError
from ckptconv.mmdetection.verify.plan import plan, require_machine
from ckptconv.mmdetection.verify.recipes import RECIPES
from ckptconv.mmdetection.verify.request import Request
from tests.mmdetection.raw_files import moco

pytestmark = pytest.mark.mmdet
ROW = "mocov2-mask-rcnn-r50-fpn-1x"


@pytest.fixture(scope="module")
def r50(tmp_path_factory):
    folder = tmp_path_factory.mktemp("r50")
    ckptconv.convert(moco(folder / "raw.pth", 50), folder / "r50.pth", "moco")
    return str(folder / "r50.pth")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if row.method == "moco"])
@pytest.mark.parametrize(("gpus", "nodes"), [(8, 1), (4, 1), (4, 2)])
def test_a_published_recipe_is_itself_on_any_number_of_gpus(r50, name, gpus, nodes):
    launcher = "slurm" if nodes > 1 else None
    made = plan(Request(name, "full", pretrained=r50, gpus=gpus, nodes=nodes, launcher=launcher), 8)
    assert made.digest == RECIPES[name].digest
    assert made.expected is not None
    assert made.expected.ap == {"box": RECIPES[name].box, "mask": RECIPES[name].mask}


def test_mixed_precision_is_another_recipe(r50):
    with pytest.raises(UsageError, match=f"another recipe than that of {ROW}"):
        plan(Request(ROW, "full", pretrained=r50, gpus=8, amp=True), 8)


def test_a_row_speaks_of_its_own_weights_only(r50):
    with pytest.raises(UsageError, match="is of moco, and swav-mask-rcnn-r50-fpn-1x was published for swav"):
        plan(Request("swav-mask-rcnn-r50-fpn-1x", "full", pretrained=r50, gpus=8), 8)


def test_images_that_cannot_be_shared_are_refused(r50):
    with pytest.raises(UsageError, match="16 images a step cannot be shared by 3 processes"):
        plan(Request(ROW, "full", pretrained=r50, gpus=3), 8)


def test_the_full_tier_needs_a_gpu_and_says_what_for(r50):
    made = plan(Request(ROW, "full", pretrained=r50), 0)
    with pytest.raises(EnvironmentMissingError, match="trains 12 epochs with 16 images a step") as error:
        require_machine(made, 0)
    assert "annotations/instances_train2017.json" in error.value.hint


def test_missing_data_are_named(r50, tmp_path):
    request = Request(ROW, "eval", detector="detector.pth", data_root=str(tmp_path))
    with pytest.raises(UsageError, match=r"lacks annotations/instances_val2017.json, val2017/"):
        require_machine(plan(request, 0), 0)

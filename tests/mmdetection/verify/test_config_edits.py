"""Changes to configs that `emit-config` writes; what comes out is built, and run once, by MMDetection."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from ckptconv.errors import UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.config.detectors import DETECTORS
from ckptconv.mmdetection.verify import config_edits, lift
from ckptconv.mmdetection.verify.data import synthetic
from tests.support.converted import OWN, emit, plain, read, resolve, values

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TRAINING = config_edits.SyntheticTraining(train_images=20, val_images=6, epochs=4, val_interval=2)
EVERY = pytest.mark.parametrize("name", DETECTORS)
SLOW = {"mask-rcnn-c4", "dino"}  # to run, not to build


@functools.cache
def _emitted(name: str, schedule: str) -> dict[str, Any]:
    """ResNet-18, which builds quickly; C4 needs the fourth stage of a ResNet-50."""
    network = "r50" if DETECTORS[name].shared_head else "r18"
    return resolve(emit(network, detector=name, schedule=schedule).text)


def emitted(name: str = "mask-rcnn", schedule: str = "1x") -> dict[str, Any]:
    return deepcopy(_emitted(name, schedule))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return synthetic.make(tmp_path_factory.mktemp("data"), TRAINING.train_images, TRAINING.val_images)


@pytest.fixture(autouse=True)
def _quiet():
    with (
        DefaultScope.overwrite_default_scope("mmdet"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


TAKES = runtime.constructor_arguments({})


def random_arm(config: dict[str, Any]) -> dict[str, Any]:
    return lift.from_random(config, TAKES)


def shrunk(config: dict[str, Any], data: Path) -> dict[str, Any]:
    return lift.unfrozen(config_edits.shrink(config, TRAINING, data, synthetic.CLASSES), TAKES)


def built(config: dict[str, Any]) -> Any:
    return MODELS.build(Config({"model": config["model"]}).model)


def dataset(config: dict[str, Any], part: str) -> Any:
    return DATASETS.build(Config(config[f"{part}_dataloader"]["dataset"]))


def found(node: Any, key: str) -> list[Any]:
    """What stands under a key, anywhere."""
    if isinstance(node, dict):
        return [*([node[key]] if key in node else []), *(v for child in node.values() for v in found(child, key))]
    return [v for child in node for v in found(child, key)] if isinstance(node, list | tuple) else []


CHANGES = {
    "shrink": lambda config: shrunk(config, Path("data")),
    "from_random": lambda config: lift.from_random(config, TAKES),
    "unfrozen": lambda config: lift.unfrozen(config, TAKES),
    "unsynced": config_edits.without_sync_bn,
    "batch": lambda config: config_edits.with_batch_size(config, 5),
    "mixed": config_edits.with_mixed_precision,
    "moved": lambda config: config_edits.with_data_root(config, "elsewhere"),
    "annotated": lambda config: config_edits.with_annotations(config, Path("/a/train.json"), Path("/a/val.json")),
}


@EVERY
@pytest.mark.parametrize("change", CHANGES)
def test_no_change_touches_what_it_is_given(name, change):
    config = emitted(name, "mmselfsup")
    config["model"]["backbone"]["frozen_stages"] = 1
    before = deepcopy(config)
    changed = CHANGES[change](config)
    assert config == before
    assert changed != before


@pytest.mark.parametrize("name", ["mask-rcnn", "mask-rcnn-c4", "dino"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_shares_nothing_that_a_later_change_could_touch(name, change):
    config = emitted(name)
    changed = CHANGES[change](config)
    changed["model"]["backbone"]["depth"] = 1
    changed["train_dataloader"]["dataset"]["ann_file"] = "other"
    changed["optim_wrapper"]["optimizer"]["lr"] = 7
    assert config == emitted(name)


@EVERY
@pytest.mark.parametrize("schedule", ["1x", "mmselfsup"])
def test_what_is_shrunk_is_built_with_the_classes_of_the_data(name, schedule, data):
    model = built(random_arm(shrunk(emitted(name, schedule), data)))
    counts = {module.num_classes for module in model.modules() if isinstance(getattr(module, "num_classes", None), int)}
    assert 3 in counts
    assert counts <= {1, 3}  # region proposals have one
    assert type(model).__name__ == emitted(name)["model"]["type"]
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in SLOW])
def test_what_is_shrunk_computes_a_loss_and_detects_on_the_data(name, data):
    torch.manual_seed(0)
    config = config_edits.without_sync_bn(random_arm(shrunk(emitted(name), data)))
    model = built(config)
    batch = pseudo_collate([dataset(config, "train")[i] for i in range(2)])
    with torch.no_grad():
        losses = model(**model.data_preprocessor(batch, True), mode="loss")
        model.eval()
        batch = pseudo_collate([dataset(config, "val")[0]])
        (sample,) = model(**model.data_preprocessor(batch, False), mode="predict")
    assert [name for name in losses if "loss" in name]
    assert all(
        torch.isfinite(v).all() for said in losses.values() for v in (said if isinstance(said, list) else [said])
    )
    assert set(sample.pred_instances.labels.tolist()) <= {0, 1, 2}
    assert ("masks" in sample.pred_instances) == DETECTORS[name].masks


@EVERY
def test_both_parts_of_the_data_are_built(name, data):
    config = shrunk(emitted(name), data)
    train, val = dataset(config, "train"), dataset(config, "val")
    assert train.metainfo["classes"] == val.metainfo["classes"] == synthetic.CLASSES
    assert 0 < len(train) <= TRAINING.train_images  # without the empty ones
    assert len(val) == TRAINING.val_images
    for item in (train[0], val[0]):
        assert tuple(item["inputs"].shape) == (3, TRAINING.image_size, TRAINING.image_size)
        assert ("masks" in item["data_samples"].gt_instances) == DETECTORS[name].masks


@EVERY
def test_what_the_checkpoint_fills_stays_as_it_is(name):
    config = emitted(name)
    changed = shrunk(config, Path("data"))
    backbone = dict(config["model"]["backbone"], frozen_stages=-1)
    assert changed["model"]["backbone"] == backbone
    assert changed["model"]["data_preprocessor"] == config["model"]["data_preprocessor"]
    assert changed["custom_hooks"] == config["custom_hooks"]
    if DETECTORS[name].shared_head:
        assert changed["model"]["roi_head"]["shared_head"] == config["model"]["roi_head"]["shared_head"]


def test_what_is_shrunk_is_smaller():
    config = emitted()
    sizes = [sum(p.numel() for p in built(random_arm(c)).parameters()) for c in (config, shrunk(config, Path("data")))]
    assert sizes[1] < 0.5 * sizes[0]


def test_the_short_schedule_is_that_of_the_training():
    config = shrunk(emitted(), Path("data"))
    assert config["train_cfg"]["max_epochs"] == 4
    assert config["train_cfg"]["val_interval"] == 2
    assert config["train_dataloader"]["batch_size"] == TRAINING.batch_size
    assert config["val_dataloader"]["batch_size"] == 1
    assert config["optim_wrapper"]["optimizer"]["lr"] == TRAINING.lr
    assert config["default_hooks"]["checkpoint"]["interval"] == 1
    assert config["val_evaluator"]["metric"] == ["bbox", "segm"]
    assert config["val_evaluator"]["ann_file"] == "data/annotations/instances_val2017.json"
    assert config["test_evaluator"] == config["val_evaluator"]


@pytest.mark.parametrize(("images", "iterations"), [(16, 4), (17, 6), (1, 2)])
def test_the_last_batch_of_an_epoch_counts(images, iterations):
    assert (
        config_edits.SyntheticTraining(train_images=images, val_images=1, epochs=2, val_interval=1).iterations
        == iterations
    )


@EVERY
def test_what_is_shrunk_can_be_written_down(name):
    config = shrunk(emitted(name), Path("data"))
    assert plain(values(python_source.assignments(config))) == plain(config)


@EVERY
def test_the_random_arm_starts_from_nothing_and_is_otherwise_the_same(name):
    config = emitted(name)
    config["custom_hooks"].append({"type": "EMAHook"})
    random = random_arm(config)
    assert "init_cfg" not in random["model"]["backbone"]
    assert "Pretrained" not in str(random["model"])
    assert random["custom_hooks"] == [{"type": "EMAHook"}]
    other = ("init_cfg", "custom_hooks", "zero_init_residual")
    assert plain(random, *other) == plain(config, *other)
    assert random["model"]["backbone"]["zero_init_residual"] is False


def test_other_initialisations_stay():
    config = emitted()
    config["model"]["neck"]["init_cfg"] = {"type": "Xavier", "layer": "Conv2d"}
    assert random_arm(config)["model"]["neck"]["init_cfg"] == {"type": "Xavier", "layer": "Conv2d"}


def test_a_config_without_hooks_has_a_random_arm_too():
    config = emitted()
    del config["custom_hooks"]
    assert random_arm(config)["custom_hooks"] == []


@EVERY
def test_an_unfrozen_backbone_trains_whole(name):
    config = emitted(name)
    config["model"]["backbone"]["frozen_stages"] = 2
    free = lift.unfrozen(config, TAKES)
    assert all(p.requires_grad for p in built(random_arm(free)).backbone.parameters())
    assert plain(free, "frozen_stages") == plain(config, "frozen_stages")


@EVERY
def test_unsynced_there_is_no_synced_norm_left(name):
    config = random_arm(emitted(name, "mmselfsup"))
    for changed, synced in ((config, True), (config_edits.without_sync_bn(config), False)):
        model = built(changed)
        assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules()) == synced
        assert any(type(m) is torch.nn.BatchNorm2d for m in model.modules()) != synced
    before, after = (found(c["model"], "norm_cfg") for c in (config, config_edits.without_sync_bn(config)))
    assert [{**b, "type": "BN"} if b and b["type"] == "SyncBN" else b for b in before] == after


@EVERY
def test_a_batch_is_that_of_training_only(name):
    config = emitted(name)
    changed = config_edits.with_batch_size(config, 7)
    assert changed["train_dataloader"].pop("batch_size") == 7
    del config["train_dataloader"]["batch_size"]
    assert changed == config


@EVERY
def test_mixed_precision_is_set_as_mmdetections_own_script_sets_it(name):
    config = emitted(name)
    changed = config_edits.with_mixed_precision(config)
    assert changed["optim_wrapper"].pop("loss_scale") == "dynamic"
    assert changed["optim_wrapper"].pop("type") == "AmpOptimWrapper"
    del config["optim_wrapper"]["type"]
    assert changed == config
    script = (OWN.parent / "tools" / "train.py").read_text()
    assert "cfg.optim_wrapper.type = 'AmpOptimWrapper'" in script
    assert "cfg.optim_wrapper.loss_scale = 'dynamic'" in script


@EVERY
@pytest.mark.parametrize("root", ["/far/away", "/far/away/", "near"])
def test_moved_data_are_where_emit_config_puts_them(name, root):
    network = "r50" if DETECTORS[name].shared_head else "r18"
    expected = resolve(emit(network, detector=name, data_root=root).text)
    changed = config_edits.with_data_root(emitted(name), root)
    for part in ("train_dataloader", "val_dataloader", "val_evaluator"):
        assert plain(changed[part]) == plain(expected[part])
    assert changed["data_root"] == f"{root.rstrip('/')}/"


def test_what_does_not_lie_below_the_root_is_not_moved():
    config = emitted()
    config["val_dataloader"]["dataset"]["data_root"] = "data/other/"
    changed = config_edits.with_data_root(config, "far/away")
    assert changed["val_dataloader"]["dataset"]["data_root"] == "data/other/"
    assert changed["train_dataloader"]["dataset"]["data_root"] == "far/away/"


def test_data_that_were_moved_twice_are_where_they_were_moved_last():
    config = emitted()
    assert config_edits.with_data_root(
        config_edits.with_data_root(config, "one"), "two"
    ) == config_edits.with_data_root(config, "two")


def wrapped(*inner: dict[str, Any]) -> dict[str, Any]:
    concatenated = {"type": "ConcatDataset", "datasets": list(inner)}
    return {"train_dataloader": {"dataset": {"type": "RepeatDataset", "times": 3, "dataset": concatenated}}}


def test_data_sets_are_found_whatever_wraps_them():
    one, two = {"type": "CocoDataset", "ann_file": "one.json"}, {"type": "CocoDataset", "ann_file": "two.json"}
    assert list(config_edits.datasets(wrapped(one, two), "train")) == [one, two]
    assert list(config_edits.datasets(wrapped(one, two), "val")) == []
    mixing = read(OWN / "yolox" / "yolox_s_8xb8-300e_coco.py")
    (inner,) = config_edits.datasets(mixing, "train")
    assert inner["ann_file"] == "annotations/instances_train2017.json"


@EVERY
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_detector_has_one_data_set_a_part(name, part):
    (inner,) = config_edits.datasets(emitted(name), part)
    assert inner["ann_file"] == f"annotations/instances_{part}2017.json"


def test_other_annotations_are_read_instead(data, tmp_path):
    config = shrunk(emitted(), data)
    chosen = [tmp_path / "train.json", tmp_path / "val.json"]
    for part, file in zip(("train", "val"), chosen, strict=True):
        file.write_bytes((data / "annotations" / f"instances_{part}2017.json").read_bytes())
    changed = config_edits.with_annotations(config, *chosen)
    for part, file in zip(("train", "val"), chosen, strict=True):
        assert dataset(changed, part).ann_file == str(file)
        assert len(dataset(changed, part)) == len(dataset(config, part))
    assert changed["val_evaluator"]["ann_file"] == str(chosen[1])
    assert plain(changed, "ann_file") == plain(config, "ann_file")


def test_other_annotations_are_read_whatever_wraps_the_data_sets():
    one = {"type": "CocoDataset", "ann_file": "one.json"}
    config = {**wrapped(one), "val_dataloader": {"dataset": dict(one)}, "val_evaluator": {"ann_file": "one.json"}}
    changed = config_edits.with_annotations(config, Path("/a/train.json"), Path("/a/val.json"))
    assert [d["ann_file"] for d in config_edits.datasets(changed, "train")] == ["/a/train.json"]
    assert [d["ann_file"] for d in config_edits.datasets(changed, "val")] == ["/a/val.json"]


def test_one_root_of_all_data_sets_is_moved_though_the_config_does_not_name_it():
    config = emitted()
    del config["data_root"]
    assert config_edits.with_data_root(config, "far") == config_edits.with_data_root(emitted(), "far")


def test_several_roots_none_of_which_is_the_configs_are_refused():
    config = emitted()
    del config["data_root"]
    config["val_dataloader"]["dataset"]["data_root"] = "data/other/"
    with pytest.raises(UsageError, match="the data sets are in data/coco/, data/other/"):
        config_edits.with_data_root(config, "far")


@pytest.mark.parametrize("start", ["list", "pretrained", "load_from"])
def test_random_weights_are_random_however_the_config_says_where_to_start(start):
    config = emitted()
    backbone = config["model"]["backbone"]
    said = backbone.pop("init_cfg")
    if start == "list":
        backbone["init_cfg"] = [{"type": "Kaiming", "layer": "Conv2d"}, said]
    elif start == "pretrained":
        backbone["pretrained"] = "torchvision://resnet50"
    else:
        config["load_from"] = "detector.pth"
    random = random_arm(config)
    assert "Pretrained" not in str(random["model"])
    assert "torchvision" not in str(random)
    assert random["load_from"] is None
    if start == "list":
        assert random["model"]["backbone"]["init_cfg"] == [{"type": "Kaiming", "layer": "Conv2d"}]

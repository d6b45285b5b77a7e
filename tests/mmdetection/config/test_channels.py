"""Images of any number of channels through MMDetection's own code: loaded, fed, proved, and trained on for a step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

import ckptconv
from ckptconv.backbones import Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.errors import UsageError
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.backbone_args import ON_ONE_MAP, VITDET, network
from ckptconv.mmdetection.config.channels import adapted
from ckptconv.mmdetection.config.detectors import DETECTORS
from ckptconv.mmdetection.config.options import choose
from ckptconv.mmdetection.verify import plan as verifying
from ckptconv.mmdetection.verify.request import Request
from ckptconv.rules import keep
from tests.support import pretrain, tiny_coco
from tests.support.converted import NETWORKS, plain, resolve
from tests.support.training import train

pytestmark = [
    pytest.mark.mmdet,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:DeprecationWarning.*num_anchors:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not exist in the current model"),
]
RULES = [keep("{key...}", "{key...}")]
each_count = pytest.mark.parametrize("count", [1, 2, 4, 13])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file_of(member: Backbone, **said: Any) -> str:
    torch.manual_seed(0)
    torch.save({n: torch.rand(shape) * 0.05 + 0.01 for n, shape in member.entries().items()}, "raw.pth")
    ckptconv.convert("raw.pth", "out.pth", RULES, force=True, **said)
    return "out.pth"


def r18(count: int) -> Backbone:
    return replace(NETWORKS["r18"], in_channels=count)


def numbers(count: int) -> tuple[str, str]:
    """Another mean and standard deviation for each channel."""
    return ",".join(str(10 * i + 5) for i in range(count)), ",".join(str(i + 1) for i in range(count))


def written(path: str, **said: Any) -> str:
    emit.write(path, "made.py", choose(**said), force=True)
    return "made.py"


@pytest.mark.parametrize(
    ("detector", "schedule", "count"),
    [*((detector, "1x", 4) for detector in DETECTORS), *(("mask-rcnn", "ms-2x", count) for count in (1, 2, 4, 13))],
)
def test_every_detector_gets_its_own_pipelines_with_another_loading(detector: str, schedule: str, count: int) -> None:
    mean, std = numbers(count)
    said = choose(detector=detector, schedule=schedule, mean=mean, std=std)
    usual = resolve(emit.emit(file_of(r18(3)), choose(detector=detector, schedule=schedule)).text)
    found = resolve(emit.emit(file_of(r18(count)), said).text)
    assert found["model"]["backbone"]["in_channels"] == count
    fed = found["model"]["data_preprocessor"]
    assert fed["bgr_to_rgb"] is False
    assert (fed["mean"], fed["std"]) == (([5.0], [1.0]) if count == 1 else (None, None))
    for part in ("train", "val", "test"):
        had, has = (plain(c[f"{part}_dataloader"]["dataset"]["pipeline"]) for c in (usual, found))
        new = len(has) - len(had) + 1
        assert has[new:] == had[1:]
        assert [step["type"] for step in has[:new]] == [
            "LoadImageFromFile",
            *(["FileOrder"] if count == 4 else []),
            *(["Normalize"] if count > 1 else []),
        ]


@each_count
def test_a_detector_sees_each_channel_of_a_file_with_its_own_statistics(count: int, here: Path) -> None:
    image = np.random.default_rng(count).integers(0, 256, (48, 64, count)).astype(np.uint8)
    name = f"one.{'png' if count in (1, 4) else 'tif'}"
    tiny_coco.write(here / name, image)
    mean, std = numbers(count)
    settings = Config.fromfile(written(file_of(r18(count)), mean=mean, std=std, style="flat"))
    init_default_scope("mmdet")
    steps = [step for step in settings.test_pipeline if step["type"] not in ("Resize", "LoadAnnotations")]
    pack = {"type": "PackDetInputs", "meta_keys": ("img_path", "ori_shape", "img_shape")}
    packed = Compose([*steps[:-1], pack])({"img_path": name, "img_id": 0})
    from mmdet.registry import MODELS

    feed = MODELS.build(settings.model.data_preprocessor)
    fed = feed({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})["inputs"][0]
    wanted = (image - np.array(mean.split(","), float)) / np.array(std.split(","), float)
    assert fed.shape[0] == count
    assert np.abs(fed[:, :48].numpy() - wanted.transpose(2, 0, 1)).max() < 1e-4


@each_count
def test_check_proves_it_and_a_training_takes_a_step(count: int, here: Path) -> None:
    mean, std = numbers(count)
    made = written(
        file_of(r18(count)),
        mean=mean,
        std=std,
        detector="retinanet",
        data_root=str(tiny_coco.make(here / "coco", 2, count)),
        classes="box",
        norm="BN",
    )
    found = check(made)
    (report,) = found.modules
    assert found.good, report
    assert (report.equal, report.network) == (report.total, r18(count).name)
    runner = train(made, work_dir=str(here / "work"), **{"visualizer.name": f"of {count} channels"})
    assert runner.iter == 1
    assert runner.model.backbone.conv1.weight.shape[1] == count
    losses = [value for name, value in runner.message_hub.log_scalars.items() if name == "train/loss"]
    assert len(losses) == 1
    assert math.isfinite(losses[0].current())


def test_four_channels_of_another_file_are_refused_by_name(here: Path) -> None:
    from mmdet.registry import TRANSFORMS

    import ckptconv.mmdetection.file_order  # noqa: F401

    init_default_scope("mmdet")
    step = TRANSFORMS.build({"type": "FileOrder", "channels": 4})
    with pytest.raises(ValueError, match=r"^a\.png has 3 channels, and the network takes 4$"):
        step({"img": np.zeros((2, 2, 3)), "img_path": "a.png"})
    image = np.arange(4).reshape(1, 1, 4)
    assert step({"img": image})["img"].ravel().tolist() == [2, 1, 0, 3]


SWIN = Swin(32, 128, (1, 1, 1, 1), (1, 2, 4, 8), (4, 4, 4, 4))
CONVNEXT = ConvNeXt((1, 1, 1, 1), (16, 32, 64, 128), True, False, True, 4, 3)
VIT = VisionTransformer(64, 3, 128, 16, 14 * 14)
CAE = Beit(64, 3, 128, 16, 14, 1, shared_relative_positions=False, absolute_positions=True)


@each_count
@pytest.mark.parametrize(
    ("member", "said"),
    [(SWIN, {}), (CONVNEXT, {}), (VIT, {"base": ON_ONE_MAP}), (CAE, {"base": ON_ONE_MAP})],
    ids=["Swin", "ConvNeXt", "ViT", "BEiT"],
)
def test_every_family_is_proved_in_a_real_detector(member: Any, said: dict[str, Any], count: int) -> None:
    pretrain.models()
    member = replace(member, in_channels=count)
    target = {"target": "mmpretrain"} if said else {}
    made = written(file_of(member, **target), mean="0", std="1", **said)
    found = check(made)
    (report,) = found.modules
    assert found.good, report
    assert report.equal == report.total
    stem = next(value for value in Config.fromfile(made).model.backbone.items() if value[0] == "in_channels")
    assert stem[1] == count


def test_vitdet_is_told_the_channels() -> None:
    """Its class is a project of MMDetection's repository: projects/ViTDet/vitdet/vit.py takes ``in_chans``."""
    for member in (VIT, CAE):
        built = network(replace(member, in_channels=4), target="vitdet")
        assert built is not None
        assert built.arguments["in_chans"] == 4
        assert built.base == VITDET
        usual = network(member, target="vitdet")
        assert usual is not None
        assert "in_chans" not in usual.arguments


def test_three_picked_channels_ask_for_their_statistics_and_get_them() -> None:
    path = file_of(r18(13), channels=(4, 3, 2))
    with pytest.raises(UsageError) as caught:
        emit.emit(path)
    assert caught.value.message == (
        "out.pth takes images of 3 channels, and the mean and standard deviation of their pixels are not known"
    )
    assert caught.value.hint == (
        "Give `mean` and `std`, 3 numbers each or one for all. `mean=(0,)` `std=(1,)` leaves the pixels as they are."
    )
    found = resolve(emit.emit(path, choose(mean="1,2,3", std="4")).text)
    fed = found["model"]["data_preprocessor"]
    assert (fed["mean"], fed["std"], fed["bgr_to_rgb"]) == ([1, 2, 3], [4, 4, 4], True)
    assert found["train_dataloader"]["dataset"]["pipeline"][0] == {"type": "LoadImageFromFile", "backend_args": None}
    assert "in_channels" not in found["model"]["backbone"]


def test_statistics_of_the_user_go_before_the_methods() -> None:
    fed = resolve(emit.emit(file_of(r18(3)), choose(mean="1,2,3", std="4,5,6")).text)["model"]["data_preprocessor"]
    assert (fed["mean"], fed["std"]) == ([1, 2, 3], [4, 5, 6])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mean": "1"}, "`mean` alone does not normalise"),
        ({"std": "1"}, "`std` alone does not normalise"),
        ({"mean": "x", "std": "1"}, "`mean='x'` is not a list of numbers"),
        ({"mean": "nan", "std": "1"}, "`mean` and `std` cannot be those of pixels"),
        ({"mean": "1", "std": "0"}, "`mean` and `std` cannot be those of pixels"),
        ({"mean": "1,2", "std": "1"}, "`mean` has 2 numbers, and out.pth takes images of 4 channels"),
    ],
)
def test_statistics_that_make_no_sense_are_refused(said: dict[str, str], message: str) -> None:
    path = file_of(r18(4))
    with pytest.raises(UsageError) as caught:
        emit.emit(path, choose(**said))
    assert caught.value.message == message


BASE = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"


def test_a_base_of_the_users_own_is_adapted_or_left_as_it_is(here: Path) -> None:
    made = written(file_of(r18(4)), base=BASE, mean="0", std="1")
    found = Config.fromfile(made)
    for part in ("train", "val", "test"):
        kinds = [step["type"] for step in found[f"{part}_dataloader"].dataset.pipeline]
        assert kinds[:3] == ["LoadImageFromFile", "FileOrder", "Normalize"]
    Path("own.py").write_text(Path(made).read_text())
    again = Config.fromfile(written(file_of(r18(4)), base="own.py"))
    assert plain(again.train_dataloader.dataset.to_dict()) == plain(found.train_dataloader.dataset.to_dict())
    assert check("made.py").good


@pytest.mark.parametrize(
    ("step", "count"), [("PhotoMetricDistortion", 4), ("Mosaic", 2), ("mmdet.CachedMixUp", 4), ("Pad", 13)]
)
def test_what_is_written_for_colours_is_refused(step: str, count: int) -> None:
    inner = [{"type": "LoadImageFromFile"}, {"type": "RandomChoice", "transforms": [[{"type": step}]]}]
    own = {"train_dataloader": {"dataset": {"dataset": {"pipeline": inner}}}}
    with pytest.raises(UsageError, match=f"its pipeline has {step.rpartition('.')[2]}, which images of {count}"):
        adapted(own, count, [0.0], [1.0])
    with pytest.raises(UsageError, match="its training has no LoadImageFromFile"):
        adapted({"train_dataloader": {"dataset": {"pipeline": [{"type": "Mine"}]}}}, count, [0.0], [1.0])


SCALES = {"type": "RandomResize", "scale": [(1333, 640), (1333, 800)]}  # mmcv wants tuples


@pytest.mark.parametrize("count", [1, 2, 4])
def test_padding_with_a_colour_becomes_padding_with_zeros(count: int) -> None:
    pad = {"type": "Pad", "size": (8, 8), "pad_val": {"img": (114, 114, 114)}}  # of configs/common/lsj-100e
    own = {"train_dataloader": {"dataset": {"pipeline": [{"type": "LoadImageFromFile"}, SCALES, pad]}}, "other": [pad]}
    ((path, steps),) = adapted(own, count, [0.0] * count, [1.0] * count).items()
    assert path == "train_dataloader.dataset.pipeline"
    assert steps[-2:] == [SCALES, {**pad, "pad_val": {"img": 0}}]
    image = np.ones((4, 4, count) if count > 1 else (4, 4), np.float32)
    init_default_scope("mmdet")
    padded = Compose(steps[-1:])({"img": image, "img_shape": (4, 4)})["img"]
    assert padded.shape[:2] == (8, 8)
    assert padded.sum() == image.sum()


def test_drawn_images_have_three_channels(here: Path) -> None:
    written(file_of(r18(4)), mean="0", std="1")
    with pytest.raises(UsageError) as caught:
        verifying.make_plan(Request("made.py", "smoke", gpus=0), 0)
    assert caught.value.message == "made.py takes images of 4 channels, and the generated images have 3"

"""Detectors that MMDetection itself builds from emitted configs: shapes, and numbers through them on a CPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from ckptconv.mmdetection.config.detectors import DETECTORS
from tests.support.converted import CHANNELS, NETWORKS, emit, values

pytestmark = [
    pytest.mark.mmdet,
    pytest.mark.filterwarnings("ignore:DeprecationWarning.*num_anchors:UserWarning"),
    pytest.mark.filterwarnings("ignore:The arguments `dropout` in MultiheadAttention:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8:UserWarning"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
]

DETECTOR = pytest.mark.parametrize("detector", DETECTORS)
EVERY = pytest.mark.parametrize(
    ("detector", "network"),
    [
        pytest.param(d, n, id=f"{d}-{n}")
        for d, row in DETECTORS.items()
        for n in NETWORKS
        if not (row.shared_head and n in ("r50w2", "x50"))
    ],
)
SIZE = 96


def config(network: str = "r18", **said: Any) -> ConfigDict:
    return ConfigDict(values(emit(network, style="flat", **said).text))


def build(found: ConfigDict, device: str = "meta") -> Any:
    init_default_scope("mmdet")
    with torch.device(device):
        return MODELS.build(found.model)


@EVERY
def test_every_detector_builds_on_every_network(detector, network):
    found = config(network, detector=detector)
    model = build(found)
    stages = found.model.backbone.get("num_stages", 4)
    entries = {k: tuple(v.shape) for k, v in model.backbone.state_dict().items()}
    wanted = NETWORKS[network].entries()
    assert entries == {k: s for k, s in wanted.items() if k[:5] != "layer" or int(k[5]) <= stages}
    row = DETECTORS[detector]
    if row.shared_head:
        head = {k: tuple(v.shape) for k, v in model.roi_head.shared_head.state_dict().items()}
        assert head == {k: s for k, s in wanted.items() if k.startswith("layer4.")}
    assert all(isinstance(m, nn.SyncBatchNorm) for m in model.backbone.modules() if "BatchNorm" in type(m).__name__)
    model.backbone.eval()
    with torch.no_grad():
        maps = model.backbone(torch.empty(1, 3, 64, 64, device="meta"))
    given = [m.shape[1] for m in maps]
    assert given == [CHANNELS[network][i] for i in found.model.backbone.out_indices]
    if row.shared_head:
        assert model.rpn_head.rpn_conv.in_channels == model.roi_head.bbox_roi_extractor.out_channels == given[-1]
        assert model.roi_head.bbox_head.fc_cls.in_features == CHANNELS[network][3]
    else:
        taken = model.neck.lateral_convs if hasattr(model.neck, "lateral_convs") else model.neck.convs
        assert [conv.conv.in_channels for conv in taken] == given[-len(taken) :]
        model.neck(maps)  # meta tensors: shapes only


@DETECTOR
def test_mmselfsups_recipe_is_built(detector):
    found = config("r18", detector=detector, schedule="mmselfsup", classes="a,b,c,d,e,f,g")
    model = build(found)
    row = DETECTORS[detector]
    synced = {path.replace("[]", "") for path in row.synced}

    assert norms(model.backbone) == {"SyncBatchNorm"}
    if "model.neck.norm_cfg" in synced:
        assert norms(model.neck) == {"SyncBatchNorm"}
        assert all(hasattr(c, "bn") for c in [*model.neck.lateral_convs, *model.neck.fpn_convs[:4]])
    if "model.roi_head.bbox_head.type" in synced:
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            assert type(head).__name__ == "Shared4Conv1FCBBoxHead"
            assert [type(c.bn).__name__ for c in head.shared_convs] == ["SyncBatchNorm"] * 4
            assert len(head.shared_fcs) == 1
            assert head.fc_cls.out_features == 8
    if "model.roi_head.mask_head.norm_cfg" in synced:
        heads = model.roi_head.mask_head
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            assert [type(c.bn).__name__ for c in head.convs] == ["SyncBatchNorm"] * 4
    frozen = [name for name, value in model.backbone.named_parameters() if not value.requires_grad]
    assert frozen == []


@pytest.mark.parametrize(
    ("stages", "frozen"),
    [(-1, []), (0, ["bn1", "conv1"]), (1, ["bn1", "conv1", "layer1"]), (2, ["bn1", "conv1", "layer1", "layer2"])],
)
def test_what_frozen_stages_freezes(stages, frozen):
    """As the comment in the config says."""
    model = build(config("r18", detector="retinanet", frozen_stages=stages, norm="BN"))
    fixed = {name.partition(".")[0] for name, value in model.backbone.named_parameters() if not value.requires_grad}
    assert sorted(fixed) == frozen


@pytest.mark.parametrize(
    ("norm", "trains", "learns"), [("SyncBN", True, True), ("BN", True, True), ("frozen", False, False)]
)
def test_what_norm_does(norm, trains, learns):
    model = build(config("r18", detector="mask-rcnn-c4", norm=norm, frozen_stages=-1)).train()
    for part in (model.backbone, model.roi_head.shared_head):
        found = [m for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert found
        assert {m.training for m in found} == {trains}
        assert {m.weight.requires_grad for m in found} == {learns}
        assert {isinstance(m, nn.SyncBatchNorm) for m in found} == {norm == "SyncBN"}


def norms(module: nn.Module) -> set[str]:
    return {type(m).__name__ for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def small(detector: str, **said: Any) -> Any:
    """The detector with few classes and RoIs, so that a CPU is quick with it."""
    found = config("r18", detector=detector, classes="a,b,c", **said)
    trained = found.model.get("train_cfg") or {}
    for part in (trained.get("rpn"), *rcnns(trained)):
        if part:
            part.sampler.num = 16
    if trained.get("rpn_proposal"):
        trained.rpn_proposal.update(nms_pre=50, max_per_img=20)
        found.model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    if "num_queries" in found.model:
        found.model.num_queries = 20
        found.model.encoder.num_layers, found.model.decoder.num_layers = 1, 2
        found.model.test_cfg.max_per_img = 20
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build(found, "cpu"))
    model.backbone.init_cfg = None  # the file is made up
    if DETECTORS[detector].shared_head:
        model.roi_head.shared_head.init_cfg = None
    model.init_weights()
    return model


def rcnns(trained: Any) -> list[Any]:
    found = trained.get("rcnn")
    return list(found) if isinstance(found, list) else [found]


def batch(masks: bool) -> dict[str, list[Any]]:
    """Two images of noise with two objects each."""
    rng = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(2):
        sample = DetDataSample()
        meta = {
            "img_shape": (SIZE, SIZE),
            "ori_shape": (SIZE, SIZE),
            "pad_shape": (SIZE, SIZE),
            "scale_factor": (1.0, 1.0),
        }
        sample.set_metainfo({**meta, "batch_input_shape": (SIZE, SIZE), "img_id": 1})
        boxes = torch.tensor([[8.0, 8.0, 60.0, 60.0], [30.0, 20.0, 90.0, 80.0]])
        objects = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
        if masks:
            filled = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
            for i, (x, y, right, low) in enumerate(boxes.int().tolist()):
                filled[i, y:low, x:right] = 1
            objects.masks = BitmapMasks(filled.numpy(), SIZE, SIZE)
        sample.gt_instances = objects
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    images = [torch.randint(0, 256, (3, SIZE, SIZE), generator=rng, dtype=torch.uint8) for _ in samples]
    return {"inputs": images, "data_samples": samples}


@DETECTOR
def test_a_step_of_training_and_a_prediction(detector):
    row = DETECTORS[detector]
    synced = {"schedule": "mmselfsup"} if row.synced else {}
    model = small(detector, **synced).train()
    data = model.data_preprocessor(batch(row.masks), training=True)
    assert data["inputs"].shape == (2, 3, SIZE, SIZE)
    losses, _ = model.parse_losses(model(**data, mode="loss"))
    assert math.isfinite(losses.item())
    losses.backward()
    for name, value in model.backbone.named_parameters():
        learns = synced or not name.startswith(("conv1.", "bn1."))
        assert (value.grad is not None) is bool(learns), name
        assert value.grad is None or value.grad.isfinite().all()
    if row.shared_head:
        assert all(p.grad is not None for p in model.roi_head.shared_head.parameters())
    model.eval()
    with torch.no_grad():
        found = model.test_step(batch(row.masks))
    assert len(found) == 2
    for sample in found:
        told = sample.pred_instances
        assert told.bboxes.isfinite().all()
        assert told.scores.isfinite().all()
        assert set(told.labels.tolist()) <= {0, 1, 2}
        assert ("masks" in told) is row.masks


def test_the_detector_is_fed_the_pixels_of_the_method():
    """An image of the mean is black to the network: channels are not swapped on the way."""
    model = small("fcos")
    mean = torch.tensor([103.53, 116.28, 123.675])  # as cv2 reads it: BGR
    image = mean.round().to(torch.uint8)[:, None, None].expand(3, 32, 32)
    fed = model.data_preprocessor({"inputs": [image], "data_samples": [DetDataSample(metainfo={})]})["inputs"]
    assert fed.abs().max() < 0.02
    red = torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    fed = model.data_preprocessor({"inputs": [red], "data_samples": [DetDataSample(metainfo={})]})["inputs"]
    assert fed[0, :, 0, 0].tolist() == pytest.approx(
        [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375], rel=1e-5
    )

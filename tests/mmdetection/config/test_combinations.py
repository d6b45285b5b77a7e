"""Every family of timm's networks in every detector: the config is written and read, and its channels fit.

Backbone and neck are built, the heads are not, and nothing is trained: `test_timm` and `test_built_detectors` do that
for a few of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

import ckptconv
from ckptconv.mmdetection.config.detectors import DETECTORS
from tests.support import official, pretrain
from tests.support.converted import at, resolve

pytestmark = [pytest.mark.mmdet, pytest.mark.filterwarnings("ignore")]  # of mmdet's and timm's own code

NETWORKS = {
    "ViT": "dino_vit",
    "Eva": "dinov3_vit",
    "BEiT": "beit_vit",
    "Hiera": "hiera_mae",
    "XCiT": "dino_xcit",
    "RegNetY": "seer_regnety",
    "SwinV2": "simmim_swinv2",
}
"""A network of `tests/official` for each family whose usual target is timm."""
SIDE = 128


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ckptconv.mmdetection import modules  # noqa: F401 (registers)

    pretrain.module("timm")
    init_default_scope("mmdet")
    network, folder = official.network(request.param), tmp_path_factory.mktemp("network")
    method = "auto" if network.guessed else network.method
    ckptconv.convert(network.write(folder), folder / "backbone.pth", method, target="timm")
    return folder / "backbone.pth"


def head_inputs(model: Mapping[str, Any]) -> Iterator[int]:
    """The channels that the heads take, wherever a config states them."""
    for name in ("rpn_head", "bbox_head"):
        channels = model.get(name, {}).get("in_channels")
        if channels is not None:
            yield channels


def test_a_network_fits_every_detector(file: Path) -> None:
    built: dict[str, Any] = {}
    for detector in DETECTORS.values():
        model = resolve(ckptconv.emit_config(file, detector=detector.name, guard=False).text)["model"]
        arguments = {key: value for key, value in model["backbone"].items() if key not in ("init_cfg", "_scope_")}
        if "image_size" in arguments:
            arguments["image_size"] = (SIDE, SIDE)
        if repr(arguments) not in built:
            built[repr(arguments)] = MODELS.build(arguments)
        backbone = built[repr(arguments)]
        maps = [
            torch.zeros(1, channels, -(-SIDE // stride), -(-SIDE // stride))
            for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
        ]
        if model.get("neck") is not None:
            with torch.no_grad():
                maps = list(MODELS.build(model["neck"])(maps))
            assert len(maps) == len(detector.levels), detector.name
        else:
            for path in detector.widths:
                assert at({"model": model}, path) == [maps[-1].shape[1]], path
        assert {one.shape[1] for one in maps} >= set(head_inputs(model)), detector.name

"""What a converted file says of itself, and what is read back of it: of files that an older version wrote, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ckptconv.backbones.interface import Hyperparameters, PositionResampling, TimmModel
from ckptconv.conversion.provenance import Origin, origin
from ckptconv.formats import open_checkpoint
from ckptconv.methods.interface import IMAGENET, Licence

# what 0.1.0 wrote into the file of a ViT-S of MoCo v3, and of a Swin-T
VIT = (
    '{"version":"0.1.0","method":"mocov3","also":[],"layout":"training checkpoint","section":"state_dict",'
    '"target":"vitdet","source":{"name":"vit.pth","format":"torch zip","bytes":29147027},"backbone":{"name":"ViT-S/8",'
    '"family":"ViT","embed_dim":384,"depth":12,"heads":12,"hidden_dim":8,"mlp_ratio":0.020833333333333332,'
    '"patch_size":8,"grid":4,"in_channels":3,"cls_token":true,"position_slots":1,"registers":0,"layer_scale":false,'
    '"swiglu":false,"qkv_bias":true,"final_norm":true,"rope":false},"pixels":{"mean":[123.675,116.28,103.53],'
    '"std":[58.395,57.12,57.375],"order":"RGB"},"tensors":147,"dropped":3,"dtype":null}'
)
SWIN = (
    '{"version":"0.1.0","method":"esvit","also":[],"layout":"training checkpoint","section":"teacher","target":"mmdet",'
    '"source":{"name":"swin.pth","format":"torch zip","bytes":1},"backbone":{"name":"Swin-T, window 7",'
    '"family":"Swin","version":1,"embed_dims":96,"depths":[2,2,6,2],"num_heads":[3,6,12,24],"window_sizes":[7,7,7,7],'
    '"window_size":7,"mlp_ratio":4.0,"patch_size":4,"in_channels":3,"patch_norm":true,"qkv_bias":true,"positions":0,'
    '"final_norm":true},"pixels":{"mean":[123.675,116.28,103.53],"std":[58.395,57.12,57.375],"order":"RGB"},'
    '"tensors":171,"dropped":3,"dtype":null}'
)


def read(text: str, path: Path) -> Origin | None:
    save_file({"x": np.zeros(2, np.float32)}, path / "file.safetensors", {"format": "pt", "ckptconv": text})
    with open_checkpoint(path / "file.safetensors") as checkpoint:
        return origin(checkpoint)


def test_a_file_that_version_0_1_0_wrote_is_read(tmp_path: Path) -> None:
    assert read(VIT, tmp_path) == Origin("mocov3", "vitdet", IMAGENET, Hyperparameters(), num_heads=12)
    assert read(SWIN, tmp_path) == Origin("esvit", "mmdet", IMAGENET, Hyperparameters())


@pytest.mark.parametrize(
    ("also", "wanted"), [([], ()), (["dino", "timm"], ("dino", "timm")), (["a b"], None), ([1], None), (1, None)]
)
def test_the_methods_with_the_same_names_are_read(also: object, wanted: object, tmp_path: Path) -> None:
    found = read(json.dumps(json.loads(VIT) | {"also": also}), tmp_path)
    assert (found and found.also) == wanted


def changed(**backbone: Any) -> str:
    said = json.loads(VIT)
    said["backbone"] = {key: value for key, value in said["backbone"].items() if key != "heads"} | backbone
    return json.dumps(said)


@pytest.mark.parametrize(
    ("backbone", "wanted"),
    [
        ({"num_heads": 6, "eps": 1e-5}, Hyperparameters(1e-5)),
        (
            {
                "position_resampling": {
                    "mode": "bicubic",
                    "antialias": True,
                    "align_corners": False,
                    "offset": 0.1,
                    "square": False,
                }
            },
            Hyperparameters(position_resampling=PositionResampling("bicubic", True, False, 0.1)),
        ),
        ({"rope_periods": 16}, Hyperparameters()),  # how many the network has
        ({"rope_periods": [1.0, 2.5]}, Hyperparameters(rope_periods=(1.0, 2.5))),
        ({"norm": False}, Hyperparameters(norm=False)),
        ({"norm": True}, Hyperparameters(norm=True)),
        ({}, Hyperparameters()),
    ],
)
def test_the_hyperparameters_of_a_file(backbone: dict[str, Any], wanted: Hyperparameters, tmp_path: Path) -> None:
    found = read(changed(**backbone), tmp_path)
    assert found is not None
    assert found.hyperparameters == wanted


@pytest.mark.parametrize(
    ("backbone", "heads"),
    [
        ({"num_heads": 6}, 6),
        ({"num_heads": None}, None),
        ({"num_heads": [3, 6, 12, 24]}, None),  # of stages, whose tensors show them
        ({"num_heads": 6, "heads": 12}, 6),
        ({"heads": 12}, 12),  # as 0.1.0 wrote it
        ({}, None),
    ],
)
def test_the_heads_of_a_file(backbone: dict[str, Any], heads: int | None, tmp_path: Path) -> None:
    found = read(changed(**backbone), tmp_path)
    assert found is not None
    assert found.num_heads == heads


@pytest.mark.parametrize(
    "backbone",
    [
        {"num_heads": 0},
        {"num_heads": True},
        {"num_heads": "6"},
        {"heads": 1000},
        {"eps": 1},
        {"eps": 0.0},
        {"position_resampling": {"mode": "nearest"}},
        {"position_resampling": "bicubic"},
        {"position_resampling": {"kind": "bicubic"}},
        {"rope_periods": ["x"]},
        {"norm": "no"},
        {"norm": 0},
    ],
)
def test_a_file_with_values_that_ckptconv_never_writes_has_no_origin(backbone: dict[str, Any], tmp_path: Path) -> None:
    assert read(changed(**backbone), tmp_path) is None


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (None, None),
        ({"name": "vit_tiny_patch16_224", "arguments": {}}, TimmModel("vit_tiny_patch16_224")),
        ({"name": "vit", "arguments": {"init_values": None}}, TimmModel("vit", {"init_values": None})),
    ],
)
def test_the_model_of_timm_is_read(model: object, wanted: TimmModel | None, tmp_path: Path) -> None:
    found = read(json.dumps(json.loads(VIT) | {"timm": model}), tmp_path)
    assert found is not None
    assert found.timm == wanted


@pytest.mark.parametrize(
    "model",
    [
        "vit",
        {"name": "vit"},
        {"name": "a b", "arguments": {}},
        {"name": "hf-hub:some/model", "arguments": {}},
        {"name": "a", "arguments": []},
        {"name": "a", "arguments": {"checkpoint_path": "/tmp/other.pth"}},  # timm would unpickle it
        {"name": "a", "arguments": {"pretrained_cfg": {"url": "https://example.org/other.pth"}}},
        {"name": "a", "arguments": {"depth": [2, "2"]}},
        {"name": "a", "arguments": {"a b": 1}},
    ],
)
def test_a_model_that_ckptconv_never_writes_is_no_origin(model: object, tmp_path: Path) -> None:
    assert read(json.dumps(json.loads(VIT) | {"timm": model}), tmp_path) is None


LICENCE = {"name": "MIT", "url": "https://example.org/LICENSE", "restrictions": ""}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (None, None),
        (LICENCE, Licence("MIT", "https://example.org/LICENSE")),
        (LICENCE | {"restrictions": "no commercial use"}, Licence("MIT", LICENCE["url"], "no commercial use")),
        (LICENCE | {"url": ""}, Licence("MIT")),
        (LICENCE | {"restrictions": "x" * 300}, Licence("MIT", LICENCE["url"], "x" * 300)),
    ],
)
def test_the_licence_of_a_file(said: Any, wanted: Licence | None, tmp_path: Path) -> None:
    found = read(json.dumps({**json.loads(VIT), "licence": said}), tmp_path)
    assert found is not None
    assert found.licence == wanted


@pytest.mark.parametrize(
    "said",
    [
        "MIT",
        ["MIT"],
        {"name": "MIT"},
        LICENCE | {"name": ""},
        LICENCE | {"name": 3},
        LICENCE | {"name": "\x1b[31mMIT"},
        LICENCE | {"name": "MIT\nimport os"},
        LICENCE | {"restrictions": "\u202e"},
        LICENCE | {"restrictions": "x" * 301},
        LICENCE | {"url": "javascript:alert(1)"},
        LICENCE | {"url": "https://me:secret@example.org/x"},
        LICENCE | {"url": f"https://example.org/{'x' * 300}"},
    ],
)
def test_a_licence_that_ckptconv_never_writes_is_not_read(said: Any, tmp_path: Path) -> None:
    assert read(json.dumps({**json.loads(VIT), "licence": said}), tmp_path) is None

"""A file for transformers: its own classes load it with `from_pretrained`, and compute what the official code computed.

A file says the class and its config. Written beside it as `config.json`, they are what `from_pretrained` needs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import ckptconv
from ckptconv import guide
from ckptconv.conversion import provenance
from ckptconv.errors import UnidentifiedError, UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import official, pretrain
from tests.support.official import Features, Network

pytestmark = pytest.mark.mmdet  # with which transformers is installed

CLOSE = 1e-5
"""The largest difference, as a part of the largest number of the map."""

_NO_CLASS = "its classes have no such network"
NOT_HELD: Mapping[str, str] = {
    **dict.fromkeys(("dino_xcit", "seer_regnety", "simclrv2_r50_sk"), "no rules of transformers' names"),
    **dict.fromkeys(("eva02_apart", "eva02_packed", "pe_core", "pe_spatial", "pe_spatial_layer_scale"), _NO_CLASS),
    "hiera_mae": "no rules of transformers' names",
    "radio_vit": "its class has one class token, and a position for it",
}
"""Networks that are not written for transformers: the reason."""

_OFFSET = "DINO's code adds 0.1 to the sides of the new grid; transformers does not"
_BILINEAR = "its code resizes bilinearly, transformers bicubically"
_TABLES = "its code resizes tables of relative positions in a grid that is finer at the centre; transformers bilinearly"
OTHERWISE_RESIZED: Mapping[str, str] = {
    **dict.fromkeys(("dino_vit", "ibot_vit", "dinov2_vit", "dinov2_vit_swiglu", "franca_vit"), _OFFSET),
    **dict.fromkeys(("tipsv2_vit", "tipsv2_vit_hub"), _BILINEAR),
    **dict.fromkeys(("beit_vit", "beitv2_vit"), _TABLES),
    "simmim_swinv2": "its last stage, built for smaller images, has smaller windows and does not shift them",
}
"""Networks whose classes take images of another size in another way than the official code: equal at the first only."""


def write(network: Network, folder: Path, checkpoint: Mapping[str, Any] | None = None) -> Path:
    """The folder that a user makes for `from_pretrained`: the converted file, and the config that it states."""
    source = network.write(folder, checkpoint)
    method = "auto" if network.guessed else network.method
    converted = folder / "model.safetensors"
    ckptconv.convert(source, converted, method, target="transformers", force=True)
    said = stated(converted)
    config = getattr(pretrain.transformers(), said["class"]).config_class(**said["config"])
    config.save_pretrained(folder)
    return folder


def stated(converted: Path) -> dict[str, Any]:
    with safe_open(converted, "pt") as file:
        said: dict[str, Any] = json.loads(file.metadata()["ckptconv"])["transformers"]
    return said


def load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    built = getattr(pretrain.transformers(), stated(folder / "model.safetensors")["class"])
    model, report = built.from_pretrained(folder, output_loading_info=True)
    with open_checkpoint(folder / "model.safetensors") as checkpoint:
        origin = provenance.origin(checkpoint)
    assert origin is not None
    if origin.hyperparameters.rope_periods is not None:  # its config has no place for them
        model.rope_embeddings.inv_freq = 1 / torch.tensor(origin.hyperparameters.rope_periods)
    return model.eval(), report


def padded(model: Any, features: Features) -> Tensor:
    """The image, with zeros to whole patches as the official networks were run, on the right and below."""
    image = official.image(*features.size)
    side = model.config.patch_size if isinstance(getattr(model.config, "patch_size", None), int) else 1
    bottom, right = (-length % side for length in features.size)
    return nn.functional.pad(image, (0, right, 0, bottom))


def maps(model: Any, image: Tensor) -> Iterator[Tensor]:
    """What it computes: the map of each stage, or the last map of a plain transformer after its norm."""
    resized = {"interpolate_pos_encoding": True} if type(model).__name__ in ("ViTModel", "IJepaModel") else {}
    with torch.no_grad():
        if type(model).__name__.startswith("Swin"):
            kept: list[Tensor] = []
            hooks = [
                stage.blocks[-1].register_forward_hook(lambda _module, _given, out: kept.append(out[0]))
                for stage in model.encoder.layers
            ]
            model(image)
            for hook in hooks:
                hook.remove()
            side = model.config.patch_size
            for stage, tokens in enumerate(kept):
                height, width = (length // side >> stage for length in image.shape[2:])
                yield tokens.reshape(1, height, width, -1).permute(0, 3, 1, 2)
            return
        found = model(image, **resized, output_hidden_states=True)
    if found.last_hidden_state.dim() == 4:  # of a convolutional network
        yield from found.hidden_states[1:]
        return
    height, width = (length // model.config.patch_size for length in image.shape[2:])
    tokens = found.last_hidden_state[:, -height * width :]
    yield tokens.reshape(1, height, width, -1).permute(0, 3, 1, 2)


def difference(model: Any, features: Features) -> float:
    found = list(maps(model, padded(model, features)))
    plain = len(found) > 1 or not features.normed or getattr(model.config, "use_mean_pooling", False)
    theirs = features.plain if plain else features.normed
    return max(map_.difference(ours) for map_, ours in zip(theirs, found, strict=True))


def held() -> list[Any]:
    return [pytest.param(one, id=one.name) for one in official.networks() if one.name not in NOT_HELD]


@pytest.mark.parametrize("network", held())
def test_its_class_computes_what_the_official_code_computes(network: Network, tmp_path: Path) -> None:
    folder = write(network, tmp_path)
    for features in network.features:
        model, report = load(folder)  # a Swin that saw a small image keeps the smaller windows
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        assert {name.rpartition(".")[0] or name for name in report["missing_keys"]} <= {
            "pooler.dense",  # which no pre-training trains
            "embeddings",  # the mask token
            "layernorm",  # of a ConvNeXt, for its pooled output, where the file has none
        }
        resized = features is not network.features[0] and network.name in OTHERWISE_RESIZED
        found = difference(model, features)
        assert found > CLOSE if resized else found <= CLOSE, f"{features}: {found:.1e}"


@pytest.mark.parametrize("network", [one for one in official.networks() if one.name in NOT_HELD], ids=str)
def test_it_refuses_what_its_classes_do_not_hold(network: Network, tmp_path: Path) -> None:
    with pytest.raises(UnidentifiedError):
        write(network, tmp_path)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("dinov2_vit_swiglu", "blocks.1.mlp.w12.weight"),
        ("dinov2_vit_swiglu", "blocks.1.attn.qkv.weight"),
        ("dinov2_vit_swiglu", "blocks.2.ls2.gamma"),
        ("dinov3_vit_swiglu", "blocks.0.mlp.w1.bias"),
        ("dinov3_vit_swiglu", "storage_tokens"),
    ],
)
def test_one_other_number_is_seen(name: str, changed: str, tmp_path: Path) -> None:
    network = official.network(name)
    checkpoint = network.checkpoint()
    official.change(checkpoint[changed])
    model, _ = load(write(network, tmp_path, checkpoint))
    assert difference(model, network.features[0]) > CLOSE


def test_gate_and_value_are_not_taken_for_each_other(tmp_path: Path) -> None:
    network = official.network("dinov2_vit_swiglu")
    checkpoint = network.checkpoint()
    for name, tensor in checkpoint.items():
        if ".mlp.w12." in name:
            checkpoint[name] = torch.cat(tensor.chunk(2)[::-1])
    model, _ = load(write(network, tmp_path, checkpoint))
    assert difference(model, network.features[0]) > 0.01


def test_without_the_files_own_periods_a_rounded_dinov3_differs(tmp_path: Path) -> None:
    """As in the releases, whose periods are rounded to bfloat16: transformers computes them."""
    network = official.network("dinov3_vit_bf16_periods")
    model, _ = load(write(network, tmp_path))
    assert difference(model, network.features[0]) <= CLOSE
    model.rope_embeddings.inv_freq = type(model.rope_embeddings)(model.config).inv_freq
    assert difference(model, network.features[0]) > CLOSE


def test_the_page_on_targets_shows_how_a_file_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```$", guide.topic("targets").text(), re.M | re.S)
    network = official.network("mae_vit")
    ckptconv.convert(network.write(tmp_path), tmp_path / "model.safetensors", target="transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", pretrain.transformers())
    made: dict[str, Any] = {}
    exec(code, made)
    assert difference(made["model"].eval(), network.features[0]) <= CLOSE


def test_it_goes_into_no_config(tmp_path: Path) -> None:
    converted = write(official.network("mae_vit"), tmp_path) / "model.safetensors"
    with pytest.raises(UsageError) as caught:
        ckptconv.emit_config(converted)
    assert caught.value.message == f"{converted} was written for transformers, not for MMDetection"
    assert caught.value.hint == "Convert it again from its source, without `target`."


MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ViTModel": ("ViT-B/16", {}),
    "ViTForImageClassification": ("ViT-B/16", {}),
    "ViTForMaskedImageModeling": ("ViT-B/16", {}),
    "ViTMAEForPreTraining": ("ViT-B/16", {}),
    "ViTMSNModel": ("ViT-B/16", {}),
    "IJepaModel": ("ViT-B/16", {}),
    "Dinov2Model": ("ViT-B/14", {}),
    "Dinov2Backbone": ("ViT-B/14", {}),
    "Dinov2WithRegistersForImageClassification": ("ViT-B/16, 4 registers", {}),
    "DINOv3ViTModel": ("ViT-S/16, 4 registers, RoPE", {"num_register_tokens": 4}),
    "DINOv3ViTBackbone": ("ViT-S/16, 4 registers, RoPE", {"num_register_tokens": 4}),
    "DINOv3ConvNextModel": ("ConvNeXt-T", {}),
    "DINOv3ConvNextBackbone": ("ConvNeXt-T", {}),
    "BeitModel": ("BEiT-B/16", {"use_relative_position_bias": True}),
    "BeitForMaskedImageModeling": ("BEiT-B/16", {"use_shared_relative_position_bias": True, "use_mean_pooling": False}),
    "BeitBackbone": ("BEiT-B/16", {"use_shared_relative_position_bias": True}),
    "Data2VecVisionModel": ("BEiT-B/16", {"use_shared_relative_position_bias": True}),
    "SwinModel": ("Swin-T, window 7", {}),
    "SwinForMaskedImageModeling": ("Swin-T, window 7", {}),
    "SwinBackbone": ("Swin-T, window 7", {}),
    "ConvNextForImageClassification": ("ConvNeXt-T", {}),
    "ConvNextV2Model": ("ConvNeXt V2-T", {}),
    "ResNetForImageClassification": ("ResNet-50", {}),
}
"""Classes of transformers, what they are, and arguments of their configs."""


@pytest.mark.parametrize("name", MODELS)
def test_the_names_of_its_modules_are_read(name: str) -> None:
    """As `torch.save(model.state_dict())` and Lightning write them; `save_pretrained` writes those of version 4."""
    backbone, arguments = MODELS[name]
    built = getattr(pretrain.transformers(), name)
    with torch.device("meta"):
        model = built(built.config_class(**arguments))
    state = {k: TensorSpec(tuple(v.shape), DTYPES[str(v.dtype)[6:]]) for k, v in model.state_dict().items()}
    match = choose({"": Section(state, {})}, "auto", Options())
    assert (match.method.name, match.plan.backbone and match.plan.backbone.name) == ("transformers", backbone)

"""The converted backbone computes what the source computes, bit for bit on the CPU.

The oracle is a ResNet of plain functions that reads the raw file under its own names, as the method's authors wrote
them; it knows nothing of ckptconv. Against it stands mmdet's ResNet, initialised by mmengine from the converted file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

import ckptconv
from tests.support import hollow

pytestmark = [pytest.mark.mmdet, pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")]

SUFFIXES = (".pth", ".safetensors")
UNUSED = "num_batches_tracked"
"""Counts steps of training; nothing in a forward pass reads it."""


# The oracle -------------------------------------------------------------------------------------------------------


def torchvision_names(name: str) -> str:
    return name


def numbered(name: str) -> str:
    """``nn.Sequential(*list(resnet18().children())[:-1])``, as lightly's examples build it."""
    head, _, rest = name.partition(".")
    return f"{ {'conv1': 0, 'bn1': 1, 'layer1': 4, 'layer2': 5, 'layer3': 6, 'layer4': 7}[head] }.{rest}"


@dataclass(frozen=True)
class Raw:
    """A layout of `tests/layouts`: how deep its ResNet is, and where its file has the weights."""

    layout: str
    depth: int
    section: str
    prefix: str
    name: Callable[[str], str] = torchvision_names

    def __str__(self) -> str:
        return self.layout

    def key(self, name: str) -> str:
        return self.prefix + self.name(name)


MOCO = Raw("moco_v2_r50", 50, "state_dict", "module.encoder_q.")
LIGHTLY = Raw("lightly_moco_resnet18_sequential", 18, "state_dict", "backbone.", numbered)
RAW = (
    LIGHTLY,
    MOCO,
    Raw("simsiam_r50", 50, "state_dict", "module.encoder."),
    Raw("swav_r50", 50, "state_dict", "module."),
    Raw("dino_r50_full", 50, "teacher", "module.backbone."),
)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def forward(x: Tensor, depth: int, of: Callable[[str], Tensor]) -> list[Tensor]:
    """The outputs of the four stages, N x C x H x W; ``of`` gives a tensor by torchvision's name for it.

    He et al. 2015, with the stride of a bottleneck in its 3x3 convolution, as torchvision's ResNet has it.
    """

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = of(f"{name}.weight")
        return conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def normalize(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (of(f"{name}.{n}") for n in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)

    def block(x: Tensor, name: str, stride: int, shortcut: bool) -> Tensor:
        strides = (stride, 1) if depth == 18 else (1, stride, 1)
        y = x
        for i, step in enumerate(strides, 1):
            y = normalize(convolve(y, f"{name}.conv{i}", step), f"{name}.bn{i}")
            y = relu(y) if i < len(strides) else y
        if shortcut:
            x = normalize(convolve(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return relu(y + x)

    x = max_pool2d(relu(normalize(convolve(x, "conv1", 2), "bn1")), 3, stride=2, padding=1)
    outputs = []
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for i in range(blocks):
            stride = 2 if stage > 1 and i == 0 else 1
            x = block(x, f"layer{stage}.{i}", stride, shortcut=i == 0 and (stride == 2 or depth == 50))
        outputs.append(x)
    return outputs


# The files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    raw: Raw
    section: Mapping[str, Tensor]
    converted: Mapping[str, Path]

    def expected(self, x: Tensor) -> list[Tensor]:
        return forward(x, self.raw.depth, lambda name: self.section[self.raw.key(name)])


def make(raw: Raw, folder: Path) -> Files:
    """A raw file of the layout whose variances are positive, as a trained network's are, and its conversions."""
    state = load(hollow.fill(raw.layout, folder / "hollow.pth"), mapped=False)
    (folder / "hollow.pth").unlink()
    for key in [k for k in state if "optim" in k]:
        del state[key]
    for section in [v for v in (state, *state.values()) if isinstance(v, dict)]:
        for name, value in section.items():
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    torch.save(state, folder / "raw.pth")
    converted = {}
    for suffix in SUFFIXES:
        converted[suffix] = folder / f"backbone{suffix}"
        receipt = ckptconv.convert(folder / "raw.pth", converted[suffix])
        assert receipt.plan.section == raw.section
    return Files(raw, load(folder / "raw.pth", mapped=True)[raw.section], converted)


def load(path: Path, mapped: bool) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mmengine")
        return torch.load(path, map_location="cpu", mmap=mapped, weights_only=False)  # hollow's: our own pickles


@pytest.fixture(scope="module", params=RAW, ids=str)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    folder = tmp_path_factory.mktemp(request.param.layout)
    yield make(request.param, folder)
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make(LIGHTLY, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def bottlenecks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    folder = tmp_path_factory.mktemp("bottlenecks")
    yield make(MOCO, folder)
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Two images of 3 x 70 x 94: no side is a multiple of the stride, so that padding matters."""
    return torch.randn(2, 3, 70, 94, generator=torch.Generator().manual_seed(0))


def built(path: Path, depth: int, **options: Any) -> torch.nn.Module:
    """mmdet's ResNet, initialised from random numbers first and then by its ``init_cfg``, as a detector's is."""
    torch.manual_seed(1)
    init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
    net = MODELS.build({"type": "mmdet.ResNet", "depth": depth, "style": "pytorch", "init_cfg": init_cfg, **options})
    net.init_weights()
    net.eval()  # gives None: mmdet's ResNet.train returns nothing
    return net


def computed(net: torch.nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(net(x))


def equal(ours: list[Tensor], theirs: list[Tensor]) -> list[bool]:
    """Whether the outputs of each stage are equal, bit for bit."""
    return [torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(ours, theirs, strict=True)]


# The claim --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_features_are_those_of_the_source(files: Files, suffix: str, pictures: Tensor) -> None:
    expected = files.expected(pictures)
    width = 1 if files.raw.depth == 18 else 4
    assert [tuple(y.shape) for y in expected] == [
        (2, 64 * width, 18, 24),
        (2, 128 * width, 9, 12),
        (2, 256 * width, 5, 6),
        (2, 512 * width, 3, 3),
    ]
    assert all(y.isfinite().all() and y.std() > 0 and (y > 0).any() for y in expected)
    assert equal(computed(built(files.converted[suffix], files.raw.depth), pictures), expected) == [True] * 4


# The controls: the comparison above can fail ----------------------------------------------------------------------


def test_a_backbone_that_is_not_initialised_has_other_features(small: Files, pictures: Tensor) -> None:
    net = MODELS.build({"type": "mmdet.ResNet", "depth": 18, "style": "pytorch"})
    net.eval()
    assert equal(computed(net, pictures), small.expected(pictures)) == [False] * 4


def test_another_style_has_other_features(bottlenecks: Files, pictures: Tensor) -> None:
    """style='caffe' puts the stride into the first convolution: the same tensors, another network from stage 2 on."""
    net = built(bottlenecks.converted[".pth"], 50, style="caffe")
    assert equal(computed(net, pictures), bottlenecks.expected(pictures)) == [True, False, False, False]


def test_the_key_encoder_has_other_features(bottlenecks: Files, pictures: Tensor) -> None:
    other = forward(pictures, 50, lambda name: bottlenecks.section[f"module.encoder_k.{name}"])
    assert equal(other, bottlenecks.expected(pictures)) == [False] * 4


def stage_of(name: str) -> int:
    return int(name[5]) - 1 if name.startswith("layer") else 0


def test_every_tensor_of_the_file_matters(small: Files, pictures: Tensor) -> None:
    """Any one tensor rolled by one changes the features, from its own stage on: no mistake would go unseen."""
    state = load_file(small.converted[".safetensors"])
    pictures = pictures[:1, :, :38, :46]  # forward, a hundred times
    expected = small.expected(pictures)
    assert equal(forward(pictures, 18, state.__getitem__), expected) == [True] * 4
    names = [name for name in state if not name.endswith(UNUSED)]
    assert len(names) == 100
    for name in names:
        rolled = {**state, name: state[name].roll(1)}
        changed = equal(forward(pictures, 18, rolled.__getitem__), expected)
        assert changed == [i < stage_of(name) for i in range(4)], name


def test_two_tensors_in_each_others_place_are_seen(small: Files, pictures: Tensor, tmp_path: Path) -> None:
    """Of one shape, so that mmengine loads them without a word."""
    saved = load(small.converted[".pth"], mapped=False)
    state = saved["state_dict"]
    one, other = "layer3.1.conv1.weight", "layer3.1.conv2.weight"
    state[one], state[other] = state[other], state[one]
    torch.save(saved, tmp_path / "swapped.pth")
    net = built(tmp_path / "swapped.pth", 18)
    assert equal(computed(net, pictures), small.expected(pictures)) == [True, True, False, False]

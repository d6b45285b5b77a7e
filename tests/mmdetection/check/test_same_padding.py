"""What BYOL's and DetCon's SAME padding does to an ordinary ResNet. The reference is the definition, in torch.

`haiku/_src/nets/resnet.py` of dm-haiku: a v1 bottleneck network, all padding 'SAME'; `jax.lax` pads such a
convolution to ceil(size / stride) outputs, and where the padding is odd, one more at the end.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.backbones import ResNet
from torch import Tensor, nn
from torch.nn import functional

import ckptconv
from tests.support import haiku_files

pytestmark = [pytest.mark.mmdet, pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")]

PLANES = 4
NET = "res_net50/~/"


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """x of NCHW, padded for a window."""
    pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
    (top, left), (bottom, right) = ((p // 2 for p in pads), (p - p // 2 for p in pads))
    return functional.pad(x, (left, right, top, bottom), value=value)


class Definition:
    """The network in its own names and axes."""

    def __init__(self, params: haiku_files.Tree, state: haiku_files.Tree) -> None:
        self.params, self.state = params, state

    def conv(self, x: Tensor, name: str, stride: int) -> Tensor:
        kernel = torch.from_numpy(self.params[NET + name]["w"])
        size = kernel.shape[0]
        return torch.einsum("nihwxy,xyio->nohw", windows(same(x, size, stride), size, stride), kernel)

    def norm(self, x: Tensor, name: str) -> Tensor:
        own = {k: torch.from_numpy(v).reshape(1, -1, 1, 1) for k, v in self.params[NET + name].items()}
        mean, var = (
            torch.from_numpy(self.state[f"{NET}{name}/~/{k}"]["average"]).reshape(1, -1, 1, 1)
            for k in ("mean_ema", "var_ema")
        )
        return (x - mean) * own["scale"] * torch.rsqrt(var + 1e-5) + own["offset"]

    def block(self, x: Tensor, at: str, stride: int, projects: bool) -> Tensor:
        shortcut = x
        if projects:
            shortcut = self.norm(self.conv(x, f"{at}shortcut_conv", stride), f"{at}shortcut_batchnorm")
        for i, step in enumerate((1, stride, 1)):
            x = self.norm(self.conv(x, f"{at}conv_{i}", step), f"{at}batchnorm_{i}")
            x = x.relu() if i < 2 else x
        return (x + shortcut).relu()

    def __call__(self, x: Tensor) -> list[Tensor]:
        x = self.norm(self.conv(x, "initial_conv", 2), "initial_batchnorm").relu()
        x = windows(same(x, 3, 2, -torch.inf), 3, 2).amax(dim=(4, 5))
        features = []
        for group, count in enumerate(haiku_files.BLOCKS[50]):
            for block in range(count):
                stride = 2 if group and not block else 1
                x = self.block(x, f"block_group_{group}/~/block_{block}/~/", stride, not block)
            features.append(x)
        return features


def windows(x: Tensor, size: int, stride: int) -> Tensor:
    """Every window of NCHW: N, C, places down and across, size, size."""
    return x.unfold(2, size, stride).unfold(3, size, stride)


@pytest.fixture(scope="module")
def definition() -> Definition:
    return Definition(*haiku_files.network(planes=PLANES))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("byol")
    ckptconv.convert(haiku_files.write(folder / "pretrain_res50x1.pkl", "dill 0.3.1"), folder / "r50.pth")
    state: dict[str, Tensor] = torch.load(folder / "r50.pth", weights_only=True)["state_dict"]
    return state


def mmdet_resnet(state: dict[str, Tensor]) -> Any:
    net = ResNet(50, stem_channels=PLANES, base_channels=PLANES, norm_eval=True)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    net.eval()  # gives nothing back
    return net


class Same(nn.Module):
    """A convolution or pooling of an ordinary ResNet, padded as haiku does."""

    def __init__(self, inner: nn.Conv2d | nn.MaxPool2d) -> None:
        super().__init__()
        self.kernel, self.stride = (int(torch.as_tensor(v).flatten()[0]) for v in (inner.kernel_size, inner.stride))
        self.value = -torch.inf if isinstance(inner, nn.MaxPool2d) else 0.0
        inner.padding = 0 if isinstance(inner, nn.MaxPool2d) else (0, 0)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = self.inner(same(x, self.kernel, self.stride, self.value))
        return padded


def pad_as_haiku_does(net: nn.Module) -> None:
    for module in [*net.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.Conv2d | nn.MaxPool2d) and not isinstance(module, Same):
                setattr(module, name, Same(child))


def picture(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 70])
def test_with_its_own_padding_the_converted_network_is_the_definition(
    definition: Definition, converted: dict[str, Tensor], size: int
) -> None:
    net = mmdet_resnet(converted)
    pad_as_haiku_does(net)
    for ours, theirs in zip(net(picture(size)), definition(picture(size)), strict=True):
        assert theirs.abs().max() > 0.5
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@torch.no_grad()
def test_with_mmdetections_padding_it_is_not(definition: Definition, converted: dict[str, Tensor]) -> None:
    for ours, theirs in zip(mmdet_resnet(converted)(picture()), definition(picture()), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().mean() > 0.1 * theirs.abs().mean()


@torch.no_grad()
def test_the_stem_sees_the_picture_moved_by_a_pixel(definition: Definition, converted: dict[str, Tensor]) -> None:
    """MMDetection's convolution of a picture is haiku's of the same picture, moved down and right by one."""
    moved = functional.pad(picture(), (1, -1, 1, -1))
    ours, theirs = mmdet_resnet(converted).conv1(picture()), definition.conv(moved, "initial_conv", 2)
    assert torch.allclose(ours[..., :-2, :-2], theirs[..., :-2, :-2], atol=1e-5)
    assert not torch.allclose(ours, definition.conv(picture(), "initial_conv", 2), atol=1e-1)

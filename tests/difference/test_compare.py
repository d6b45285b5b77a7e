"""Two checkpoints side by side. The oracles are torch's numbers and networks of the official code."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.errors import UnidentifiedError, UnreadableError, UsageError
from tests.support import forked, official

NETWORKS = {network.name: network for network in official.networks()}


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DINO's own file, what it is converted to, and that in half precision."""
    folder = tmp_path_factory.mktemp("dino")
    source = NETWORKS["dino_vit"].write(folder)
    source.rename(folder / "source.pth")
    ckptconv.convert(folder / "source.pth", folder / "backbone.pth", "dino")
    ckptconv.convert(folder / "source.pth", folder / "half.safetensors", "dino", dtype="float16")
    return folder


def test_a_file_and_what_it_was_converted_to(dino: Path) -> None:
    found = ckptconv.diff(dino / "source.pth", dino / "backbone.pth", method_a="dino")
    assert found.same
    assert found.same_network
    assert (found.target, len(found.equal), found.compared) == ("timm", 42, 42)
    assert (found.only_a, found.only_b, found.b.others) == ((), (), ())
    teacher = torch.load(dino / "source.pth", weights_only=False)["teacher"]
    assert set(found.a.others) == {name for name in teacher if "head." in name}
    assert (found.a.backbone, found.b.method) == ("ViT-128x3/16", "dino")


@pytest.mark.parametrize(
    "name", ["simmim_swinv2", "dinov3_vit", "eva02_apart", "moco_resnet18", "radio_vit", "hiera_mae"]
)
def test_layouts_that_split_join_and_add_are_the_same_network(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    source, method = network.write(tmp_path), "auto" if network.guessed else network.method
    ckptconv.convert(source, tmp_path / "backbone.safetensors", method)
    found = ckptconv.diff(source, tmp_path / "backbone.safetensors", method_a=method)
    assert found.same, found
    assert found.same_network
    assert len(found.equal) == found.compared > 30


def test_rounding_is_told_apart_from_other_numbers(dino: Path) -> None:
    found = ckptconv.diff(dino / "half.safetensors", dino / "backbone.pth")
    assert found.same
    assert (len(found.equal), len(found.rounded)) == (0, 42)


def changed(dino: Path, path: Path, change: Any) -> Path:
    file = torch.load(dino / "backbone.pth")
    change(file["state_dict"])
    torch.save(file, path)
    return path


def test_how_far_a_tensor_is(dino: Path, tmp_path: Path) -> None:
    name = "blocks.1.mlp.fc1.weight"
    before = torch.load(dino / "backbone.pth")["state_dict"][name].double()
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))

    def add(state: dict[str, torch.Tensor]) -> None:
        state[name] += noise
        state["norm.bias"] *= 1.001

    found = ckptconv.diff(dino / "backbone.pth", changed(dino, tmp_path / "other.pth", add))
    after = torch.load(tmp_path / "other.pth")["state_dict"][name].double()
    assert not found.same
    assert [one.name for one in found.differing] == [name, "norm.bias"]  # the farthest first
    far = found.differing[0].distance
    assert far.max_abs == pytest.approx(float((after - before).abs().max()))
    assert far.relative == pytest.approx(float((after - before).norm() / before.norm()))
    assert far.cosine == pytest.approx(float(torch.cosine_similarity(before.flatten(), after.flatten(), dim=0)))
    assert far.not_finite == 0
    assert len(found.equal) == 40


def test_numbers_that_are_not_finite_are_counted(dino: Path, tmp_path: Path) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state["norm.weight"][:3] = math.nan
        state["norm.weight"][3] = math.inf

    path = changed(dino, tmp_path / "nan.pth", spoil)
    (one,) = ckptconv.diff(dino / "backbone.pth", path).differing
    assert (one.name, one.distance.not_finite, one.distance.max_abs) == ("norm.weight", 4, 0.0)
    assert ckptconv.diff(path, path).same  # NaN is NaN


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int64, torch.bool, torch.bfloat16])
def test_every_type_is_compared(dtype: torch.dtype) -> None:
    one = {"w": torch.tensor([1.0, 0.0, 2.0, 2.0]).to(dtype)}
    other = {"w": torch.tensor([1.0, 1.0, 2.0, 2.0]).to(dtype)}
    assert ckptconv.diff(one, {"w": one["w"].clone()}).same
    (found,) = ckptconv.diff(one, other).differing
    assert found.distance.max_abs == (None if dtype is torch.float8_e4m3fn else 1.0)


def test_another_shape_and_names_of_one_side(dino: Path, tmp_path: Path) -> None:
    def cut(state: dict[str, torch.Tensor]) -> None:
        del state["norm.bias"]
        state["norm.weight"] = torch.ones(3)
        state["more"] = torch.ones(2)

    found = ckptconv.diff(dino / "backbone.pth", changed(dino, tmp_path / "cut.pth", cut))
    assert [(one.name, one.shape_a, one.shape_b) for one in found.shapes] == [("norm.weight", (128,), (3,))]
    assert (found.only_a, found.only_b) == (("norm.bias",), ("more",))
    assert not found.same


def test_of_several_copies_the_nearest_is_compared(dino: Path, tmp_path: Path) -> None:
    """A training checkpoint of DINO has a student and a teacher: the release is the teacher."""
    teacher = torch.load(dino / "source.pth", weights_only=False)["teacher"]
    student = {f"module.{name}": value + 0.5 for name, value in teacher.items()}
    for copies in ({"student": student, "teacher": teacher}, {"teacher": teacher, "student": student}):
        torch.save(copies, tmp_path / "training.pth")
        found = ckptconv.diff(tmp_path / "training.pth", dino / "backbone.pth")
        assert found.same, found
        assert found.a.section == "teacher"


def test_a_module_and_a_state_dict(dino: Path) -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    wrapped = {f"module.net.{name}": value.clone() for name, value in layer.state_dict().items()}
    found = ckptconv.diff(layer, wrapped)
    assert found.same
    assert (found.a.label, found.same_network, found.target) == ("the Sequential", None, "")
    assert len(found.equal) == 7
    del wrapped["module.net.1.num_batches_tracked"]
    assert ckptconv.diff(layer, wrapped).same  # a counter does not matter
    del wrapped["module.net.0.bias"]
    assert ckptconv.diff(layer, wrapped).only_a == ("0.bias", "1.num_batches_tracked")


def test_other_networks_are_said_to_be_others(dino: Path, tmp_path: Path) -> None:
    ckptconv.convert(NETWORKS["moco_resnet18"].write(tmp_path), tmp_path / "resnet.pth")
    found = ckptconv.diff(dino / "backbone.pth", tmp_path / "resnet.pth")
    assert not found.same
    assert found.same_network is False
    assert (found.compared, found.a.backbone, found.b.backbone) == (0, "ViT-128x3/16", "ResNet-18")


def test_refusals(dino: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an object of class int cannot be compared"):
        ckptconv.diff(3, dino / "backbone.pth")  # type: ignore[arg-type]
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UnreadableError):
        ckptconv.diff(dino / "backbone.pth", tmp_path / "text.pth")
    with pytest.raises(UnreadableError):
        ckptconv.diff(dino / "backbone.pth", {"a": 1})
    with pytest.raises(UnidentifiedError):
        ckptconv.diff(dino / "source.pth", dino / "backbone.pth", method_a="moco")


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "ckptconv", *map(str, args)], server=forked.COMMANDS)


def test_the_command(dino: Path, tmp_path: Path) -> None:
    path = changed(dino, tmp_path / "other.pth", lambda state: state["norm.bias"].add_(1))
    same = run("diff", dino / "source.pth", dino / "backbone.pth", "--method-a", "dino")
    assert same.returncode == 0
    assert same.stdout.splitlines()[2:] == [
        "network   the same, compared under the names of timm",
        "equal     42 of 42 tensors, bit for bit",
        "only A    outside the network: head.mlp.*.weight, head.mlp.*.bias, head.last_layer.weight_g and 1 more",
        "result    the same network with the same numbers",
    ]
    other = run("diff", dino / "backbone.pth", path)
    assert other.returncode == 1
    assert "norm.bias" in other.stdout
    assert other.stdout.splitlines()[-1] == "result    they differ"
    found = json.loads(run("diff", dino / "backbone.pth", path, "--json").stdout)
    assert (found["schema"], found["command"], found["same"]) == (1, "diff", False)
    assert [one["name"] for one in found["differing"]] == ["norm.bias"]

"""Layouts of ResNets in which something looks like the backbone and is not, or the backbone looks like something else.

Each was met in a file that official code writes; see the sources of the cases. What a case shows is not shown again.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptconv
from ckptconv.errors import IncompletePlanError, UnidentifiedError, UnreadableError, UsageError
from ckptconv.methods import METHODS
from ckptconv.planning.identify import choose, rank
from ckptconv.planning.options import Options
from ckptconv.remap import remap_state_dict
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support.cases import Case, case

AUTO = Options()


def refusal(sections: dict[str, Section], method: str = "auto", options: Options = AUTO) -> str:
    with pytest.raises((UnidentifiedError, IncompletePlanError)) as caught:
        choose(sections, method, options)
    return caught.value.message


# -- a prefix that another prefix starts with -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prefix", "twin"),
    [
        ("pixpro_r50", "encoder.", "encoder_k."),
        ("soco_fpn_r50", "encoder.", "encoder_k."),
        ("insloc_fpn_r50", "backbone.", "backbone_k."),
        ("openselfsup_byol_r18", "backbone.", "online_net.0."),
    ],
)
def test_a_prefix_takes_no_tensor_of_the_twin_that_starts_alike(name: str, prefix: str, twin: str) -> None:
    own = case(name)
    plan = choose(own.sections, "generic", Options(strip_prefix=prefix)).plan
    sources = {source for move in plan.moves for source in move.sources}
    assert len(sources) == len(own.kept)
    assert any(twin in source for source in own.tensors)
    assert not any(twin in source for source in sources)


def test_the_twin_alone_is_not_taken_for_the_encoder() -> None:
    """A file that lost its query encoder: what is left has the same shapes."""
    own = case("pixpro_r50")
    left = {name: spec for name, spec in own.tensors.items() if not name.startswith("module.encoder.")}
    assert "no tensor is kept" in refusal({own.section: Section(left, own.others)}, "pixpro")


@pytest.mark.parametrize(
    ("name", "prefix", "methods"),
    [
        ("moby_swint", "encoder.", {"moby", "simmim"}),
        ("moby_deit_small", "encoder.", {"moby"}),
        ("pixpro_r50", "module.encoder.", {"pixpro", "pycontrast", "soco"}),
    ],
)
def test_a_bare_prefix_is_explained_by_those_alone_whose_networks_it_can_be(
    name: str, prefix: str, methods: set[str]
) -> None:
    own = case(name)
    left = {key: spec for key, spec in own.tensors.items() if key.startswith(prefix)}
    found = rank({own.section: Section(left, {})}, METHODS, AUTO)
    assert {m.name for m, plan in found if plan.complete and m.guess} == methods


def test_a_prefix_without_its_dot_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the prefix 'encoder' has no dot at its end"):
        Options(strip_prefix="encoder")


# -- a backbone that is saved twice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["densecl_r50", "openselfsup_byol_r18", "openselfsup_moco_r18", "orl_r18"])
def test_a_backbone_that_is_saved_twice_comes_from_one_place(name: str) -> None:
    own = case(name)
    plan = choose(own.sections, "auto", AUTO).plan
    assert {source.partition(".")[0] for move in plan.moves for source in move.sources} == {"backbone"}
    again = {gone.source.partition(".")[0] for gone in plan.dropped if "again" in gone.why}
    assert again <= {"encoder_q", "online_net"}
    assert again


def test_orl_and_mmselfsup_do_not_explain_each_others_files() -> None:
    assert choose(case("orl_r18").sections, "auto", AUTO).also == ()
    assert "global_head.predictor.fc0.weight" in refusal(case("orl_r18").sections, "mmselfsup")


# -- children that are numbers ----------------------------------------------------------------------------------------


def test_children_numbered_from_another_start_are_not_misread() -> None:
    """Old workers of lightly put a norm before the stem: its number is the convolution's of the others."""
    own = case("lightly_moco_r18_sequential")
    tensors = {
        re.sub(r"^backbone\.(\d+)", lambda found: f"backbone.{int(found[1]) + 1}", name): spec
        for name, spec in own.tensors.items()
    }
    assert set(tensors) != set(own.tensors)
    refusal({own.section: Section(tensors, own.others)})
    refusal({own.section: Section(tensors, own.others)}, "lightly")


def test_a_worker_of_lightly_has_no_place_in_mmdetection_and_the_reason_is_its_stem() -> None:
    message = refusal(case("lightly_worker_r50").sections, "lightly")
    assert "mmdet cannot hold ResNet-50: its stem is 3x3, for small images" in message


def test_a_worker_of_lightly_is_not_taken_for_an_example() -> None:
    plan = choose(case("lightly_worker_r50").sections, "auto", Options(target="torchvision")).plan
    assert plan.layout.startswith("worker")
    assert {m.target: m.sources for m in plan.moves}["conv1.weight"] == ("model.backbone.1.weight",)


# -- what a state dict holds besides tensors ---------------------------------------------------------------------------


def test_a_dict_in_a_state_dict_is_dropped_and_its_tensors_are_not_taken() -> None:
    """SparK's config and data2vec's average lie in the state dict itself."""
    own = case("torchvision_r18")
    state = {name: torch.ones(spec.shape, dtype=getattr(torch, spec.dtype.name)) for name, spec in own.tensors.items()}
    file = {**state, "config": {"depth": 18}, "_ema": {name: -tensor for name, tensor in state.items()}}
    kept, plan = remap_state_dict(file, "torchvision")
    assert set(kept) == set(state)
    assert all(kept[name] is state[name] for name in state)
    assert {gone.source: gone.why for gone in plan.dropped} == dict.fromkeys(("config", "_ema"), "not a tensor: dict")


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_arrays_in_a_torch_file_are_tensors(zipped: bool, tmp_path: Path) -> None:
    """ReSim's and DenseCL's converters for detectron2 save with torch what numpy made."""
    own = case("detectron2_resim_r50")
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(spec.shape).astype("f4") if spec.dtype.is_float else np.array(3)
        for name, spec in own.tensors.items()
    }
    path = tmp_path / "resim.pth"
    torch.save({"model": arrays, "__author__": "x"}, path, _use_new_zipfile_serialization=zipped)
    receipt = ckptconv.convert(path, tmp_path / "r50.pth")
    assert receipt.method.name == "detectron2"
    written = torch.load(tmp_path / "r50.pth", weights_only=True)["state_dict"]
    assert set(written) == set(own.kept)
    for target, (source,) in own.kept.items():
        assert np.array_equal(written[target].numpy(), arrays[source]), target


@pytest.mark.parametrize("name", ["msn_vits16", "ijepa_vith14"])
def test_of_two_encoders_with_the_same_names_the_first_is_not_taken(name: str) -> None:
    """MSN and I-JEPA save the trained encoder before its average, MSN a bare tensor beside both."""
    own = case(name)
    target = own.sections["target_encoder"]
    prototypes = {"prototypes": TensorSpec((1024, 256), DTYPES["float32"])}
    sections = {"": Section(prototypes, {}), "encoder": target, "target_encoder": target}
    match = choose(sections, "auto", own.options)
    assert (match.method.name, match.plan.section) == (own.method, "target_encoder")


def test_a_released_fcmae_file_is_not_undone_twice() -> None:
    """The authors' remap_checkpoint_keys, run on what it wrote, gives gammas of six axes."""
    match = choose(case("fcmae_atto_released").sections, "fcmae", AUTO)
    assert match.plan.layout == "released encoder"
    gammas = [move.spec.shape for move in match.plan.moves if move.target.endswith("grn.gamma")]
    assert len(gammas) == 12
    assert {len(shape) for shape in gammas} == {1}  # MMPretrain's


def test_a_norm_that_is_saved_twice_is_not_renamed_into_another() -> None:
    """MMPretrain's script turns every `norm` into `norm3`, DINOv3's `norms.3`, too."""
    plan = choose(case("dinov3_convnext_t_released").sections, "dinov3", AUTO).plan
    assert {move.target: move.sources for move in plan.moves if ".norm3" in move.target} == {
        f"backbone.norm3.{p}": (f"norm.{p}",) for p in ("weight", "bias")
    }
    assert {gone.source for gone in plan.dropped} == {"norms.3.weight", "norms.3.bias"}


# -- networks that are nearly known -----------------------------------------------------------------------------------


def with_shape(of: Case, name: str, shape: tuple[int, ...]) -> dict[str, Section]:
    spec = of.tensors[name]
    return {of.section: Section({**of.tensors, name: TensorSpec(shape, spec.dtype)}, of.others)}


def test_a_network_that_colours_grey_pictures_is_called_so() -> None:
    """VISSL's colorization trunks take one channel: vissl/models/trunks/resnext.py."""
    sections = with_shape(case("vissl_classy_r50"), "_feature_blocks.conv1.weight", (64, 1, 7, 7))
    found = choose(sections, "vissl", Options()).plan
    assert (found.target, found.backbone and found.backbone.name) == ("mmdet", "ResNet-50, images of 1 channel")


def selective() -> dict[str, Section]:
    """r50_1x_sk1 of Separius/SimCLRv2-Pytorch, as far as one block."""
    own = case("simclrv2_separius_r50_2x")
    kernel = own.tensors["net.1.blocks.0.net.2.weight"]
    names = ("main_conv.0.weight", "mixing_conv.0.weight", "mixing_conv.2.weight")
    gone = {name: spec for name, spec in own.tensors.items() if name != "net.1.blocks.0.net.2.weight"}
    return {"resnet": Section({**gone, **{f"net.1.blocks.0.net.2.{name}": kernel for name in names}}, {})}


@pytest.mark.parametrize("method", ["auto", "simclrv2-separius"])
def test_selective_kernels_are_refused_by_their_name(method: str) -> None:
    message = refusal(selective(), method)
    assert "a ResNet with selective kernels (SimCLRv2's sk1). MMDetection has none, and timm's differs: " in message


def test_a_dino_file_of_vissl_holds_two_networks_and_the_user_says_which() -> None:
    student = case("vissl_simclr_r50")
    sections = {**student.sections, **case("vissl_dino_r50").sections}
    message = refusal(sections)
    assert "more than one method explains the file" in message
    assert "vissl keeps 318 tensors of 'classy_state_dict.base_model.model.trunk'" in message
    assert "vissl-dino keeps 318 tensors of 'classy_state_dict.loss'" in message
    assert choose(sections, "vissl-dino", AUTO).plan.section == "classy_state_dict.loss"
    assert choose(sections, "vissl", AUTO).plan.section == student.section


def test_a_tensorflow_checkpoint_is_refused_with_who_can_convert_it(tmp_path: Path) -> None:
    """The end of a table: tensorflow/core/lib/io/format.h."""
    path = tmp_path / "model.ckpt-250228.index"
    path.write_bytes(bytes(100) + (0xDB4775248B80FB57).to_bytes(8, "little"))
    with pytest.raises(UnreadableError, match="is the index of a TensorFlow checkpoint") as caught:
        ckptconv.plan(path)
    assert "Separius/SimCLRv2-Pytorch" in caught.value.hint


@pytest.mark.parametrize("width", [1, 3])
def test_simclrv2_is_read_at_every_width(width: int) -> None:
    own = case("simclrv2_separius_r50_2x")
    tensors = {
        name: replace(spec, shape=tuple(n if n in (1, 3, 7, 1000) else n * width // 2 for n in spec.shape))
        for name, spec in own.tensors.items()
    }
    plan = choose({own.section: Section(tensors, {})}, "auto", AUTO).plan
    assert plan.backbone is not None
    assert plan.backbone.name == ("ResNet-50" if width == 1 else "ResNet-50, width x3")
    assert len(plan.moves) == len(own.kept)

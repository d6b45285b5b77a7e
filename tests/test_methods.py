"""The table of methods as data: what every row must have, and facts about releases that their authors printed."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import ckptconv
from ckptconv.methods import IMAGENET, METHODS, UNIT
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import Drop, Fuse, Keep

PACKAGE = Path(ckptconv.__file__).parent
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@each
def test_a_row_says_what_people_ask(method: Method) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", method.name)
    assert method.title
    assert method.layouts
    assert method.paper == "" or re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", method.paper)
    assert method.repository == "" or re.fullmatch(r"[\w.-]+/[\w.-]+", method.repository)
    assert method.repository or method.name == "generic"


@each
def test_a_layout_has_a_title_of_its_own_sections_and_rules(method: Method) -> None:
    assert len({layout.title for layout in method.layouts}) == len(method.layouts)
    for layout in method.layouts:
        assert layout.title
        assert layout.sections
        assert len(set(layout.sections)) == len(layout.sections)
        assert any(not isinstance(rule, Drop) for rule in layout.rules)
        assert all(isinstance(rule, Keep | Drop | Fuse) for rule in layout.rules)
        assert len(set(layout.rules)) == len(layout.rules)


@each
def test_rules_speak_of_names_without_wrappers(method: Method) -> None:
    for layout in method.layouts:
        for rule in layout.rules:
            assert all(not source.prefix.startswith(("module.", "_orig_mod.")) for source in rule.sources)


@each
def test_a_rename_can_be_undone(method: Method) -> None:
    for layout in method.layouts:
        assert all(rule.invertible for rule in layout.rules if isinstance(rule, Keep) and rule.op is None)


def test_what_only_a_person_can_want_is_never_guessed() -> None:
    twins = {"dino-student", "pycontrast-ema", "soco-ema"}
    others_names = {"generic", "simclr-tonylins", "byol-chigur"}
    assert {m.name for m in METHODS if not m.guess} == twins | others_names


def test_a_naming_convention_knows_no_pixels_and_a_method_does() -> None:
    conventions = {"torchvision", "generic", "mmselfsup", "vissl", "lightly", "solo-learn", "bolts"}
    conventions |= {"transformers", "detectron2"}
    unfit = {"cmc"}  # fed with the channels of Lab
    unit = {m.name for m in METHODS if m.name.startswith("simclr")}
    assert {m.name for m in METHODS if m.pixels is None} >= conventions - {"vissl"} | unfit
    assert {m.name for m in METHODS if m.pixels == UNIT} == unit
    assert {m.name for m in METHODS if m.pixels == IMAGENET} >= {m.name for m in METHODS} - conventions - unit - unfit
    assert (UNIT.mean, UNIT.std) == ((0, 0, 0), (255, 255, 255))  # MMDetection's preprocessor then gives 0 to 1
    assert IMAGENET.mean == (123.675, 116.28, 103.53)  # the default of MMDetection's preprocessor
    assert IMAGENET.std == (58.395, 57.12, 57.375)


# -- releases: read off the READMEs of their repositories --------------------------------------------------------------

FB = "https://dl.fbaipublicfiles.com/"
PRINTED = {
    "moco": {
        f"{FB}moco/moco_checkpoints/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar": "b251726a",
        f"{FB}moco/moco_checkpoints/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar": "59fd9945",
        f"{FB}moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar": "a04e12f8",
    },
    "mocov3": {
        f"{FB}moco-v3/r-50-100ep/r-50-100ep.pth.tar": "",
        f"{FB}moco-v3/r-50-300ep/r-50-300ep.pth.tar": "",
        f"{FB}moco-v3/r-50-1000ep/r-50-1000ep.pth.tar": "",
    },
    "simsiam": {
        f"{FB}simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar": "",
        f"{FB}simsiam/models/100ep-256bs/pretrain/checkpoint_0099.pth.tar": "",
    },
    "barlowtwins": {f"{FB}barlowtwins/ljng/resnet50.pth": "", f"{FB}barlowtwins/ljng/checkpoint.pth": ""},
    "vicreg": {
        f"{FB}vicreg/{name}.pth": "" for name in ("resnet50", "resnet50_fullckpt", "resnet50x2", "resnet50x2_fullckpt")
    },
    "dino": {
        f"{FB}dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth": "",
        f"{FB}dino/dino_resnet50_pretrain/dino_resnet50_pretrain_full_checkpoint.pth": "",
    },
    "vicregl": {
        f"{FB}vicregl/resnet50_alpha{alpha}{full}.pth": "" for alpha in ("0.9", "0.75") for full in ("", "_fullckpt")
    },
    "resim": {
        "https://people.eecs.berkeley.edu/~cjrd/data/resim_fpn_400ep.pth.tar": "",
        "https://people.eecs.berkeley.edu/~cjrd/data/resim_fpn_200ep.pth.tar": "",
    },
    "scrl": {
        f"http://twg.kakaocdn.net/brainrepo/scrl/{name}.pth": ""
        for name in ("byol_200ep", "byol_1000ep", "scrl_200ep", "scrl_1000ep")
    },
    "obow": {
        f"https://github.com/valeoai/obow/releases/download/v0.1.0/ImageNetFull_ResNet50_OBoW_full{part}.zip": ""
        for part in ("", "_feature_extractor")
    },
    "simclr-spijkervet": {
        f"https://github.com/Spijkervet/SimCLR/releases/download/{path}": ""
        for path in ("1.0/checkpoint_40.tar", "1.1/checkpoint_100.tar", "1.2/checkpoint_100.tar")
    },
    "bolts": {
        f"https://pl-bolts-weights.s3.us-east-2.amazonaws.com/{path}_imagenet.ckpt": ""
        for path in ("simclr/bolts_simclr_imagenet/simclr", "swav/bolts_swav_imagenet/swav")
    },
    "byol": {
        f"https://storage.googleapis.com/deepmind-byol/checkpoints/{name}.pkl": ""
        for name in (
            *(f"pretrain_{n}" for n in ("res50x1", "res200x2")),
            *(f"ablations/res50x1_batchsize_{n}" for n in (64, 128, 256, 512, 1024, 2048)),
            *(f"ablations/res50x1_{n}" for n in ("baseline", "no_grayscale", "no_color")),
            *(f"ablations/res50x1_crop_{n}" for n in ("only", "and_color_only", "and_blur_only")),
        )
    },
    "detcon": {f"https://storage.googleapis.com/dm-detcon/resnet{n}_detcon_b_imagenet_1k.npy": "" for n in (50, 200)},
    "swav": {
        f"{FB}deepcluster/{name}_pretrain.pth.tar": ""
        for name in (
            *(f"swav_{n}" for n in ("100ep", "200ep", "400ep", "800ep", "200ep_bs256", "400ep_bs256", "400ep_2x224")),
            *(f"swav_RN50w{w}_400ep" for w in (2, 4, 5)),
            *(f"deepclusterv2_{n}" for n in ("400ep", "800ep", "400ep_2x224")),
            *(f"selav2_{n}" for n in ("400ep", "400ep_2x224")),
        )
    },
}


@pytest.mark.parametrize("name", PRINTED)
def test_releases_are_those_the_authors_print(name: str) -> None:
    (method,) = (m for m in METHODS if m.name == name)
    assert {release.url: release.md5 for release in method.releases} == PRINTED[name]


def test_a_release_has_a_name_of_its_own() -> None:
    releases = [release for m in METHODS for release in m.releases]
    assert [n for n, count in Counter(r.name for r in releases).items() if count > 1] == []
    assert [u for u, count in Counter(r.url for r in releases).items() if count > 1] == []
    assert all(re.fullmatch(r"https?://[\w./~-]+", r.url) for r in releases)
    assert all(re.fullmatch(r"([0-9a-f]{6,32})?", r.md5) for r in releases)


# -- the table is data, and the only place that knows a method ---------------------------------------------------------


def tables() -> list[Path]:
    return sorted(set((PACKAGE / "methods").glob("*.py")) - {PACKAGE / "methods" / "interface.py"})


@pytest.mark.parametrize("path", tables(), ids=lambda p: p.stem)
def test_a_table_holds_literals_and_no_code(path: Path) -> None:
    code = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.For, ast.While, ast.Try)
    assert [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, code)] == []


def test_no_module_outside_the_table_knows_a_method_by_name() -> None:
    known = {m.name for m in METHODS}
    allowed = {("pipeline.py", "generic"), ("resnet.py", "torchvision")}  # --strip-prefix, and the target of that name
    allowed |= {("detectors.py", "dino"), ("detectors.py", "mmselfsup")}  # a detector, and a recipe of fine-tuning
    allowed |= {("doctor.py", "torchvision"), ("probe.py", "torchvision")}  # a package
    allowed |= {("recipes.py", name) for name in known}  # a table, too: of published rows
    found = {
        (path.name, node.value)
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "methods"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known
    }
    assert found <= allowed


def test_a_method_is_frozen() -> None:
    with pytest.raises(AttributeError):
        METHODS[0].name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Layout((), ()).title = "other"  # type: ignore[misc]
    assert {m: m.name for m in METHODS}  # and hashable

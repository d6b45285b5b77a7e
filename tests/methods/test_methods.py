"""The table of methods as data: what every row must have."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ckptconv
from ckptconv.methods import CLIP, HALF, IMAGENET, METHODS, UNIT
from ckptconv.methods.interface import Method
from ckptconv.rules import RULES, Drop, Keep
from ckptconv.wrappers import INNER, OUTER

PACKAGE = Path(ckptconv.__file__).parent
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@each
def test_a_row_has_what_people_ask_for(method: Method) -> None:
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
        assert all(isinstance(rule, RULES) for rule in layout.rules)
        assert len(set(layout.rules)) == len(layout.rules)


@each
def test_rules_speak_of_names_without_wrappers(method: Method) -> None:
    for layout in method.layouts:
        for rule in layout.rules:
            assert all(not source.prefix.startswith(OUTER) for source in rule.sources)
            assert not any(segment in INNER for source in rule.sources for segment in source.text.split("."))


def test_a_layout_that_keeps_names_as_they_are_says_which_networks_it_is_for() -> None:
    """Else a Swin under `encoder.` would be explained by whoever trains ResNets and has such a prefix."""
    silent = {
        method.name
        for method in METHODS
        for layout in method.layouts
        if not layout.families
        and any(isinstance(rule, Keep) and re.fullmatch(r"\{\w+\.\.\.\}", rule.target.text) for rule in layout.rules)
    }
    assert silent == {"generic"}  # its prefix is the user's


LOST = {
    "blocks.{chunk}.{i}.{key...}": "a block's number is its number in the whole network, whatever its chunk",
    "{copy}.wrapped_model.": "a file has one copy of the network that is kept, in whatever wrapper",
}
"""Parts of renames that lose something, and why that does not matter."""


@each
def test_a_rename_can_be_undone(method: Method) -> None:
    for layout in method.layouts:
        names_alone = [rule for rule in layout.rules if isinstance(rule, Keep) and rule.op is None]
        assert all(rule.invertible for rule in names_alone if not any(part in rule.source.text for part in LOST))


def test_what_only_its_name_selects_is_never_guessed() -> None:
    twins = {
        "solo-learn-momentum",
        "dino-student",
        "dinov2-student",
        "dinov3-student",
        "esvit-student",
        "ibot-student",
        "pycontrast-ema",
        "soco-ema",
        "ijepa-encoder",
    }
    others_names = {"beit", "beit-1k", "data2vec", "eva", "generic", "simclr-tonylins", "byol-chigur"}
    others_names |= {"franca", "eupe", "dinov3-sat493m"}
    assert {m.name for m in METHODS if not m.guess} == twins | others_names


def test_methods_state_the_epsilon_of_layer_norms_where_it_is_not_the_familys() -> None:
    assert {m.name: m.eps for m in METHODS if m.eps is not None} == dict.fromkeys(
        ("esvit", "esvit-student", "ibot", "ibot-student", "greenmim"), 1e-6
    ) | dict.fromkeys(("dinov3", "dinov3-sat493m", "dinov3-student", "eupe", "pe"), 1e-5)


def test_a_naming_scheme_has_no_pixels_and_a_method_has() -> None:
    schemes = {"torchvision", "timm", "convnext", "swin", "generic", "mmselfsup", "vissl", "lightly", "solo-learn"}
    schemes |= {"solo-learn-momentum", "lightly-train"}
    schemes |= {"bolts", "transformers", "detectron2", "beit-names"}
    unfit = {"cmc"}  # takes the channels of Lab
    satellite = {"dinov3-sat493m"}
    unit = {m.name for m in METHODS if m.name.startswith(("simclr", "tips"))}
    assert {m.name for m in METHODS if m.pixels is None} >= schemes - {"vissl"} | unfit
    half, clip = {"beit", "pe"}, {"eva", "eva02", "radio"}
    assert {m.name for m in METHODS if m.pixels == UNIT} == unit
    assert {m.name for m in METHODS if m.pixels == HALF} == half
    assert {m.name for m in METHODS if m.pixels == CLIP} == clip
    assert {m.name for m in METHODS if m.pixels == IMAGENET} >= {
        m.name for m in METHODS
    } - schemes - unit - half - clip - unfit - satellite
    assert (HALF.mean, HALF.std) == ((127.5,) * 3, (127.5,) * 3)  # the preprocessor then gives -1 to 1
    assert [round(x / 255, 8) for x in CLIP.mean] == [0.48145466, 0.4578275, 0.40821073]  # openai/CLIP
    assert [round(x / 255, 8) for x in CLIP.std] == [0.26862954, 0.26130258, 0.27577711]
    assert (UNIT.mean, UNIT.std) == ((0, 0, 0), (255, 255, 255))  # MMDetection's preprocessor then gives 0 to 1
    assert IMAGENET.mean == (123.675, 116.28, 103.53)  # the default of MMDetection's preprocessor
    assert IMAGENET.std == (58.395, 57.12, 57.375)


# -- the table is data, and the only place that knows a method ---------------------------------------------------------


def tables() -> list[Path]:
    names = ("interface.py", "op_calls.py", "registry.py", "releases.py", "rule_file.py")
    code = {PACKAGE / "methods" / name for name in names}
    return sorted(set((PACKAGE / "methods").glob("*.py")) - code)


@pytest.mark.parametrize("path", tables(), ids=lambda p: p.stem)
def test_a_table_holds_literals_and_no_code(path: Path) -> None:
    code = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.For, ast.While, ast.Try)
    assert [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, code)] == []


def test_no_module_outside_the_table_knows_a_method_by_name() -> None:
    known = {m.name for m in METHODS}
    allowed = {
        ("convert.py", "generic"),
        ("interface.py", "timm"),
        *((name, "timm") for name in ("provenance.py", "backbone_args.py")),  # a target
        ("timm_network.py", "timm"),  # a package
        ("interface.py", "torchvision"),
        ("resnet.py", "torchvision"),
        ("resnet_targets.py", "torchvision"),
        *(
            (name, "timm")
            for name in ("vit.py", "vit_targets.py", "beit.py", "beit_targets.py", "resnet.py", "resnet_targets.py")
        ),
        *(
            (name, "timm")
            for name in ("swin.py", "swin_targets.py", "convnext.py", "hiera.py", "xcit.py", "regnet.py", "eva.py")
        ),
    }  # strip_prefix, targets
    allowed |= {("detectors.py", "dino"), ("detectors.py", "mmselfsup")}  # a detector, and a recipe of fine-tuning
    allowed |= {
        (name, p) for name in ("doctor.py", "probe.py", "installed.py") for p in ("timm", "torchvision")
    }  # packages
    allowed |= {(name, "detectron2") for name in ("interface.py", "resnet.py", "resnet_targets.py")}  # targets
    allowed |= {("converted.py", p) for p in ("timm", "transformers")} | {("provenance.py", "transformers")}
    targets = (
        "interface.py",
        "resnet.py",
        "resnet_targets.py",
        "vit.py",
        "vit_targets.py",
        "beit.py",
        "beit_targets.py",
    )
    allowed |= {(n, "transformers") for n in (*targets, "eva.py", "swin.py", "swin_targets.py", "convnext.py")}
    allowed |= {("downloads.py", "torchvision")}  # a scheme of mmengine's
    allowed |= {
        ("unsupported.py", "eva"),
        ("unsupported.py", "data2vec"),
        ("unsupported.py", "hiera"),
    }  # what a hint suggests instead
    allowed |= {("unsupported.py", "hiera"), ("convnext.py", "convnext")}  # the start of timm's names
    allowed |= {(table, name) for table in ("recipes.py", "fine_tuning.py") for name in known}  # of published detectors
    found = {
        (path.name, node.value)
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "methods"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known
    }
    assert found <= allowed


@pytest.mark.parametrize("path", tables(), ids=lambda p: p.stem)
def test_a_row_states_its_pixels_or_that_they_are_unknown(path: Path) -> None:
    rows = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Method"
    ]
    assert [row.lineno for row in rows if "pixels" not in {keyword.arg for keyword in row.keywords}] == []


def test_what_nobody_stated_is_unknown() -> None:
    method = Method("mine", "my own", METHODS[0].layouts)
    assert (method.pixels, method.num_heads, method.eps) == (None, None, None)
    assert (method.paper, method.repository, method.releases) == ("", "", ())


def test_a_method_is_frozen() -> None:
    with pytest.raises(AttributeError):
        METHODS[0].name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        METHODS[0].layouts[0].title = "other"  # type: ignore[misc]
    assert {m: m.name for m in METHODS}  # and hashable


def test_plain_transformers_resize_positions_as_their_code_does_or_nobody_states_how() -> None:
    """Their own code: that of MoCo v3 and MoBY takes images of one size, that of I-JEPA and VISSL fails for others,
    SimMIM's and MaskFeat's resizes tables of relative positions only, DINOv3 has no table."""
    plain = [m for m in METHODS if {f for layout in m.layouts for f in layout.families} & {"ViT", "BEiT"}]
    silent = {m.name for m in plain if m.position_resampling is None and m.pixels is not None}
    assert silent - {"dinov3", "dinov3-sat493m", "dinov3-student"} == {
        *("ijepa", "ijepa-encoder", "maskfeat", "moby", "mocov3", "simmim", "vissl", "vissl-dino")
    }


def test_plain_transformers_give_the_map_that_their_own_detectors_take_or_nobody_states_which() -> None:
    """MoCo v3, MoBY and SimMIM have no code for dense tasks with their ViTs, C-RADIO and MaskFeat no last norm."""
    plain = [m for m in METHODS if {f for layout in m.layouts for f in layout.families} & {"ViT", "BEiT", "Eva"}]
    before = {"beit-names", "beit", "beit-1k", "beitv2", "data2vec", "eva", "cae", "mae", "eva02", "pe"}
    assert {m.name for m in plain if m.norm is False} == before | {"ibot", "ibot-student"}
    silent = {m.name for m in plain if m.norm is None and m.pixels is not None}
    assert silent == {"mocov3", "moby", "simmim", "radio", "maskfeat"}
    assert {m.name for m in METHODS if m.norm is not None} <= {m.name for m in plain}


def test_dinov3_of_satellite_images_has_their_pixels():
    """README.md of facebookresearch/dinov3: mean (0.430, 0.411, 0.296), std (0.213, 0.156, 0.143)."""
    (pixels,) = (method.pixels for method in METHODS if method.name == "dinov3-sat493m")
    assert pixels is not None
    assert pixels.mean == pytest.approx([255 * x for x in (0.430, 0.411, 0.296)])
    assert pixels.std == pytest.approx([255 * x for x in (0.213, 0.156, 0.143)])

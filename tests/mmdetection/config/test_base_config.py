"""Configs of the user's own as bases: what is found in them, what is changed of them, and what is refused."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptconv.errors import EnvironmentMissingError, UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import base_config
from ckptconv.mmdetection.config import emit as emit_config
from ckptconv.mmdetection.config.detectors import DETECTORS
from ckptconv.mmdetection.config.options import STYLES, Choices
from tests.support import converted
from tests.support.converted import ARGUMENTS, CHANNELS, MARK, OWN, at, emit, plain, read, resolve, values

pytestmark = [
    pytest.mark.mmdet,
    # mmengine leaves its temporary files to the garbage collector where a config fails
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RETINA = f"_base_ = {str(OWN / 'retinanet' / 'retinanet_r50_fpn_1x_coco.py')!r}\n"
HOOK = {"type": "CheckpointGuard", "modules": ["backbone"], "fingerprint": MARK}
LOADER, GUARD = "ckptconv.mmdetection.loader", "ckptconv.mmdetection.guard"
STYLE = pytest.mark.parametrize("style", STYLES)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a config of the user's own into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "own.py") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
        return name

    return write


def made(base: str, network: str = "r18", **said: Any) -> dict[str, Any]:
    """The emitted config, read by mmengine beside the current folder; both styles must say the same."""
    inherit, flat = (emit(network, base=base, style=style, **said).text for style in STYLES)
    ast.parse(inherit)
    path = Path("emitted.py")
    path.write_text(inherit)
    found = read(path.resolve())
    assert plain(values(flat)) == plain(found)
    return found


def build(found: dict[str, Any]) -> Any:
    from mmengine.config import Config

    with torch.device("meta"):
        return runtime.build(Config(found), "the config")


# The table's own bases


@pytest.mark.parametrize("name", DETECTORS)
def test_a_base_is_read_as_its_row_says(name):
    row = DETECTORS[name]
    found = base_config.detector(f"mmdet::{next(iter(row.bases.values()))}")
    assert dict(found.widths) == dict(row.widths)
    assert {re.sub(r"\[\d+\]", "[]", path) for path in found.classes} == set(row.classes)
    assert (found.shared_head, found.images, found.batch_size, found.lr) == (
        row.shared_head,
        row.images,
        row.batch_size,
        row.lr,
    )
    assert set(found.datasets) == set(row.datasets)
    assert dict(found.evaluated) == dict(row.evaluated)
    assert {k: found.backbone[k] for k in row.backbone} == dict(row.backbone)
    if row.pixels is not None:
        assert found.pixels == row.pixels


@pytest.mark.parametrize("name", DETECTORS)
def test_a_base_gives_what_its_name_gives(name, own):
    base = f"mmdet::{next(iter(DETECTORS[name].bases.values()))}"
    schedule = {12: "1x"}.get(next(iter(DETECTORS[name].bases)))
    if schedule is None:
        return
    one, other = plain(made(base)), plain(resolve(emit("r18", detector=name, schedule=schedule).text))
    for config_ in (one, other):  # what is said and what is left out may be the same
        config_["model"]["backbone"] = {**DEFAULTS, **config_["model"]["backbone"]}
    assert one == other


# Bases of every kind


DEFAULTS = {"stem_channels": 64, "base_channels": 64, "groups": 1, "base_width": 4, "style": "pytorch"}
BASES = [
    # the config, the network, and values that the emitted config has
    ("libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py", "r18", {"model.neck": None}),
    ("yolof/yolof_r50-c5_8xb8-1x_coco.py", "r18", {"model.neck.in_channels": 512}),
    ("yolof/yolof_r50-c5_8xb8-1x_coco.py", "r50w2", {"model.neck.in_channels": 4096}),
    ("centernet/centernet_r18_8xb16-crop512-140e_coco.py", "r50", {"model.neck.in_channels": 2048}),
    ("detr/detr_r50_8xb2-150e_coco.py", "r18", {"model.neck.in_channels": [512]}),
    ("swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py", "r18", {"model.neck.in_channels": CHANNELS["r18"]}),
    ("pvt/retinanet_pvt-t_fpn_1x_coco.py", "x50", {"model.neck.in_channels": CHANNELS["x50"]}),
    ("res2net/faster-rcnn_res2net-101_fpn_2x_coco.py", "r50", {"model.neck.in_channels": CHANNELS["r50"]}),
    ("htc/htc_r50_fpn_1x_coco.py", "r18", {"model.neck.in_channels": CHANNELS["r18"]}),
    ("mask_rcnn/mask-rcnn_x101-32x4d_fpn_1x_coco.py", "r50", {"model.neck.in_channels": CHANNELS["r50"]}),
    ("mask_rcnn/mask-rcnn_x101-32x4d_fpn_1x_coco.py", "x50", {"model.backbone.depth": 50}),
    (
        "gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py",
        "r50",
        {"model.backbone.norm_cfg": {"type": "SyncBN", "requires_grad": True}},
    ),
    ("scratch/faster-rcnn_r50-scratch_fpn_gn-all_6x_coco.py", "r50", {"model.backbone.frozen_stages": 0}),
    ("gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py", "r50", {"model.backbone.depth": 50}),
    ("cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py", "r50", {"load_from": None}),
    ("faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py", "r18", {"model.roi_head.bbox_head.in_channels": 512}),
    ("faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py", "r18", {"model.rpn_head.feat_channels": 512}),
    ("faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py", "r50w2", {"model.roi_head.bbox_head.in_channels": 4096}),
    ("pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py", "r18", {"model.neck.in_channels": CHANNELS["r18"]}),
]


@pytest.mark.parametrize(
    ("base", "network", "expected"), BASES, ids=lambda v: v.partition("/")[0] if isinstance(v, str) else ""
)
def test_bases_of_every_kind_build(base, network, expected, own):
    found = made(f"mmdet::{base}", network)
    for path, value in expected.items():
        if value is not None or path == "load_from":
            assert plain(at(found, path)) == [value]
    backbone = found["model"]["backbone"]
    expected = {**DEFAULTS, **ARGUMENTS[network]}
    assert {key: {**DEFAULTS, **backbone}[key] for key in expected} == expected
    assert (
        backbone["init_cfg"] == {"type": "Pretrained", "checkpoint": "/w/r50.pth"} or "_scope_" in backbone["init_cfg"]
    )
    assert "conv_cfg" not in backbone  # weight standardisation: not what the checkpoint was trained with
    model = build(found)
    entries = {k: tuple(v.shape) for k, v in model.backbone.state_dict().items()}
    wanted = converted.NETWORKS[network].entries()
    stages = backbone.get("num_stages", 4)
    assert entries == {k: s for k, s in wanted.items() if k[:5] != "layer" or int(k[5]) <= stages}


def test_a_neck_of_two_keeps_its_second(own):
    found = made("mmdet::libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py")
    fpn, bfp = found["model"]["neck"]
    base = read(OWN / "libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py")["model"]["neck"]
    assert plain(fpn) == plain({**base[0], "in_channels": CHANNELS["r18"]})
    assert plain(bfp) == plain(base[1])


def test_nothing_of_another_network_is_left(own):
    found = made("mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py", "r50w2")
    assert plain(found["model"]["backbone"]) == {
        "type": "ResNet",
        "depth": 50,
        "stem_channels": 128,
        "base_channels": 128,
        "style": "pytorch",
        "num_stages": 4,
        "out_indices": [0, 1, 2, 3],
        "frozen_stages": 0,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "norm_eval": False,
        "init_cfg": {"type": "Pretrained", "checkpoint": "/w/r50.pth"},
    }
    assert found["optim_wrapper"]["optimizer"]["type"] == "AdamW"


@pytest.mark.parametrize(
    "had",
    [
        "dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')",
        "dict(type='Pretrained', checkpoint='a', map_location='cpu')",
        "None",
    ],
)
def test_the_old_start_is_gone(had, own):
    base = own(
        f"{RETINA}model = dict(backbone=dict(init_cfg={'dict(_delete_=True, ' + had[5:] if had != 'None' else had}))"
    )
    found = made(base)
    assert plain(found["model"]["backbone"]["init_cfg"]) == {"type": "Pretrained", "checkpoint": "/w/r50.pth"}


def test_what_would_be_loaded_over_it_is_gone(own):
    """`load_from` comes after `init_cfg` and would replace the backbone."""
    assert made(own(f"{RETINA}load_from = 'detector.pth'"))["load_from"] is None


def test_c4_of_the_users_own(own):
    found = made("mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py")
    head = found["model"]["roi_head"]["shared_head"]
    assert (head["depth"], head["style"], head["init_cfg"]["checkpoint"]) == (18, "pytorch", "/w/r50.pth")
    with pytest.raises(UsageError) as caught:
        emit("r50w2", base="mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py")
    assert caught.value.message == (
        "ResNet-50, width x2 cannot be the backbone of MaskRCNN: its last stage is "
        "MMDetection's ResLayer, a plain ResNet's without widths and groups"
    )


# Hooks and imports


@pytest.mark.parametrize(
    ("lines", "imports", "hooks"),
    [
        ("", [LOADER, GUARD], [HOOK]),
        (
            "custom_imports = dict(imports=['json', 'ast'], allow_failed_imports=True)",
            ["json", "ast", LOADER, GUARD],
            [HOOK],
        ),
        ("custom_imports = dict(imports='json')", ["json", LOADER, GUARD], [HOOK]),
        (
            "custom_hooks = [dict(type='EMAHook'), dict(type='NumClassCheckHook')]",
            [LOADER, GUARD],
            [{"type": "EMAHook"}, {"type": "NumClassCheckHook"}, HOOK],
        ),
        ("custom_hooks = []\ncustom_imports = None", [LOADER, GUARD], [HOOK]),
    ],
    ids=["none", "imports", "one import", "hooks", "empty"],
)
def test_hooks_and_imports_of_the_base_stay(lines, imports, hooks, own):
    base = own(RETINA + lines)
    found = made(base)
    assert plain(found["custom_hooks"]) == hooks
    assert list(found["custom_imports"]["imports"]) == imports
    bare = made(base, guard=False)
    assert (bare.get("custom_imports"), plain(bare.get("custom_hooks"))) == (
        read(Path(base).resolve()).get("custom_imports"),
        plain(read(Path(base).resolve()).get("custom_hooks")),
    )


# Data


CONCAT = """
one = dict(type='CocoDataset', data_root='x/', ann_file='one.json', metainfo=dict(classes=('old',)))
two = dict(type='CocoDataset', data_root='y/', ann_file='two.json')
train_dataloader = dict(batch_size=4, dataset=dict(_delete_=True, type={type!r}, {inside}))
"""


@pytest.mark.parametrize(
    ("kind", "inside", "paths"),
    [
        ("ConcatDataset", "datasets=[one, two]", ["dataset.datasets[]"]),
        ("RepeatDataset", "times=2, dataset=two", ["dataset.dataset"]),
        (
            "RepeatDataset",
            "times=2, dataset=dict(type='ConcatDataset', datasets=[one, two])",
            ["dataset.dataset.datasets[]"],
        ),
        (
            "ConcatDataset",
            "datasets=[dict(type='RepeatDataset', times=2, dataset=one), two]",
            ["dataset.datasets"],
        ),
        ("MultiImageMixDataset", "dataset=one, pipeline=[]", ["dataset.dataset"]),
    ],
    ids=["concat", "repeat", "repeat concat", "concat repeat", "mix"],
)
def test_wrapped_data_sets(kind, inside, paths, own):
    base = own(RETINA + CONCAT.format(type=kind, inside=inside))
    before = read(Path(base).resolve())
    found = made(base, data_root="new", classes="a,b")
    leaves = list(files(found["train_dataloader"]["dataset"]))
    assert [leaf["ann_file"] for leaf in leaves] == [
        leaf["ann_file"] for leaf in files(before["train_dataloader"]["dataset"])
    ]
    for leaf in [*leaves, found["val_dataloader"]["dataset"], found["test_dataloader"]["dataset"]]:
        assert leaf["data_root"] == "new/"
        assert plain(leaf["metainfo"]) == {"classes": ["a", "b"]}
    assert found["val_evaluator"]["ann_file"] == "new/annotations/instances_val2017.json"
    assert {k: v for k, v in found["train_dataloader"].items() if k != "dataset"} == {
        k: v for k, v in before["train_dataloader"].items() if k != "dataset"
    }


def files(node: Any) -> Any:
    if isinstance(node, dict):
        if "ann_file" in node:
            yield node
        for child in node.values():
            yield from files(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from files(child)


@pytest.mark.parametrize(
    ("top", "parts"), [(True, "train val test"), (True, "train"), (False, "train val test"), (False, "val"), (True, "")]
)
def test_colours_of_the_old_classes_are_gone(top, parts, own):
    """mmdet's visualizer asserts that there are as many colours as classes."""
    colours = "dict(classes=('old',), palette=[(1, 2, 3)])"
    lines = [f"{part}_dataloader = dict(dataset=dict(metainfo={colours}))" for part in parts.split()]
    base = own("\n".join([RETINA, f"metainfo = {colours}" if top else "", *lines]))
    found = made(base, classes="a,b")
    for part in ("train", "val", "test"):
        assert plain(found[f"{part}_dataloader"]["dataset"]["metainfo"]) == {"classes": ["a", "b"]}


@pytest.mark.parametrize(
    "base",
    [
        "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
        "cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py",
        "pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
    ],
)
def test_no_file_of_the_old_data_root_is_left(base, own):
    """Files and folders below the old root: of data sets, and of one or several evaluators."""
    before = read(OWN / base)
    found = made(f"mmdet::{base}", data_root="new")
    old = before["data_root"]
    for part in ("val_evaluator", "test_evaluator"):
        one, other = (list(strings(plain(config[part]))) for config in (before, found))
        assert other == [value.replace(old, "new/") if value.startswith(old) else value for value in one]


def strings(node: Any) -> Any:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from strings(child)


def test_evaluators_with_files_of_their_own(own):
    base = own(
        RETINA
        + "val_evaluator = [dict(type='CocoPanopticMetric', ann_file='data/coco/p.json'), "
        + "dict(type='CocoMetric', ann_file='data/coco/i.json')]\n"
    )
    found = made(base, data_root="new")
    assert [one["ann_file"] for one in found["val_evaluator"]] == ["new/p.json", "new/i.json"]


@pytest.mark.parametrize(("option", "value"), [("classes", "a,b"), ("num_classes", 3), ("data_root", "d")])
def test_an_option_that_changes_nothing_is_refused(option, value, own):
    base = own(
        "model = dict(type='RPN', data_preprocessor=dict(type='DetDataPreprocessor'), backbone=dict(type='ResNet', "
        "depth=50), neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=8, num_outs=5))"
    )
    with pytest.raises(UsageError):
        emit("r18", base=base, **{option: value})


def test_classes_in_bases(own):
    cascade = made("mmdet::htc/htc_r50_fpn_1x_coco.py", classes="a,b,c,d,e,f,g")
    heads = cascade["model"]["roi_head"]
    assert [head["num_classes"] for head in [*heads["bbox_head"], *heads["mask_head"]]] == [7] * 6
    assert heads["semantic_head"]["num_classes"] == 183  # stuff: another data set's business


# Rates


def test_the_linear_rule_of_a_base(own):
    base = own(
        f"{RETINA}train_dataloader = dict(batch_size=4)\nauto_scale_lr = dict(base_batch_size=64)\n"
        "optim_wrapper = dict(optimizer=dict(lr=0.04))\n"
    )
    assert (emit(base=base).lr, emit(base=base).images) == (0.04, 64)
    emitted = emit(base=base, gpus=1)
    assert (emitted.lr, emitted.images) == (0.0025, 4)
    assert "# Linear rule: 0.04 for 64 images a step, here 1 x 4 = 4.\n" in emitted.text
    found = made(base, batch_size=2, gpus=2)
    assert found["optim_wrapper"]["optimizer"]["lr"] == 0.0025
    assert (found["auto_scale_lr"]["base_batch_size"], found["train_dataloader"]["batch_size"]) == (4, 2)


@pytest.mark.parametrize(
    ("counts", "said", "rate", "images", "product"),
    [
        (8, {"batch_size": 2, "gpus": 1}, 0.01, 16, "1 x 2 x 8 = 16"),
        (8, {"batch_size": 1, "gpus": 1}, 0.005, 8, "1 x 1 x 8 = 8"),
        (2, {"gpus": 1}, 0.0025, 4, "1 x 2 x 2 = 4"),
        (2, {"batch_size": 4}, 0.02, 32, "4 x 4 x 2 = 32"),
    ],
)
def test_the_linear_rule_counts_the_batches_that_are_accumulated(own, counts, said, rate, images, product):
    base = own(f"{RETINA}optim_wrapper = dict(accumulative_counts={counts})\nauto_scale_lr = dict(enable=True)\n")
    assert (emit(base=base).lr, emit(base=base).images) == (0.01, 16)
    emitted = emit(base=base, **said)
    assert (emitted.lr, emitted.images) == (rate, images)
    assert f"# Linear rule: 0.01 for 16 images a step, here {product}.\n" in emitted.text
    found = made(base, **said)
    assert found["optim_wrapper"]["optimizer"]["lr"] == rate
    assert found["optim_wrapper"]["accumulative_counts"] == counts
    assert found["auto_scale_lr"] == {"enable": False, "base_batch_size": images}  # mmengine would scale it again
    comment = "The rate above is scaled already. Leave enable off: MMDetection does not count accumulated batches."
    assert comment in " ".join(emitted.text.replace("#", "").split())


def test_a_base_that_says_no_images_a_step_means_8_gpus_and_all_batches_that_are_accumulated(own):
    text = f"{RETINA}train_dataloader = dict(batch_size=3)\nauto_scale_lr = None\n"
    base = own(f"{text}optim_wrapper = dict(accumulative_counts=4)\n")
    assert emit(base=base).images == 96


def test_a_base_without_a_rate_has_none_to_scale(own):
    """0.02 would be an invention."""
    base = own(
        "model = dict(type='RPN', data_preprocessor=dict(type='DetDataPreprocessor'), backbone=dict(type='ResNet', "
        "depth=50), neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=8, num_outs=5))"
    )
    assert emit(base=base).lr is None
    with pytest.raises(UsageError):
        emit(base=base, gpus=2)


# Paths


def test_a_relative_base_is_seen_from_the_outputs_folder(own, tmp_path):
    own(RETINA + "model = dict(bbox_head=dict(num_classes=5))", "configs/mine/own.py")
    card = converted.convert(tmp_path)
    (tmp_path / "out" / "deep").mkdir(parents=True)
    out = Path("out/deep/made.py")
    emitted = emit_config.write(card, out, Choices(base="configs/mine/own.py"))
    assert "_base_ = '../../configs/mine/own.py'\n" in emitted.text
    assert read(out.resolve())["model"]["bbox_head"]["num_classes"] == 5
    linked = tmp_path / "link.py"
    linked.symlink_to(out)
    emit_config.write(card, linked, Choices(base="configs/mine/own.py"), force=True)
    for path in (out.resolve(), linked):
        assert read(path)["model"]["bbox_head"]["num_classes"] == 5
    assert linked.is_symlink()


def test_the_output_is_not_the_base(own, tmp_path):
    """It would stand on itself."""
    base = own(RETINA)
    card = converted.convert(tmp_path)
    with pytest.raises(UsageError):
        emit_config.write(card, Path(base), Choices(base=base), force=True)
    assert Path(base).read_text() == RETINA


def test_the_title_says_the_base(own):
    emitted = emit(base=own("model_type = 'Retina\\nNet'\n" + RETINA + "model = dict(type='RetinaNet')", "it's.py"))
    assert emitted.text.splitlines()[0] == "# RetinaNet of it's.py, on ResNet-50 of moco."
    hostile = emit(base=own(RETINA + "model = dict(type='Retina\\nimport os')"))
    assert hostile.text.splitlines()[0] == "# Retina\\nimport os of own.py, on ResNet-50 of moco."


# Refusals


CANNOT = "Write the backbone into the config yourself; ckptconv check CONFIG proves it."
UNTOLD = "{base}: how many channels its neck takes of which stage cannot be told from "
NO_BACKBONE = "{base} does not have a model.backbone"
HALF = "mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
REFUSED = [
    ("mmdet::_base_/schedules/schedule_1x.py", NO_BACKBONE, "Give the config of a detector."),
    (HALF, NO_BACKBONE, "Give the config of a detector."),
    (
        "mmdet::yolof/yolof_r50-c5_8xb8-1x_coco",
        "mmdet has no config yolof/yolof_r50-c5_8xb8-1x_coco",
        "Did you mean mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py or mmdet::yolof/yolof_r50-c5_8xb8-iter-1x_coco.py",
    ),
    ("mmdet::zzz", "mmdet has no config zzz", "Check the name."),
    ("absent.py", "there is no config absent.py", "Give a file, or one of MMDetection's own: mmdet::FOLDER/FILE"),
    (
        "mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py",
        "{base} has deformable convolutions; MMDetection's ResNet-18 has none",
        "Take a base without dcn",
    ),
    (
        "mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py",
        "{base} shares its head with a TridentResNet, which a ResNet cannot replace",
        "Choose another base",
    ),
    (
        "mmdet::detectors/detectors_htc-r50_1x_coco.py",
        "{base} has a second backbone, model.neck.rfp_backbone, which would keep its own start",
        "Write both into the config yourself",
    ),
    ("mmdet::ssd/ssd300_coco.py", UNTOLD + "out_indices=[3, 4] and neck.in_channels=(512, 1024)", CANNOT),
    (
        "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
        UNTOLD + "out_indices=[0, 1, 2, 3] and neck.in_channels=[96, 192, 384]",
        CANNOT,
    ),
]


@pytest.mark.parametrize(("base", "message", "hint"), REFUSED, ids=lambda v: v[:40] if isinstance(v, str) else "")
def test_refusals(base, message, hint):
    with pytest.raises(UsageError) as caught:
        emit("r18", base=base)
    assert caught.value.message == message.format(base=base)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("raise ValueError('first\\nlast words')", "ValueError: last words"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("_base_ = 'absent.py'", "FileNotFoundError: "),
        ("x = (", "SyntaxError: "),
        ("raise KeyError", "KeyError"),
    ],
)
def test_bases_that_fail(text, cause, own):
    base = own(text)
    with pytest.raises(UsageError) as caught:
        emit(base=base)
    assert caught.value.message.startswith(f"{base} cannot be read: {cause}")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "It is Python code: run it to see more."


def test_bases_that_need_what_is_not_here(own):
    with pytest.raises(EnvironmentMissingError) as caught:
        emit(base=own("__import__('no_such_package')"))
    assert caught.value.message == "own.py needs a package that is missing: No module named 'no_such_package'"
    with pytest.raises(EnvironmentMissingError) as caught:
        emit(base="no_such_package::a/b.py")
    assert caught.value.message == "no_such_package::a/b.py cannot be found: no_such_package is not installed"
    assert caught.value.hint == "See what is missing and how to fix it: ckptconv doctor"


def retina(backbone: str = "", neck: str = "type='FPN', in_channels=[1, 2, 3, 4]", more: str = "") -> str:
    fed = "data_preprocessor=dict(type='DetDataPreprocessor')"
    parts = f"backbone=dict(type='ResNet', depth=50{backbone}), neck={neck if neck[0] == '[' else f'dict({neck})'}"
    return f"model = dict(type='RetinaNet', {fed}, {parts})\n{more}\n"


@pytest.mark.parametrize(
    "text",
    [
        "model = 5",
        "model = dict(backbone=5)",
        "model = dict(backbone=dict(depth=50))",
        "model = dict(type='RetinaNet', backbone=dict(type='ResNet'), roi_head=5)",
        retina(", out_indices=3"),
        retina(", out_indices=(9,)", "in_channels=5"),
        retina(", out_indices=()", "in_channels=5"),
        retina(neck="[5]"),
    ],
)
def test_odd_bases_are_refused_in_a_sentence(text, own):
    with pytest.raises(UsageError, match=r"own\.py"):
        emit(base=own(text))


@pytest.mark.parametrize(
    "text",
    [
        retina(),
        retina(more="train_dataloader = None\noptim_wrapper = None\nauto_scale_lr = None\nval_evaluator = []"),
        retina(more="train_dataloader = dict(batch_size=None)"),
        retina(", init_cfg=[dict(type='Kaiming', layer='Conv2d')]"),
        retina(", norm_cfg=None"),
        retina().replace("data_preprocessor=dict(type='DetDataPreprocessor'), ", ""),
        retina().replace("'ResNet'", "'mmdet.ResNet'"),
    ],
    ids=["plain", "nothing", "no batch", "several starts", "no norm", "no preprocessor", "scope"],
)
def test_sparse_bases_give_configs_that_mmengine_reads(text, own):
    found = made(own(text))
    assert found["model"]["backbone"]["init_cfg"]["checkpoint"] == "/w/r50.pth"
    fed = found["model"]["data_preprocessor"]
    assert fed["type"] == "DetDataPreprocessor"
    assert fed["mean"] == [123.675, 116.28, 103.53]


def test_bases_in_mmengines_new_style(own):
    """Such a config can only be read by others of its kind."""
    base = own("from mmdet.models.backbones import ResNet\n" + retina().replace("'ResNet'", "ResNet"))
    with pytest.raises(UsageError) as caught:
        emit(base=base)
    assert caught.value.message.startswith(base)


@pytest.mark.parametrize("value", ["{1, 2}", "range(3)", "complex(1)", "int"])
def test_flat_needs_values_that_have_a_literal(value, own):
    base = own(f"{RETINA}things = dict(a=[{value}])")
    with pytest.raises(UsageError) as caught:
        emit(base=base, style="flat")
    assert "literal" in caught.value.message
    assert emit(base=base).text


def test_flat_writes_numpys_numbers(own):
    base = own(f"{RETINA}import numpy\nthings = dict(a=numpy.float64(0.5))")
    assert resolve(emit(base=base, style="flat").text)["things"] == {"a": 0.5}

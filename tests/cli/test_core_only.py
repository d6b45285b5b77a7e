"""Every command in an environment of the core only, and with parts of MMDetection: an answer, or one sentence."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ckptconv.cli.app import app
from tests.report import pages
from tests.support import environments, forked, hollow

RECIPE = "mocov2-mask-rcnn-r50-fpn-1x"
WITH_IT = f"{RECIPE} --pretrained r50.pth"
NO_MMENGINE = "MMDetection cannot be imported here: ModuleNotFoundError: No module named 'mmengine'"
NO_MMDET = "mmdet::{} cannot be found: mmdet is not installed"
NO_BASE = NO_MMDET.format("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
NO_CONFIG = "there is no config nothere.py"
COMMANDS: dict[str, list[tuple[str, int, str]]] = {
    "convert": [
        ("raw.pth.tar out.pth", 0, ""),
        ("raw.pth.tar out.safetensors --json", 0, ""),
        ("raw.pth.tar half.pth --dtype float16 --dry-run", 0, ""),
        ("nothere.pth out.pth", 3, "there is no file nothere.pth"),
    ],
    "diff": [
        ("raw.pth.tar r50.pth", 0, ""),
        ("r50.pth r50.pth --json", 0, ""),
        ("r50.pth nothere.pth", 3, "there is no file nothere.pth"),
    ],
    "inspect": [("raw.pth.tar", 0, ""), ("r50.pth --all --json", 0, "")],
    "methods": [("", 0, ""), ("moco", 0, ""), ("--fits raw.pth.tar", 0, "")],
    "explain": [("raw.pth.tar module.encoder_q.conv1.weight", 0, "")],
    "releases": [("moco", 0, "CC-BY-NC-4.0, no commercial use"), ("moby", 0, "")],
    "emit-config": [
        ("r50.pth", 0, ""),
        ("r50.pth -o core.py", 0, ""),
        *((f"r50.pth --detector {name}", 0, "") for name in ("faster-rcnn", "retinanet", "dino", "deformable-detr")),
        *((f"r50.pth --schedule {name}", 0, "") for name in ("2x", "ms-1x", "ms-2x", "mmselfsup")),
        ("r50.pth --classes a,b --data-root data --gpus 1 --batch-size 2 --amp --norm BN --no-guard --json", 0, ""),
        ("r50.pth --style flat", 4, NO_BASE),
        ("r50.pth --style flat --json", 4, NO_BASE),
        ("r50.pth --base own.py", 4, NO_MMENGINE),
        ("r50.pth --base mmdet::a/b.py", 4, NO_MMDET.format("a/b.py")),
        ("r50.pth --base nothere.py", 2, NO_CONFIG),
    ],
    "check": [
        ("own.py", 4, NO_MMENGINE),
        ("own.py --json", 4, NO_MMENGINE),
        ("nothere.py", 2, NO_CONFIG),
    ],
    "verify-ap": [
        *(
            (f"{target} --tier {tier}{more}", 4, NO_MMENGINE)
            for tier in ("load", "smoke", "lift", "full")
            for target in ("own.py", WITH_IT)
            for more in ("", " --dry-run --json")
        ),
        ("own.py --tier lift --data-root data --images 4 --seeds 2 --gpus 0", 4, NO_MMENGINE),
        ("own.py --pretrained r50.pth --expect box=30 --tier full --amp", 4, NO_MMENGINE),
        *((f"{target} --tier eval --checkpoint det.pth", 4, NO_MMENGINE) for target in ("own.py", RECIPE)),
        ("mmdet::a/b.py", 4, NO_MMDET.format("a/b.py")),
        ("nothere.py", 2, NO_CONFIG),
        ("moko", 2, "there is no recipe 'moko'"),
        (RECIPE, 2, f"{RECIPE} needs a converted checkpoint"),
    ],
    "report": [
        ("run", 0, ""),
        ("run run --out two.html --json", 0, ""),
        ("nothere -o new.html", 2, "there is no report.json in nothere"),
    ],
    "recipes": [("", 0, ""), ("--json", 0, "")],
    "doctor": [("", 4, ""), ("--json", 4, "")],
    "guide": [("", 0, ""), ("troubleshooting", 0, ""), ("nothere", 2, "there is no topic 'nothere'")],
    "cache list": [("", 0, ""), ("--json", 0, "")],
    "cache clear": [("", 0, "")],
}


def commands(group: Any, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        yield from commands(command, f"{before}{name} ") if hasattr(command, "commands") else [before + name]


def test_no_command_is_forgotten():
    assert set(commands(get_command(app))) == set(COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("core")
    hollow.fill("moco_v2_r50_legacy", folder / "raw.pth.tar")
    (folder / "run").mkdir()
    (folder / "run" / "report.json").write_text(json.dumps(pages.lift_report()))
    (folder / "own.py").write_text("model = dict(type='FasterRCNN', backbone=dict(type='ResNet', depth=50))\n")
    return folder


@pytest.fixture(scope="module")
def core(tmp_path_factory, folder):
    python = environments.make(tmp_path_factory.mktemp("environment") / "core")
    done = environments.run(python, "convert", "raw.pth.tar", "r50.pth", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return forked.Server(forked.COMMANDS.imported, str(python))


@pytest.mark.parametrize("command", COMMANDS)
def test_in_the_core_only(core, folder, command):
    for words, code, message in COMMANDS[command]:
        done = environments.run(core, *command.split(), *shlex.split(words), folder=folder)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
        if "--json" in words:
            said = json.loads(done.stdout).get("error", {"message": ""})["message"]
        else:
            said = done.stderr.partition("\n")[0].removeprefix("error: ")
        assert said == message, words


def test_the_core_is_what_pyproject_says(core):
    (packages,) = Path(core.python).parent.parent.glob("lib/python*/site-packages")
    there = {entry.name.lower() for entry in packages.iterdir()}
    assert {"numpy", "platformdirs", "requests", "rich", "safetensors", "typer", "urllib3"} <= there
    assert not {"torch", "cv2", "mmengine", "mmcv", "mmdet", "pycocotools", "scipy", "packaging"} & there


def test_help_of_every_command(core, folder):
    for command in COMMANDS:
        done = environments.run(core, *command.split(), "--help", folder=folder)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert f"Usage: ckptconv {command}" in done.stdout


FIRST = {"convert": "raw.pth.tar opt.pth --force", "emit-config": "r50.pth", "check": "own.py", "verify-ap": WITH_IT}


@pytest.mark.parametrize("command", FIRST)
def test_every_option_in_the_core_only(core, folder, command):
    """With a value of its type, which need not make sense: no option's code needs more than the core to answer."""
    for option in get_command(app).commands[command].params:
        if option.param_type_name == "argument" or option.opts[0] in FIRST[command]:
            continue
        value = {"integer": "1", "float": "0.5"}.get(option.type.name, "x")
        words = [*shlex.split(FIRST[command]), option.opts[0], *([] if option.is_flag else [value])]
        done = environments.run(core, command, *words, folder=folder)
        assert done.returncode in (0, 2, 3, 4), (words, done.stderr)
        assert "Traceback" not in done.stderr, words
        assert "this needs the package" not in done.stderr, words


def test_completion(core, folder):
    words = {"COMP_WORDS": "ckptconv ver", "COMP_CWORD": "1", "_CKPTCONV_COMPLETE": "complete_bash"}
    done = environments.run(core, folder=folder, **words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "verify-ap\n", "")


# Parts of MMDetection

CANNOT = "MMDetection cannot be imported here: ModuleNotFoundError: No module named "
NEEDS = "verify-ap needs MMDetection and its dependencies; not installed here: "
LOADER = "emitted.py imports ckptconv.mmdetection.loader, which fails: ModuleNotFoundError: No module named "
PARTS: dict[str, tuple[list[str], list[str], str, str]] = {
    # distributions that are left out, files that are; what check says, and what verify-ap
    "torch alone": (
        ["mmengine", "mmcv", "mmdet"], [], f"{CANNOT}'mmengine'", f"{CANNOT}'mmengine'"),
    "no torch": (
        ["torch"], [], "emitted.py needs a package that is missing: No module named 'torch'", f"{NEEDS}torch"),
    "no mmdet": (
        ["mmdet"], [],
        "emitted.py needs a package that is missing: mmdet is not installed, please install mmdet manually",
        "emitted.py needs a package that is missing: mmdet is not installed, please install mmdet manually"),
    "no mmcv": (["mmcv"], [], f"{CANNOT}'mmcv'", f"{NEEDS}mmcv"),
    "no ops": ([], ["mmcv/_ext*"], f"{CANNOT}'mmcv._ext'", f"{CANNOT}'mmcv._ext'"),
    "no cv2": (["opencv-python", "opencv-python-headless"], [], f"{LOADER}'cv2'", f"{NEEDS}cv2"),
    "no pycocotools": (["pycocotools"], [], f"{CANNOT}'pycocotools'", f"{NEEDS}pycocotools"),
    "no scipy, no matplotlib": (["scipy", "matplotlib"], [], f"{CANNOT}'matplotlib'", f"{NEEDS}scipy, matplotlib"),
}  # fmt: skip


@pytest.mark.mmdet
@pytest.mark.parametrize("part", PARTS)
def test_with_a_part_of_mmdetection(core, folder, tmp_path, part, request):
    without, hidden, of_check, of_verify = PARTS[part]
    python = environments.make(tmp_path / "v", (*environments.CORE, *environments.MMDETECTION), without)
    environments.hide(python, *hidden)
    server = forked.Server(("torch", "mmengine.config", "mmengine.registry", *forked.COMMANDS.imported), str(python))
    request.addfinalizer(server.stop)
    emitted = environments.run(server, "emit-config", "r50.pth", "-o", "emitted.py", "--force", folder=folder)
    assert emitted.returncode == 0, emitted.stderr
    for words, message in (
        (("check", "emitted.py"), of_check),
        (("verify-ap", "emitted.py", "--gpus", "0", "--work-dir", str(tmp_path / "w")), of_verify),
    ):
        done = environments.run(server, *words, folder=folder)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert (done.returncode, errors) == (4, [f"error: {message}"])
        assert done.stderr.endswith("hint: See what is missing and how to fix it: ckptconv doctor\n")

"""What `verify-ap` and `recipes` print and with which status they end, as a user meets them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ckptconv
from ckptconv.cli import render_verification
from ckptconv.cli.render_verification import _Live
from ckptconv.mmdetection.verify.recipes import RECIPES
from tests.support import forked
from tests.support.raw_files import moco

pytestmark = pytest.mark.mmdet
ROW = "mocov2-mask-rcnn-r50-fpn-1x"
SHORTER = """
import sys
from ckptconv.cli import main
from ckptconv.mmdetection.verify import config_edits, plan
plan.SMOKE = config_edits.SyntheticTraining(8, 4, epochs=2, val_interval=1, image_size=64, batch_size=2)
main()
"""
FORKING = f"""
from ckptconv.mmdetection.verify.run import supervisor
from tests.support import forked
supervisor.subprocess = forked.as_subprocess()
{SHORTER}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    ckptconv.convert(moco(folder / "raw.pth"), folder / "r18.pth", "moco")
    ckptconv.convert(moco(folder / "raw.pth", 50), folder / "r50.pth", "moco")
    return folder


def verify_ap(folder: Path, *args: str, program: tuple[str, ...] = ("-m", "ckptconv")):
    words = [sys.executable, *program, "verify-ap", *args]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "80", "PYTHONPATH": str(forked.ROOT)}
    return forked.run(words, cwd=folder, env=environment)


def smoke(folder: Path, *args: str):
    return verify_ap(folder, ROW, "--pretrained", "r18.pth", "--work-dir", "work", *args, program=("-c", FORKING))


@pytest.fixture(scope="module")
def trained(folder):
    return smoke(folder, "--expect", "box=0")


def labels(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]


def test_a_run_tells_how_it_goes_on_stderr_and_what_came_out_on_stdout(trained, folder):
    assert trained.returncode == 0
    assert labels(trained.stdout) == ["config", "purpose", "proof", "run", "because", "rule", "report", "verdict"]
    assert trained.stdout.splitlines()[-1] == (
        "verdict   pass: the chain works; this does not judge the weights, the tier lift does"
    )
    assert f"120/120 tensors equal {folder / 'r18.pth'}" in trained.stdout
    plain = trained.stderr.splitlines()
    assert plain[:3] == [
        "proof: building the detector and comparing it with its checkpoint",
        "data: generating 8 images for training and 4 for evaluation",
        "seed0: training and evaluation, 2 images per step",
    ]
    assert re.match(r"seed0: epoch 1, iteration 1, loss \d", plain[3])
    aps = [line for line in plain[4:] if ", AP " in line]
    assert all(re.fullmatch(r"seed0: iteration \d+, AP box \d+\.\d, mask \d+\.\d", line) for line in aps)
    assert len(aps) == 2


def test_an_ap_that_is_not_the_expected_one_is_status_1(trained, folder):
    done = smoke(folder, "--expect", "box=99")
    assert done.returncode == 1
    assert "points below the tolerance of 0.3" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "verdict   fail: the chain does not work, or the detector learns too little; this does not judge the weights"
    )


def test_json_is_the_report(trained, folder):
    done = smoke(folder, "--expect", "box=0", "--json")
    assert done.returncode == 0
    printed, written = json.loads(done.stdout), json.loads((folder / "work" / "report.json").read_text())
    assert printed == written
    assert (printed["schema"], printed["command"]) == (2, "verify-ap")


@pytest.mark.parametrize(
    ("sent", "start", "program"),
    [(signal.SIGINT, forked.Popen, FORKING), (signal.SIGTERM, subprocess.Popen, SHORTER)],
    ids=["SIGINT", "SIGTERM to new processes"],
)
def test_a_stop_says_how_to_go_on(folder, sent, start, program):
    words = ["verify-ap", ROW, "--pretrained", "r18.pth", "--work-dir", f"stopped{sent}"]
    here, there = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(forked.ROOT)}
    process = start([sys.executable, "-c", program, *words], cwd=folder, env=environment, stderr=there)
    os.close(there)
    with open(here) as stderr:
        while not (line := stderr.readline()).startswith("seed0: "):
            assert line
        while not (folder / f"stopped{sent}" / "seed0" / "output.log").exists():
            time.sleep(0.05)
        process.send_signal(sent)
        *_, last = stderr.read().splitlines()
    assert process.wait(60) == 130
    assert last == "stopped; the same command resumes from the last checkpoint"


def test_a_proof_of_load_trains_nothing(folder):
    done = verify_ap(folder, ROW, "--pretrained", "r50.pth", "--tier", "load")
    assert done.returncode == 0
    assert f"318/318 tensors equal {folder / 'r50.pth'}" in done.stdout
    assert sorted(p.name for p in (folder / "work_dirs" / f"{ROW}-load").iterdir() if p.name[0] != ".") == [
        "config.py",
        "report.html",
        "report.json",
        "report.md",
        "request.json",
    ]


def test_a_dry_run_shows_the_recipe_and_does_nothing(folder):
    done = verify_ap(
        folder, ROW, "--pretrained", "r50.pth", "--tier", "full", "--gpus", "8", "--work-dir", "dry", "--dry-run"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert labels(done.stdout) == [
        "config",
        "purpose",
        "expected",
        "row",
        "recipe",
        "digest",
        "missing",
        "command",
        "dry",
    ]
    assert RECIPES[ROW].digest in done.stdout
    assert not (folder / "dry").exists()


def test_a_dry_run_on_several_nodes_says_who_runs_what(folder):
    said = (ROW, "--pretrained", "r50.pth", "--tier", "full", "--gpus", "4", "--nodes", "2", "--dry-run")
    torchrun = verify_ap(folder, *said)
    assert "--nnodes=2" in torchrun.stdout
    assert "nodes     verify-ap on the node of MASTER_ADDR" in torchrun.stdout
    slurm = verify_ap(folder, *said, "--launcher", "slurm")
    assert "command   srun --job-name=ckptconv --nodes=2 --ntasks=8 --ntasks-per-node=4 --gres=gpu:4" in slurm.stdout
    assert "\nnodes " not in slurm.stdout


def test_a_dry_run_as_json(folder):
    done = verify_ap(folder, ROW, "--pretrained", "r50.pth", "--tier", "full", "--gpus", "8", "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert (said["schema"], said["command"], said["dry_run"]) == (2, "verify-ap", True)
    assert said["digest"] == RECIPES[ROW].digest
    assert said["expected"]["ap"] == {"box": 38.0, "mask": 34.3}
    assert (said["images_per_step"], said["processes"], len(said["commands"])) == (16, 8, 1)


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("mocov2-mask-rcnn-r50-fpn-1"), 2, "there is no recipe 'mocov2-mask-rcnn-r50-fpn-1'"),
        ((ROW,), 2, f"{ROW} needs a converted checkpoint"),
        ((ROW, "-p", "nothing.pth"), 3, "nothing.pth"),
        ((ROW, "-p", "raw.pth"), 2, "raw.pth"),
        ((ROW, "-p", "r50.pth", "-t", "full"), 4, "--tier full needs a GPU, and this machine has none"),
        ((ROW, "-p", "r50.pth", "--amp"), 4, "--amp needs a GPU"),
        (
            (ROW, "-t", "eval", "--checkpoint", "r50.pth"),
            2,
            "annotations/instances_val2017.json, val2017/ are missing in data/coco/",
        ),
        ((ROW, "-p", "r50.pth", "--expect", "box=0.38"), 2, "AP is in percent here"),
        ((ROW, "-p", "r50.pth", "-t", "eval"), 2, "--tier eval needs a trained detector"),
        (("insloc200-mask-rcnn-r50-fpn-1x-detectron2", "-p", "r50.pth"), 2, "was trained with another framework"),
        (("mmdet::no/such.py",), 2, "no/such.py"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_is_one_sentence_with_a_hint(folder, args, status, says):
    done = verify_ap(folder, *([args] if isinstance(args, str) else args))
    assert (done.returncode, done.stdout) == (status, "")
    first, *hints = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert says in first
    assert hints
    assert all(hint.startswith("hint: ") for hint in hints)


def test_the_recipes_fit_into_80_columns_and_say_what_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "ckptconv", "recipes"], capture_output=True, text=True, check=True, timeout=60
    )
    _, *rows, note = [line.rstrip() for line in done.stdout.splitlines()]
    assert all(len(line) <= 80 for line in (*rows, note))
    named = [row.split()[0] for row in rows]
    assert named == [name if row.digest else f"{name}*" for name, row in RECIPES.items()]
    assert note.startswith("* trained with another framework")


def test_the_recipes_as_json_are_the_table():
    done = subprocess.run(
        [sys.executable, "-m", "ckptconv", "recipes", "--json"], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["recipes"] == [vars(row) for row in RECIPES.values()]


STEP = {
    "event": "step",
    "iteration": 120,
    "epoch": 5,
    "loss": 1.5,
    "losses": {f"loss_{name}": 0.25 for name in ("rpn_cls", "rpn_bbox", "cls", "bbox", "mask")},
    "lr": 5e-4,
    "seconds": 0.5,
    "data_seconds": 0.1,
    "memory_mib": 1536.0,
}


class Named:
    name = "converted-seed0"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_live_line_tells_all_and_fits(width):
    from rich.console import Console

    shown = _Live()
    for event in (
        {"event": "start", "iteration": 0, "iterations": 300, "epochs": 12},
        STEP | {"seconds": 99.0},
        STEP,
        {"event": "val", "iteration": 96, "ap": {"box": 21.75, "mask": 24.1}},
        STEP,
    ):
        shown.take(Named, event)
    console = Console(width=width)
    with console.capture() as printed:
        console.print(shown.lines(width))
    lines = printed.get().splitlines()
    assert all(len(line) <= width for line in lines)
    if width >= 80:
        for said in ("converted-seed0", "epoch 5/12", "120/300", "0:01:30 left", "loss 1.500", "1.6 GB", "box 21.8"):
            assert said in "\n".join(lines)


def test_on_a_terminal_the_line_stays_up_to_date_and_leaves_nothing_behind(folder):
    """The progress is on stderr: a terminal there, and a pipe for stdout."""
    here, there = pty.openpty()
    words = ["verify-ap", ROW, "--pretrained", "r18.pth", "--work-dir", "terminal", "--expect", "box=0"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "80", "TERM": "xterm"}
    environment["PYTHONPATH"] = str(forked.ROOT)
    with (folder / "terminal.out").open("wb") as stdout:
        command = [sys.executable, "-c", FORKING, *words]
        process = forked.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=there)
    os.close(there)
    seen = b""
    while True:
        try:
            read = os.read(here, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        seen += read
    os.close(here)
    assert process.wait(60) == 0
    out = (folder / "terminal.out").read_text()
    assert out.splitlines()[-1].startswith("verdict   pass: the chain works; ")
    assert b"\x1b" not in out.encode()
    told = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "epoch 2/2" in told
    assert "AP so far: box" in told
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", told))


@pytest.mark.parametrize(
    ("ap", "text"),
    [
        ({"box": 1.26, "mask": None}, "box 1.3"),
        ({"box": 0.0}, "box 0.0"),
        ({}, "0: no detection"),
        ({"box": None}, "none: no annotation counts"),
    ],
)
def test_an_evaluation_is_told_also_where_nothing_is_detected(ap, text):
    assert render_verification._ap({"ap": ap}) == text

"""The README is a transcript: its commands are run, in order and in one folder, and must print what it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import table
from ckptconv.mmdetection.config import training_commands
from tests.support import hollow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INPUTS = {
    "moco_v2_800ep_pretrain.pth.tar": "moco_v2_r50_legacy",
    "dino_resnet50_pretrain_full_checkpoint.pth": "dino_r50_full",
    "swav_800ep_pretrain.pth.tar": "swav_r50_released",
}
TOOL = ".venv/lib/python3.11/site-packages/mmdet/.mim/tools/train.py"


def test_the_tables_are_those_that_were_measured_and_are_known():
    """After a change: python -m benchmarks.table."""
    assert table.updated(README) == README


def test_the_diff_is_what_the_files_say():
    """Each hunk's new side is, word for word, in the file that it names."""
    (diff,) = blocks("diff")
    seen = 0
    for file, hunks in re.findall(r"^\+\+\+ b/(.*)\n((?:[@+ ].*\n)+)", diff, re.M):
        text = (ROOT / file).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*\n", hunks, flags=re.M)[1:]:
            assert re.sub(r"^[+ ]", "", hunk, flags=re.M) in text
            seen += 1
    assert seen == 3


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """Each `$ command` of the console blocks with the output shown below it."""
    shown = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            shown.append((command, output))
    return shown


def normal(text: str, folder: Path) -> str:
    """Times differ from run to run, paths from machine to machine, and nothing else; tables are padded with spaces."""
    for there, shown in (
        (str(training_commands.tool()), TOOL),
        (training_commands.python(), "python"),
        (f"{folder}/", "/home/you/"),
    ):
        text = text.replace(there, shown)
    return re.sub(r" +$", "", re.sub(r"\d+\.\d+ s\b", "T s", text), flags=re.M).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.support import tiny_coco

    folder = tmp_path_factory.mktemp("readme")
    tiny_coco.roboflow(folder / "rf", names=("ball", "box"))
    for file, layout in INPUTS.items():
        hollow.fill(layout, folder / file)
    (rules,) = blocks("toml")
    (folder / "mine.toml").write_text(rules)
    for code in blocks("python"):
        if code.startswith("# raw.py\n"):
            (folder / "raw.py").write_text(code)
    return folder


def test_the_readme_shows_every_command():
    words = {shlex.split(command)[1] for command, _ in commands() if command.startswith("ckptconv ")}
    assert words == {
        "convert",
        "inspect",
        "explain",
        "emit-config",
        "check",
        "verify-ap",
        "releases",
        "methods",
    }  # `recipes` is a table as wide as the terminal


@pytest.mark.parametrize(("command", "output"), commands(), ids=[c for c, _ in commands()])
def test_transcript(folder, command, output):
    if command.startswith("cat "):
        assert (folder / command.removeprefix("cat ")).read_text() == output
        return
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # as on a terminal
        text=True,
        check=False,
        timeout=120,
    )
    printed = done.stdout + (f"[exit {done.returncode}]" if done.returncode else "")
    assert normal(printed, folder) == normal(output, folder)


PROGRAMS = [code for code in blocks("python") if not code.startswith("# raw.py\n")]


@pytest.mark.parametrize("code", PROGRAMS, ids=range(len(PROGRAMS)))
def test_python(folder, code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr

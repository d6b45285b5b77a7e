"""`--help`: each command has two examples that work, and its options in groups."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ckptconv.cli.examples import EXAMPLES
from tests.cli.test_cli import ckptconv
from tests.support import forked, hollow

COMMANDS = [*EXAMPLES]
RESULTS = Path(__file__).parents[2] / "benchmarks/results/ap"
"""Reports of verify-ap that are committed."""
NEEDED = {"check": "mmdet", "verify-ap": "mmdet", "emit-config": "mmdet", "doctor": "mmdet"}
ADDED = {"verify-ap": ["--dry-run"], "cache list": ["--cache-dir", "cache"], "cache clear": ["--cache-dir", "cache"]}
"""What a test adds to an example: nothing is trained, and nobody's cache is touched."""
EXIT = {"ckptconv diff moco_v2.pth swav_800ep.pth --all": 1}
"""Examples whose answer is no. Full training needs COCO and GPUs: where they are missing, the exit code is 2 or 4."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the examples name."""
    where = tmp_path_factory.mktemp("examples")
    hollow.fill("moco_v2_r50", where / "moco_v2.pth")
    hollow.fill("swav_r50_released", where / "swav_800ep.pth")
    (where / "cache").mkdir()
    for name, result in {"moco-lift": "lift", "swav-lift": "lift-of-random-weights"}.items():
        (where / "work_dirs" / name).mkdir(parents=True)
        shutil.copy(RESULTS / f"{result}.json", where / "work_dirs" / name / "report.json")
    return where


def typed(folder, words, server):
    """A command as a shell runs it in the folder, with its wildcards expanded."""
    words = [found for word in words for found in (sorted(map(str, folder.glob(word))) if "/*" in word else [word])]
    command = [sys.executable, "-m", "ckptconv", *words]
    return forked.run(command, env={**os.environ}, server=server, cwd=folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_two_examples(command):
    shown = " ".join(ckptconv(*command.split(), "--help", COLUMNS="200").stdout.split())
    assert len(EXAMPLES[command]) == 2
    for example, purpose in EXAMPLES[command].items():
        assert example.startswith(f"ckptconv {command}")
        assert f"{example} # {purpose}" in shown


def test_every_command_has_examples():
    listed = ckptconv("--help", COLUMNS="200").stdout
    names = {line.split()[1] for line in listed.splitlines() if line.startswith("│ ") and line[2].isalpha()}
    assert {command.split()[0] for command in COMMANDS} == names


def test_the_options_of_large_commands_are_in_groups():
    for command, groups in {
        "convert": ["What is taken from the file", "What is written", "Files from the network"],
        "emit-config": ["The detector", "The data", "The training"],
        "verify-ap": ["The data", "The training", "The verdict"],
    }.items():
        shown = ckptconv(command, "--help").stdout
        assert [title for title in groups if f"╭─ {title} ─" in shown] == groups


def test_the_examples_work(folder):
    written = set()
    for command, examples in EXAMPLES.items():
        if command in NEEDED and find_spec(NEEDED[command]) is None:
            continue
        for example in examples:
            words = shlex.split(example)[1:] + ADDED.get(command, [])
            done = typed(folder, words, forked.MMDETECTION if command in NEEDED else forked.COMMANDS)
            expected = {EXIT.get(example, 0)} if "--tier full" not in example else {0, 2, 4}
            assert done.returncode in expected, (example, done.stdout[-500:], done.stderr[-500:])
            assert done.stdout or done.returncode > 1, example
            written.add(example)
    assert {"ckptconv convert moco_v2.pth moco_r50.pth"} < written

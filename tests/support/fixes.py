"""What `check` prints to be typed, typed: each line is put into the config, or run, and then `check` passes."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

import ckptconv
from ckptconv.cli.spelling import spell
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.evidence import Finding
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.check.verdict import CheckReport
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.options import choose
from tests.support import converted

BY_HAND = (
    r"Change init_weights\(\) of \w+: keep what init_cfg loads",
    r"Call super\(\)\.init_weights\(\) in init_weights\(\) of \w+",
    r"Pass it on in \w+: super\(\)\.__init__\(init_cfg=init_cfg\)",
    r"Give \w+ an init_cfg where it is built",
    r"Give the data set a pipeline without \w+",
    r"Change the code of \w+ and \w+: keep the channels as the preprocessor gives them",
    r"Change the data set: take its images through its pipeline",
    r"Change train\(\) of \w+: keep the weights as they are",
    r"Use a checkpoint that has running_mean and running_var: without them .*",
    r"ckptconv inspect \S+(, to see what it is)?",
    r"Do not patch \w+ of \w+",
    r"rm \S+",
    r".*https?://.*",  # the test's own server is gone by then, and a signature is never printed
)
"""What no line in a config fixes: Python code of the user's, another file. `test_fooled` types some of them."""

NOTHING = (
    r"not proved: \S+ has the values of \d+ tensors? of \w+ under .* check cannot tell whether these are right",
    r"not proved: its class .* not found in it: .*",
    r"not proved: \d+ parameters? of \S+ not in any file: .* check cannot tell whether a checkpoint should have them",
    r"the initialisation fails: .*",
)
"""Findings that have nothing to type: nobody knows what is meant."""


@dataclass(frozen=True)
class Seen:
    """A config as it was when it was checked, and what was found."""

    folder: Path
    path: str
    text: str
    found: CheckReport
    syspath: tuple[str, ...]


def require_typed(seen: Seen) -> None:
    """Every line of every finding works: with it, and the first of each other finding, the config passes."""
    findings = list(dict.fromkeys(seen.found.findings))
    for finding in findings:
        assert finding.fixes or any(re.fullmatch(one, finding.text, re.S) for one in NOTHING), (
            f"no hint: {finding.text}"
        )
    printed = [[spell(line) for line in finding.fixes] for finding in findings]
    lines = [[line for line in one if not any(re.fullmatch(hand, line) for hand in BY_HAND)] for one in printed]
    if not all(lines):
        return  # one of them is fixed by hand, and the rest does not pass without it
    before, schemes = sys.path[:], CheckpointLoader._schemes
    sys.path[:0] = seen.syspath
    CheckpointLoader._schemes = dict(schemes)
    sys.modules.pop("ckptconv.mmdetection.loader", None)  # it registers itself when it is imported first
    try:
        with _inside(seen.folder):
            for i, alternatives in enumerate(lines):
                for line in alternatives:
                    others = [other[0] for j, other in enumerate(lines) if j != i]
                    _require_passes(seen, [line, *others], findings[i])
    finally:
        sys.path[:], CheckpointLoader._schemes = before, schemes


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _require_passes(seen: Seen, lines: list[str], finding: Finding) -> None:
    original, fixed = Path("as_it_was.py"), Path("fixed.py")
    original.write_text(seen.text)
    settings = runtime.read_config(original, imports=False)
    name = str(fixed)
    for line in dict.fromkeys(lines):
        for part in re.split(r", then |; ", line):
            new = _typed(part, settings, original)
            name = new or name
    if name == str(fixed):
        settings.dump(name)
    again = check(name)
    for written in (original, fixed):
        written.unlink(missing_ok=True)
    assert again.good, f"{finding.text}\n{lines} does not fix it: {[f.text for f in again.findings]}"


def _typed(part: str, settings: Any, original: Path) -> str:
    """Type one part of a line. Returns a config that it wrote, if it wrote one."""
    if part.startswith("ckptconv "):
        return _command(shlex.split(part)[1:], original)
    part = re.sub(r", (without a prefix|which reads it .*)$", "", part)
    if without := re.fullmatch(r"([\w.\[\]]+): remove (\w+)", part):
        *steps, last = without[1].split(".")
        node = _at(settings, steps)
        kept = [step for step in node[last] if str(step.get("type")).rpartition(".")[2] != without[2]]
        assert len(kept) < len(node[last]), part
        node[last] = kept
        return ""
    if several := re.fullmatch(r"([\w.\[\]]+): (\w+=.*)", part):
        node = _at(settings, several[1].split("."))
        values = eval(f"dict({several[2]})")
        node.update(values)
        return ""
    path, mark, value = part.partition("=")
    assert mark, f"cannot be typed: {part}"
    *steps, last = path.strip().split(".")
    _at(settings, steps)[last] = eval(value)
    return ""


def _at(settings: Any, steps: list[str]) -> Any:
    node = settings
    for step in steps:
        step, *numbers = re.split(r"[\[\]]+", step.rstrip("]"))
        if numbers:
            node = node[step][int(numbers[0])]
            continue
        if node.get(step) is None:
            node[step] = {}
        node = node[step]
    return node


def _command(words: list[str], original: Path) -> str:
    if words[0] == "convert":
        *options, source, target = words[1:]
        method = options[1] if options[:1] == ["--selfsup"] else "auto"
        assert options in ([], ["--selfsup", method]), words
        ckptconv.convert(source, target, method, force=True)
        return ""
    assert words == ["emit-config", "--base", words[2], "--out", "NEW.py", "CKPT"], words
    emit.write(
        str(converted.convert(Path(), "of_the_hint.pth", force=True)), Path("NEW.py"), choose(base=str(original)), True
    )
    return "NEW.py"

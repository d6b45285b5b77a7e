"""README.md and the guide: what they show is what the program prints, and what they name exists."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

from ckptconv import guide
from ckptconv.cli.app import app
from tests.support import generated, picture, transcripts

ROOT = transcripts.ROOT
PAGES = transcripts.pages()
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
RUN = [
    pytest.param(name, mmdetection, marks=[pytest.mark.mmdet] * mmdetection, id=f"{name}{'-mmdet' * mmdetection}")
    for name, text in TEXTS.items()
    for mmdetection in (False, True)
    if transcripts.steps(text, mmdetection)
]
SLOW = ("check", "verify-ap")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = transcripts.make_inputs(tmp_path_factory.mktemp("inputs"))
    yield folder
    shutil.rmtree(folder)  # a gigabyte


@pytest.fixture(scope="module")
def printed():
    """What slow commands printed for the same config on another page."""
    return {}


@pytest.mark.torch
@pytest.mark.parametrize(("name", "mmdetection"), RUN)
def test_a_page_shows_what_its_commands_print(name, mmdetection, inputs, printed, tmp_path):
    """Write what they print now: python -m tests.support.transcripts PAGE."""
    todo = transcripts.steps(TEXTS[name], mmdetection)
    transcripts.prepare(tmp_path, inputs, TEXTS[name], todo)
    for step in todo:
        output = transcripts.normal(_output(step, tmp_path, printed))
        assert output == transcripts.normal(step.output), f"{name}: {step}"


def _output(step: transcripts.Step, folder: Path, printed: dict[object, str]) -> str:
    words = step.command.split()
    if step.program or words[1] not in SLOW:
        return transcripts.shown(transcripts.run(step, folder), folder)
    key = (
        step.command,
        *(
            (folder / word).read_text()
            for word in words
            if (folder / word).suffix == ".py" and (folder / word).exists()
        ),
    )
    if key not in printed:
        printed[key] = transcripts.shown(transcripts.run(step, folder), folder)
    return printed[key]


def test_the_picture_shows_what_the_pages_show():
    """Make it again: python -m tests.support.picture."""
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.make()
    assert "equal" in picture.make()


@pytest.mark.parametrize("page", generated.PARTS)
def test_what_is_made_from_the_package_is_as_the_package_is(page):
    """Make it again: python -m tests.support.generated."""
    assert generated.updated(page) == TEXTS[page]


def test_the_measurements_are_those_that_were_made():
    """Make them again: python -m benchmarks.table."""
    from benchmarks import table

    assert table.updated(TEXTS["measurements"]) == TEXTS["measurements"]


def test_the_readme_is_short_and_links_every_page():
    assert len(TEXTS["README"].splitlines()) <= 250
    for topic in guide.topics():
        assert f"| [{topic.name}](ckptconv/guide/{topic.name}.md) | " in TEXTS["README"]


def test_the_readme_shows_the_main_commands():
    shown = {
        shlex.split(s.command)[1] for m in (False, True) for s in transcripts.steps(TEXTS["README"], m) if not s.program
    }
    assert {"convert", "emit-config", "check", "verify-ap"} <= shown


def _anchors(text: str) -> set[str]:
    """What GitHub makes of headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_that_are_there(name):
    links = re.findall(r"\]\(([^)]+)\)", re.sub(r"^```.*?^```$", "", TEXTS[name], flags=re.M | re.S))
    for link in (link for link in links if not link.startswith("https://")):
        file, _, anchor = link.partition("#")
        path = (PAGES[name].parent / file).resolve() if file else PAGES[name]
        assert path.is_file(), link
        assert ROOT in path.parents
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), link


COMMANDS = get_command(app).commands
OPTIONS = {
    option
    for c in COMMANDS.values()
    for p in getattr(c, "commands", {"": c}).values()
    for o in p.params
    for option in o.opts
}
OTHERS = {
    "--index-url", "--no-build-isolation", "--no-binary",  # pip
    "--auto-scale-lr", "--nproc_per_node", "--launcher",  # MMDetection's tools/train.py, torch.distributed.run
    "--device",  # benchmarks.vit_cost
    "--json", "--help", "--version",
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_options_that_a_page_names_exist(name):
    """In text and in blocks that no test runs; the others are run."""
    text = re.sub(r"^```(?:console|diff|py|python|toml)\n.*?^```$", "", TEXTS[name], flags=re.M | re.S)
    for command, rest in re.findall(r"(?:^|`|\$ |: )ckptconv ([a-z]+(?:-[a-z]+)*)([^`\n]*)", text, re.M):
        assert command in COMMANDS, command
        parsed = COMMANDS[command]
        known = {
            option
            for one in getattr(parsed, "commands", {"": parsed}).values()
            for p in one.params
            for option in p.opts
        }
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) <= known | {"--help"}, (command, rest)
    code = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]*", " ".join(re.findall(r"`([^`]+)`", code))):
        assert option in OPTIONS | OTHERS, option


def test_the_diff_is_what_the_files_say():
    """Each hunk's new side is, word for word, in the file that it names."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", TEXTS["contributing"], re.M | re.S)
    seen = 0
    for file, hunks in re.findall(r"^\+\+\+ b/(.*)\n((?:[@+ ].*\n)+)", diff, re.M):
        text = (ROOT / file).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*\n", hunks, flags=re.M)[1:]:
            assert re.sub(r"^[+ ]", "", hunk, flags=re.M) in text
            seen += 1
    assert seen == 3

"""What a shell is offered for a half-typed word, and the hint for a word that is no command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckptconv.backbones import TARGETS
from ckptconv.cli.app import app
from ckptconv.cli.other_words import MEANT
from ckptconv.methods import METHODS, registry
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES
from ckptconv.mmdetection.verify.recipes import RECIPES
from ckptconv.mmdetection.verify.tiers import TIERS
from tests.support import environments, forked, hollow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    hollow.fill("moco_v2_r50_legacy", folder / "moco_v2.pth")
    (folder / "broken.pth").write_text("no checkpoint")
    return folder


def offered(folder: Path, *words: str) -> list[str]:
    """What bash is offered for the last of the words that follow the command."""
    line = {"COMP_WORDS": " ".join(("ckptconv", *words)), "COMP_CWORD": str(len(words))}
    done = environments.run(forked.COMMANDS, folder=folder, **line, _CKPTCONV_COMPLETE="complete_bash")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


RELEASES = list(registry.releases())


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("convert", "--selfsup", "mo"), [name for m in METHODS for name in (m.name, *m.aliases)]),
        (("convert", "-m", "au"), ["auto"]),
        (("diff", "--method-b", "sw"), [name for m in METHODS for name in (m.name, *m.aliases)]),
        (("methods", "din"), [name for m in METHODS for name in (m.name, *m.aliases)]),
        (("convert", "--target", "t"), list(TARGETS)),
        (("emit-config", "--detector", "ca"), list(DETECTORS)),
        (("emit-config", "-s", "m"), list(SCHEDULES)),
        (("verify-ap", "x.py", "--tier", "l"), list(TIERS)),
        (("verify-ap", "mocov2-"), list(RECIPES)),
        (("convert", "swav"), RELEASES),
        (("inspect", "moco_v"), [*RELEASES, "moco_v2.pth"]),
    ],
)
def test_names_are_offered(folder: Path, words: tuple[str, ...], names: list[str]) -> None:
    fitting = [name for name in names if name.startswith(words[-1])]
    assert fitting
    assert offered(folder, *words) == fitting


def test_keys_of_the_file_are_offered(folder: Path) -> None:
    start = "module.encoder_q.layer1.0.conv"
    assert offered(folder, "explain", "moco_v2.pth", start) == [f"{start}{i}.weight" for i in (1, 2, 3)]


@pytest.mark.parametrize("words", [("explain", "broken.pth", "x"), ("explain", "none.pth", "x"), ("convert", "mo.no")])
def test_nothing_is_offered_and_nothing_fails(folder: Path, words: tuple[str, ...]) -> None:
    assert offered(folder, *words) == []  # then the shell offers files


def test_completion_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; from ckptconv.cli import completion as c\n"
        "c.methods('m'), c.sources('sw'), c.detectors('m'), c.tiers('l'), c.configs('m'), c.targets('t')\n"
        "print([m for m in ('torch', 'numpy', 'requests', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("word", MEANT)
def test_another_word_for_a_command_leads_to_it(folder: Path, word: str) -> None:
    commands = {command.name for command in app.registered_commands}
    assert word not in commands
    assert set(re.findall(r"ckptconv ([a-z-]+)", MEANT[word])) <= commands


def test_the_hint_for_another_word(folder: Path) -> None:
    done = environments.run(forked.COMMANDS, "train", folder=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: no such command 'train'", f"hint: {MEANT['train']}"]
    done = environments.run(forked.COMMANDS, "Conv_ert", folder=folder)
    assert done.stderr.splitlines()[-1] == "hint: See ckptconv --help."

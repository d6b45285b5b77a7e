"""`ckptconv guide`: every page, as Markdown for a program and as text for a person."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckptconv import guide

NAMES = [topic.name for topic in guide.topics()]


def ckptconv(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptconv", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env}, timeout=60)


def test_every_page_is_a_topic():
    assert sorted(NAMES) == sorted(path.stem for path in Path(guide.__file__).parent.glob("*.md"))


@pytest.mark.parametrize("topic", guide.topics(), ids=NAMES)
def test_a_page_begins_with_its_title_and_one_sentence(topic):
    title, empty, sentence, after = topic.text().splitlines()[:4]
    assert re.fullmatch(r"# \S.*", title)
    assert (empty, after) == ("", "")
    assert re.fullmatch(r"This page [^.]*\.", sentence)
    assert sentence.replace("`", "") == f"This page {topic.summary()}."


def test_the_topics_are_listed():
    done = ckptconv("guide")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[: len(NAMES)]] == NAMES
    assert lines[0] == "quickstart      takes you from a raw checkpoint to a detector that trains"
    assert lines[-1] == "Show one: ckptconv guide TOPIC"


@pytest.mark.parametrize("topic", guide.topics(), ids=NAMES)
def test_a_pipe_gets_the_markdown(topic):
    done = ckptconv("guide", topic.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, topic.text(), "")


def terminal(*words: str, **env: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    process = subprocess.Popen([sys.executable, "-m", "ckptconv", *words], stdout=slave, env=environment)
    os.close(slave)
    printed = b""
    try:
        while part := os.read(master, 1 << 16):
            printed += part
    except OSError:  # EIO: the last writer has closed it
        pass
    os.close(master)
    assert process.wait() == 0
    return printed.decode()


def test_a_terminal_gets_text():
    shown = terminal("guide", "check")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "\x1b[" in shown
    assert "What it finds" in plain
    assert "• Nothing was loaded;" in plain
    assert "```" not in plain
    assert "](" not in plain
    assert max(map(len, plain.splitlines())) == 100


def test_a_link_is_the_command_that_shows_the_page():
    assert "[sources](sources.md)" in guide.topic("troubleshooting").text()
    assert "See sources (`ckptconv guide sources`)." in guide.topic("troubleshooting").for_terminal()
    assert not any(re.search(r"\]\([\w-]+\.md\)", topic.for_terminal()) for topic in guide.topics())


def test_no_colour_without_colours():
    coloured = r"\x1b\[[0-9;]*3[0-9]m"
    assert re.search(coloured, terminal("guide", "rules"))
    assert not re.search(coloured, terminal("guide", "rules", NO_COLOR="1"))


def test_a_wrong_topic_names_the_near_ones():
    done = ckptconv("guide", "trainig")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no topic 'trainig'\nhint: Did you mean training?\n"
    done = ckptconv("guide", "xyz")
    assert (done.returncode, done.stderr.splitlines()[1]) == (2, f"hint: Known: {', '.join(NAMES)}.")


def test_topics_are_completed():
    words = {"COMP_WORDS": "ckptconv guide t", "COMP_CWORD": "2", "_CKPTCONV_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv[0] = 'ckptconv'; from ckptconv.cli import main; main()"  # as the installed script
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **words}
    )
    assert (done.returncode, done.stdout.split()) == (0, ["training", "targets", "troubleshooting"])

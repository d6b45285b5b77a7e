"""What a terminal shows of a command that works for a while, and how Ctrl-C ends it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ckptconv.cli import waiting
from ckptconv.sources.interface import Fetching

LONG = 60.0  # seconds that a command would go on for
SOON = 30.0  # a busy machine's "at once"
STAGES = """
import time
from ckptconv.cli import waiting
with waiting.stage("reading [a].py", {as_json}) as stage:
    time.sleep(0.5)
    stage("comparing \\x1b[31m120 tensors")
    time.sleep(0.5)
print("done")
"""


class Terminal:
    """A command on a terminal of its own. Ctrl-C reaches it even where whoever started the tests ignores it."""

    def __init__(self, words: list[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.shown = b""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(cwd or ".")
            os.execve(words[0], words, {**os.environ, "TERM": "xterm", **(env or {})})

    def read(self, until: bytes = b"\0", seconds: float = LONG) -> bytes:
        """What is shown, until this is among it or all is over."""
        end = time.monotonic() + seconds
        while until not in self.shown and time.monotonic() < end:
            if select.select([self._end], [], [], 0.1)[0]:
                try:
                    part = os.read(self._end, 1 << 16)
                except OSError:  # Linux's word for the end of a terminal
                    break
                if not part:
                    break
                self.shown += part
        return self.shown

    def ctrl_c(self) -> None:
        os.write(self._end, b"\x03")

    def status(self) -> int:
        self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._end)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal() -> Iterator[type[Terminal]]:
    made: list[Terminal] = []

    class Noted(Terminal):
        def __init__(self, *args: object, **more: object) -> None:
            made.append(self)
            super().__init__(*args, **more)  # type: ignore[arg-type]

    yield Noted
    for one in made:
        if one.pid:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_terminal_shows_what_is_done_and_nothing_of_it_is_left(terminal):
    shown = terminal(script(STAGES.format(as_json=False)), {"NO_COLOR": "1"}).read()
    assert b"reading [a].py" in shown
    assert rb"comparing \x1b[31m120 tensors" in shown
    *_, last = shown.split(b"\x1b[2K")  # the line is erased
    assert last == b"done\r\n"
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # and the cursor is back
    assert b"\x1b[32m" not in shown


def test_json_has_no_stages_on_a_terminal(terminal):
    assert terminal(script(STAGES.format(as_json=True))).read() == b"done\r\n"


def test_a_pipe_has_no_stages():
    done = subprocess.run(script(STAGES.format(as_json=False)), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_the_bar_of_a_download_takes_the_place_of_the_line():
    class Shown:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def update(self, text: str) -> None:
            self.calls.append(text)

        def start(self) -> None:
            self.calls.append("start")

        def stop(self) -> None:
            self.calls.append("stop")

    shown = Shown()
    stage = waiting.Stage(shown)  # type: ignore[arg-type]
    fetching = stage.making_room(Fetching(progress=lambda done, total: shown.calls.append(f"{done}/{total}")))
    stage("building")
    assert fetching.progress is not None
    fetching.progress(1, 2)
    stage("comparing")
    assert shown.calls == ["building", "start", "stop", "1/2", "comparing", "start"]


DEAF = {
    "a library that catches it": """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
    "code that is not Python": """
    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
""",
    "nothing of the kind": """
    time.sleep(60)
""",
}
WAITS = """
import hashlib, signal, sys, time
from ckptconv.cli import main, waiting
signal.signal(signal.SIGINT, signal.default_int_handler)
def examine(as_json=False):
  with waiting.stage("working"):
    print("ready", file=sys.stderr, flush=True)
{body}
from ckptconv.cli import app
app.app.command("wait")(examine)
sys.argv = ["ckptconv", "wait"]
main()
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", DEAF.values(), ids=DEAF)
def test_a_signal_ends_it_whatever_runs(body, sent):
    with subprocess.Popen(script(WAITS.format(body=body)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(sent)
        start = time.monotonic()
        try:
            assert process.stderr.read() == ""
            assert process.wait(SOON) == 128 + sent
        finally:
            process.kill()
        assert time.monotonic() - start < SOON


def test_what_was_told_of_signals_before_is_told_again():
    before = signal.set_wakeup_fd(-1)
    with waiting.ending():
        assert signal.set_wakeup_fd(-1) >= 0
    assert signal.set_wakeup_fd(before) == -1


def test_doctor_leaves_no_process_behind(tmp_path):
    """Its children import torch and more, and do not hear a signal that is sent to their parent alone."""
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom ckptconv.cli import main; main()"
    )
    wrapped = [*script(start), "doctor"]
    with subprocess.Popen(wrapped, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + LONG
        while not (children := _naming(tmp_path)) and time.monotonic() < end:
            time.sleep(0.02)
        assert children
        process.send_signal(signal.SIGINT)
        assert (process.wait(SOON), process.stderr and process.stderr.read()) == (130, b"")
    end = time.monotonic() + SOON
    while (left := _naming(tmp_path)) and time.monotonic() < end:  # they are killed, and may need a moment to end
        time.sleep(0.02)
    assert not left


def _naming(folder: Path) -> list[str]:
    """The processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if f"{folder}/ckptconv-doctor-".encode() in words:
            found.append(path.parent.name)
    return found


@pytest.mark.mmdet
def test_check_says_what_it_does_and_stops_in_the_middle(terminal, tmp_path):
    (tmp_path / "detector.py").write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\nmodel = dict(backbone=dict(init_cfg=None))\n"
    )
    words = [sys.executable, "-m", "ckptconv", "check", "detector.py"]
    whole = terminal(words, cwd=tmp_path)
    shown = whole.read()
    at = [shown.index(text) for text in (b"reading detector.py", b"importing MMDetection", b"initialising", b"verdict")]
    assert at == sorted(at)
    assert whole.status() == 1
    for moment in (b"reading", b"importing", b"initialising"):
        stopped = terminal(words, cwd=tmp_path)
        stopped.read(moment)
        stopped.ctrl_c()
        assert stopped.status() == 130
        assert b"Traceback" not in stopped.shown
        assert b"verdict" not in stopped.shown

"""A copy of the fork server is, for what tests look at, the process that `subprocess` would have started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import forked

pytestmark = [pytest.mark.mmdet, pytest.mark.skipif(sys.platform != "linux", reason="the server is for Linux")]

DESCRIBED = """
import atexit, json, os, signal, sys, warnings
seen = {
    "argv": sys.argv,
    "cwd": os.getcwd(),
    "env": {k: v for k, v in os.environ.items() if k not in ("CKPTCONV_TESTS_FORK_SERVER", "LC_CTYPE")},
    "path": sys.path,
    "main": sorted(k for k in vars(sys.modules["__main__"]) if k[:2] != "__"),
    "streams": [(s.fileno(), s.encoding, s.errors, s.line_buffering, s.isatty()) for s in (sys.stdout, sys.stderr)],
    "filters": [(f[0], f[2].__name__, str(f[3] and getattr(f[3], "pattern", f[3]))) for f in warnings.filters],
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP)],
    "open": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
    "read": sys.stdin.read(),
    "ours": sorted(n for n in sys.modules if n.split(".")[0] in ("ckptconv", "tests")),
    "session": os.getsid(0) == os.getpid(),
}
print(json.dumps(seen))
atexit.register(print, "the end")
"""


Done = subprocess.CompletedProcess[str]


def both(words: list[str], server: forked.Server = forked.MMDETECTION, **options: Any) -> tuple[Done, Done]:
    command = [sys.executable, *words]
    real = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)
    return real, forked.run(command, server=server, **options)


@pytest.mark.parametrize("server", [forked.MMDETECTION, forked.COMMANDS], ids=["mmdetection", "commands"])
@pytest.mark.parametrize("how", ["-c", "-m", "file", "-W"])
def test_a_copy_is_as_a_process(tmp_path: Path, how: str, server: forked.Server) -> None:
    (tmp_path / "described.py").write_text(DESCRIBED)
    words = {
        "-c": ["-c", DESCRIBED],
        "-m": ["-m", "described"],
        "file": ["described.py"],
        "-W": ["-W", "error", "-u", "-W", "ignore::UserWarning", "-c", DESCRIBED],
    }[how]
    env = {**os.environ, "PYTHONPATH": "/no/such:/nor/this", "MINE": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}
    env.pop("OMP_NUM_THREADS", None)
    real, copy = both([*words, "a b", ""], server, cwd=tmp_path, env=env)
    assert (copy.returncode, copy.stderr) == (real.returncode, real.stderr) == (0, "")
    expected, found = (json.loads(done.stdout.splitlines()[0]) for done in (real, copy))
    assert expected.pop("ours") == []
    assert bool(found.pop("ours")) == (server is forked.COMMANDS)
    assert found == expected
    assert copy.stdout.splitlines()[1:] == real.stdout.splitlines()[1:] == ["the end"]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.exit('in words')",
        "raise KeyError('x')",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os; print('lost', end=''); os._exit(5)",
        "raise KeyboardInterrupt",
        "import sys; sys.stdout.write(chr(0xd800))",
    ],
)
def test_an_end_is_the_same_end(code: str) -> None:
    real, copy = both(["-c", code])
    assert (copy.returncode, copy.stdout) == (real.returncode, real.stdout)
    assert copy.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_copies_draw_other_numbers_and_have_torch() -> None:
    code = "import sys, random; t = sys.modules['torch']; n = sys.modules['numpy']; "
    code += "print(random.random(), float(t.rand(())), n.random.rand(), t.get_num_threads())"
    drawn = [forked.run([sys.executable, "-c", code]).stdout.split() for _ in range(2)]
    assert not set(drawn[0][:3]) & set(drawn[1][:3])
    assert drawn[0][3] == "1"


def test_a_copy_is_waited_for_stopped_and_given_descriptors() -> None:
    held, other = os.pipe()
    code = f"import os, time; os.write({other}, b'here'); time.sleep(60)"
    process = forked.Popen([sys.executable, "-c", code], pass_fds=[other], start_new_session=True)
    assert os.read(held, 4) == b"here"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    assert os.getpgid(process.pid) == process.pid
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(10) == process.poll() == -signal.SIGTERM
    assert not Path(f"/proc/{process.pid}").exists()
    for descriptor in (held, other):
        os.close(descriptor)


def test_several_run_at_once_and_a_copy_starts_another(tmp_path: Path) -> None:
    code = "import sys, time, pathlib\npathlib.Path(sys.argv[1]).touch()\n"
    code += "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    first, second = (
        forked.Popen([sys.executable, "-c", code, str(tmp_path / a), str(tmp_path / b)]) for a, b in ("xy", "yx")
    )
    assert (first.wait(20), second.wait(20)) == (0, 0)
    inner = "import sys; from tests.support import forked; print(forked.run([sys.executable, '-c', 'print(7)']).stdout)"
    env = {**os.environ, "PYTHONPATH": str(forked.ROOT)}
    assert forked.run([sys.executable, "-c", inner], env=env).stdout.split() == ["7"]


def test_what_takes_seconds_to_import_is_there() -> None:
    code = "import mmdet.models, mmengine.runner, time; print(time.process_time())"
    assert float(forked.run([sys.executable, "-W", "ignore", "-c", code]).stdout) < 1


def test_what_torchrun_starts_are_copies(tmp_path: Path) -> None:
    code = "import os, sys; rank = os.environ['RANK']; loaded = 'mmdet.models' in sys.modules; "
    code += "open(rank, 'w').write(f'{loaded} {sys.argv[1]}'); sys.exit(3 * int(rank))"
    (tmp_path / "rank.py").write_text(code)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "rank.py", "x"]
    done = forked.run(words, cwd=tmp_path)
    assert done.returncode == 1
    assert "exitcode  : 3" in done.stderr
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["True x"] * 2

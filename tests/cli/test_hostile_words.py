"""Whatever is typed or named, one sentence comes of it: no traceback, and nothing that steers a terminal."""

from __future__ import annotations

import gc
import json
import os
import pickle
import pty
import re
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptconv.cli import main
from ckptconv.errors import CkptconvError, UsageError
from ckptconv.methods import rule_file as method_toml
from tests.support import broken, forked

EVIL = "\x1b[31mred\x1b]0;title\x07\r\u202eabc\x9b2J[red]\u2066"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SGR = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[lh]|\x1b\\[[0-9]*[AK]")  # what typer and rich write themselves


def run(*words: object, script: str = "from ckptconv.cli import main; main()", **env: str):
    command = [sys.executable, "-c", script, *map(str, words)]
    return forked.run(command, env={**os.environ, **env}, errors="replace", server=forked.COMMANDS)


def in_a_terminal(*words: object) -> str:
    """What a command prints when both its outputs are a terminal with colours."""
    leader, follower = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "ckptconv", *map(str, words)]
    process = forked.Popen(command, stdout=follower, stderr=follower, env=env, server=forked.COMMANDS)
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not part:
            break
        seen += part
    os.close(leader)
    process.wait()
    return seen.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def checkpoint(path: Path, names: list[str], section: str = "state_dict") -> Path:
    """A torch file whose tensors have these names."""

    def text(word: str) -> bytes:
        encoded = word.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(encoded)) + encoded

    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0000X\x03\0\0\0cpuK\x04tQ"
        b"K\0(K\x04t(K\x01t\x89ccollections\nOrderedDict\n)RtR"
    )
    items = b"".join(text(name) + tensor for name in names)
    content = b"\x80\x02}(" + text(section) + b"}(" + items + b"u" + text(EVIL) + b"c" + b"os\nsystem\nu."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 16)
        archive.writestr("archive/version", b"3\n")
    return path


# -- a terminal ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    names = [f"conv1.weight{EVIL}", f"conv1.weight\nerror: a second line{EVIL}", "conv1.weight[link=http://x]y[/link]"]
    checkpoint(folder / "names.pth", names)
    checkpoint(folder / "section.pth", names, f"sec{EVIL}\ntion")
    checkpoint(folder / f"file{EVIL}.pth", ["conv1.weight"])
    (folder / "rules.toml").write_text(f"name = {json.dumps(EVIL)}\nrules = []")
    (folder / "title.toml").write_text(
        f'name = "mine"\ntitle = {json.dumps(f"title[red]x[/red]{EVIL}")}\npaper = {json.dumps(EVIL)}\n'
        f'rules = [{{keep = "a.{{key...}}", to = "{{key...}}"}}, {{drop = "b.{{p...}}", why = {json.dumps(EVIL)}}}]'
    )
    (folder / "entry.toml").write_text(f"name = 'mine'\n{json.dumps(EVIL)} = 1")
    return folder


COMMANDS = [
    ["inspect", "{}/names.pth"],
    ["inspect", "{}/names.pth", "--all"],
    ["inspect", "{}/section.pth"],
    ["inspect", f"{{}}/file{EVIL}.pth"],
    ["inspect", f"{{}}/none{EVIL}\nerror: another.pth"],
    ["diff", "{}/names.pth", f"{{}}/file{EVIL}.pth"],
    ["diff", "{}/names.pth", "{}/section.pth", "--all"],
    ["diff", "{}/names.pth", "{}/names.pth", "--method-b", EVIL],
    ["explain", f"{{}}/file{EVIL}.pth", "conv2.weight"],
    ["convert", f"{{}}/file{EVIL}.pth", "{}/out.pth"],
    ["methods", "--fits", f"{{}}/file{EVIL}.pth"],
    ["inspect", f"https://example.org/{EVIL}"],
    ["inspect", f"moco_v2_800e{EVIL}"],
    ["explain", "{}/names.pth", "conv1.weight"],
    ["explain", "{}/names.pth", f"conv1.weigh{EVIL}"],
    ["explain", "{}/names.pth", f"conv1.weight{EVIL}"],
    ["explain", "{}/names.pth", "conv1.weight", "--section", EVIL],
    ["convert", "{}/names.pth", "{}/out.pth"],
    ["convert", "{}/names.pth", "{}/out.pth", "--selfsup", EVIL],
    ["convert", "{}/names.pth", "{}/out.pth", "--selfsup", "moco"],
    ["convert", "{}/names.pth", "{}/out.pth", "--selfsup", "generic", "--drop", EVIL],
    ["convert", "{}/names.pth", "{}/out.pth", "--strip-prefix", EVIL],
    ["convert", "{}/names.pth", f"{{}}/none{EVIL}/out.pth"],
    ["convert", "{}/names.pth", "{}/out.pth", "--format", EVIL],
    ["convert", "{}/names.pth", "{}/out.pth", f"--{EVIL}"],
    ["convert", "{}/names.pth", "{}/out.pth", EVIL],
    ["convert", "{}/names.pth", "{}/out.pth", "--image-size", EVIL],
    [EVIL],
    ["methods", EVIL],
    ["methods", "--fits", "{}/names.pth"],
    ["methods", "--rules", "{}/rules.toml"],
    ["methods", "--rules", "{}/entry.toml"],
    ["methods", "--rules", "{}/title.toml"],
    ["methods", "mine", "--rules", "{}/title.toml"],
    ["methods", "--rules", f"{{}}/{EVIL}.toml"],
    ["releases", EVIL],
    ["cache", "list", "--cache-dir", f"{{}}/{EVIL}"],
    ["cache", EVIL],
    ["check", f"{{}}/{EVIL}.py"],
    ["emit-config", f"{{}}/file{EVIL}.pth"],
    ["verify-ap", EVIL, "--tier", "load"],
]
PROGRESS = ("check", "emit-config", "verify-ap")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:40].encode("unicode_escape").decode())
def test_no_name_steers_the_terminal(words, hostile):
    words = [word.replace("{}", str(hostile)) for word in words]
    shown = in_a_terminal(*words)
    assert shown
    left = SGR.sub("", shown)
    left = left.replace("\r", "") if words[0] in PROGRESS else left  # rich erases the line of progress by it
    assert not RAW.search(left), ascii(left)
    assert "\x1b[31mred" not in shown
    assert "\nerror: a" not in left.removeprefix("error: a")
    assert "Traceback" not in shown
    assert "did not foresee" not in shown
    assert not (hostile / "out.pth").exists()


def test_markup_in_a_name_is_text(hostile):
    assert "weight[link=http://x]y[/link]" in in_a_terminal("inspect", hostile / "names.pth", "--all")


# -- no traceback ----------------------------------------------------------------------------------------------------

LONG = "x" * 5000
ODD_PATHS = [
    LONG,
    f"{LONG}/y",
    "a\udceeb",
    "\udcff",
    "/dev/null",
    "/dev/tty",
    "/proc/self/mem",
    "FIFO",
    "FOLDER",
    "FILE/x",
]


@pytest.fixture
def odd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("FIFO")
    Path("FOLDER").mkdir()
    Path("FILE").write_bytes(b"x")
    Path("good.pth").write_bytes(broken.network_zip())


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["inspect", "PATH"], {3}),
        (["convert", "PATH", "out.pth"], {3}),
        (["convert", "good.pth", "PATH"], {0, 2}),
        (["convert", "good.pth", "PATH/out.pth"], {0, 2}),
        (["methods", "--rules", "PATH"], {2}),
        (["cache", "list", "--cache-dir", "PATH"], {0, 4}),
        (["emit-config", "PATH"], {2, 3}),
        (["emit-config", "good.pth", "--classes", "PATH"], {1, 2, 3, 4}),
        (["emit-config", "good.pth", "--out", "PATH"], {1, 2, 3, 4}),
        (["emit-config", "good.pth", "--base", "PATH"], {1, 2, 3, 4}),
        (["check", "PATH"], {2, 4}),
        (["verify-ap", "PATH", "--tier", "load"], {2, 4}),
        (["verify-ap", "mocov2-mask-rcnn-r50-fpn-1x", "--pretrained", "PATH", "--dry-run"], {1, 2, 3, 4}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("path", ODD_PATHS, ids=ascii)
def test_odd_paths(words, codes, path, odd, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ckptconv", *(word.replace("PATH", path) for word in words)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    gc.enable()
    said = capsys.readouterr().err
    assert ended.value.code in codes, said
    assert len(said) < 12_000
    assert said.startswith("error: ") or ended.value.code == 0
    assert not RAW.search(said)


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", LONG])
def test_odd_paths_in_python(path, odd):
    import ckptconv

    for call in (
        lambda: ckptconv.inspect(path),
        lambda: ckptconv.inspect(Path(path)),
        lambda: ckptconv.convert(path, "out.pth"),
        lambda: ckptconv.convert("good.pth", path),
        lambda: ckptconv.convert("good.pth", "out.pth", rules=path),
    ):
        with pytest.raises(CkptconvError) as caught:
            call()
        assert caught.value.message.isprintable()


def test_what_was_not_foreseen_is_said_to_be_a_bug(tmp_path):
    script = "from ckptconv import inspection\ndef inspect(*a, **k): raise ZeroDivisionError('secret')\n"
    script += "inspection.inspect = inspect\nfrom ckptconv.cli import main; main()"
    done = run("inspect", "x", script=script)
    assert (done.returncode, done.stdout) == (70, "")
    message, hint = done.stderr.splitlines()
    assert re.fullmatch(r"error: ckptconv did not foresee this: ZeroDivisionError in \w+\.py, line \d+", message)
    assert hint == (
        "hint: This is a bug. Please report it to the project's issue tracker, with the command and what it prints "
        "with CKPTCONV_DEBUG=1 before it."
    )
    done = run("inspect", "x", script=script, CKPTCONV_DEBUG="1")
    assert done.returncode == 70
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert message in done.stderr
    done = run("inspect", "x", "--json", script=script)
    assert json.loads(done.stdout)["error"]["exit_code"] == 70


@pytest.mark.parametrize(("error", "code"), [("RecursionError", 70), ("MemoryError", 4), ("KeyboardInterrupt", 130)])
def test_other_ends(error, code):
    script = f"from ckptconv import inspection\ndef inspect(*a, **k): raise {error}\n"
    script += "inspection.inspect = inspect\nfrom ckptconv.cli import main; main()"
    done = run("inspect", "x", script=script)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_usage_errors_are_json_where_that_is_asked():
    done = run("inspect", "--nothing", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert (
        json.loads(done.stdout)["error"]
        == {
            "message": "no such option: --nothing",
            "hint": "See ckptconv inspect --help.",
            "parameter": "",
            "option": "",
            "exit_code": 2,
        }
        or "no such option: --nothing" in done.stdout
    )


def test_ctrl_c_is_no_traceback():
    script = (
        "import time\nfrom ckptconv import inspection\n"
        "def inspect(*a, **k):\n print('ready', flush=True)\n time.sleep(60)\n"
        "inspection.inspect = inspect\nfrom ckptconv.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "inspect", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "")


def test_who_stops_reading_hears_nothing_more():
    script = 'set -o pipefail; "$@" | true'
    words = [sys.executable, "-m", "ckptconv", "methods", "--json"]
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_behind_the_output():
    done = subprocess.run(
        ["sh", "-c", '"$@" > /dev/full', "sh", sys.executable, "-m", "ckptconv", "methods"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[0] == "error: the output cannot be written: No space left on device"


def test_an_output_that_cannot_show_every_letter():
    env = {**os.environ, "PYTHONIOENCODING": "iso-8859-1", "PYTHONUTF8": "0"}
    words = [sys.executable, "-m", "ckptconv", "guide", "quickstart"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, errors="replace")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u" in done.stdout


# -- rule files ------------------------------------------------------------------------------------------------------

HEAD = 'name = "m"\n'
RULE = 'rules = [{keep = "a.{key...}", to = "{key...}"}]\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + "rules = " + "[" * 5000 + "]" * 5000, "nests too deeply"),
        (HEAD + "rules = [" + "{a = " * 3000 + "1" + "}" * 3000 + "]", "nests too deeply"),
        (HEAD + RULE.replace('"}]', '", op = "permute(' + "9" * 5000 + ')"}]'), "there is no op 'permute(999"),
        (HEAD + "x = " + "9" * 5000, "is not TOML: Exceeds the limit"),
        (
            HEAD + "pixels = {mean = [" + "9" * 400 + ",1,1], std = [1,1,1]}\n" + RULE,
            "'mean' must be three numbers, not",
        ),
        (HEAD + "pixels = {mean = [nan,1,1], std = [1,1,1]}\n" + RULE, "'mean' must be three numbers, not"),
        (HEAD + "pixels = {mean = [1,1,1], std = [0,1,1]}\n" + RULE, "'std' must be three numbers above 0, not"),
        (HEAD + RULE.replace('"}]', '", op = "concat(²)"}]'), "there is no op 'concat(\u00b2)'"),
        ("\0", "is not TOML: "),
        ("", "in the rule file PATH: "),
        (b"\xff\xfe", "is not TOML: it is not in UTF-8"),
        ("# " + "x" * (1 << 20), "cannot be read: it is larger than 1,048,576 bytes"),
        (HEAD + 'rules = ["' + "x" * 100_000 + '"]', "the rule xxx"),
    ],
    ids=range(13),
)
def test_rule_files_that_are_none(content, message, tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as caught:
        method_toml.load(path)
    assert str(path) in caught.value.message
    assert message.replace("PATH", str(path)) in caught.value.message
    assert len(caught.value.message) < 2000


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "nothing"])
def test_what_is_no_file_of_rules(kind, tmp_path):
    path = tmp_path / "rules"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    with pytest.raises(UsageError, match=f"the rule file {path} cannot be read: "):
        method_toml.load(path)


def toml_text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_text, value)) + "]"
    return value if isinstance(value, str) and value.startswith("1979") else json.dumps(value)


WORDS = [
    *(
        "name",
        "title",
        "sections",
        "rules",
        "pixels",
        "keep",
        "to",
        "op",
        "drop",
        "why",
        "fuse",
        "mean",
        "std",
        "order",
    ),
    *("a.{key...}", "{key...}", "{a}.{a}", "{", "}", "{x", "{...}", "", "..", "a..b", "concat(0)", "concat(-9999)"),
    *("permute(1,0)", "permute(0,0)", "permute()", "reshape(0)", "reshape(-1,-1)", "RGB", "auto", "m", EVIL),
]
LEAVES = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.just("1979-05-27T07:32:00Z"),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=1500, deadline=None)
@given(st.dictionaries(st.sampled_from([w for w in WORDS[:8] if w]), VALUES, max_size=5))
@example({"name": "m", "rules": [{"fuse": ["a.{x}", "b.{x}"], "to": "c.{x}", "op": "concat(-9999)"}]})
def test_any_rule_file_is_a_method_or_one_sentence(table):
    text = "\n".join(f"{json.dumps(k)} = {toml_text(v)}" for k, v in ({"name": "m", **table}).items())
    judged(text.encode())


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_any_bytes_are_a_method_or_one_sentence(content):
    judged(content)


def judged(content: bytes) -> None:
    said = ""
    path = Path(f"/proc/self/fd/{(fd := os.memfd_create('rules'))}")
    try:
        os.write(fd, content)
        method_toml.load(path)
    except UsageError as error:
        said = error.message
    finally:
        os.close(fd)
    assert said.isprintable()


def test_the_control_is_a_file_that_is_read(tmp_path):
    """The hostile checkpoints above are read up to their names: else nothing was shown."""
    done = run("inspect", checkpoint(tmp_path / "a.pth", ["conv1.weight\x1b[2J"]), "--all")
    assert done.returncode == 0
    assert "conv1.weight\\x1b[2J" in done.stdout
    assert pickle.MARK in (tmp_path / "a.pth").read_bytes()

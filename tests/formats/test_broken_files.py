"""Broken and hostile files are refused in one sentence, quickly, in little memory. Nothing is left, nothing is run."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckptconv.conversion.convert import convert
from ckptconv.errors import CkptconvError, UnreadableError
from tests.support import broken, forked
from tests.support.broken import PATIENCE

MAX_MEMORY = 200 << 20
FLIPS, DAMAGES = 300, 100


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """Every file of the tables, each in a folder of its own."""
    found = {}
    for i, row in enumerate((*broken.ROWS, *broken.HOSTILE, *broken.SOUND)):
        folder = tmp_path_factory.mktemp(f"row{i}")
        found[row.name] = row.write(folder)
    return found


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def by_name(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


@by_name(broken.ROWS)
def test_refused_in_one_sentence(row, files, tmp_path, guard):
    source = files[row.name]
    sibling, opened = sorted(source.parent.iterdir()), open_files()
    with pytest.raises(UnreadableError) as refused:
        convert(source, tmp_path / "out.pth")
    error = refused.value
    assert error.exit_code == 3
    assert row.says in error.message
    assert error.hint
    for line in (error.message, *error.hint.splitlines()):
        assert line.isprintable(), "what a file calls its tensors must not steer a terminal"
        assert len(line) < 1000 + len(str(source))
    assert list(tmp_path.iterdir()) == []
    assert sorted(source.parent.iterdir()) == sibling
    assert open_files() == opened


@by_name(broken.HOSTILE)
def test_an_answer_comes_soon(row, files, tmp_path, guard):
    with pytest.raises(CkptconvError):
        convert(files[row.name], tmp_path / "out.pth")
    assert list(tmp_path.iterdir()) == []


@by_name(broken.SOUND)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_its_sound_neighbour_converts(row, suffix, files, tmp_path, guard):
    opened = open_files()
    receipt = convert(files[row.name], tmp_path / f"out.{suffix}")
    assert receipt.proved == len(broken.SHAPES)
    assert open_files() == opened


def test_every_name_length_converts(tmp_path):
    """The header holds the source's name: whatever its length, the output is read back as what it is."""
    for length in range(1, 256, 8):
        source = tmp_path / ("x" * length)
        source.write_bytes(broken.network_zip())
        assert convert(source, tmp_path / "out.safetensors", force=True).proved == len(broken.SHAPES)
        source.unlink()


def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
    source = tmp_path / "model.pth"
    source.write_bytes(broken.network_zip())

    def forbidden(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("ckptconv.sources.file.os.open", forbidden)
        with pytest.raises(UnreadableError, match="cannot be opened: Permission denied") as refused:
            convert(source, tmp_path / "out.pth")
    assert refused.value.hint == "Check its permissions."


def test_a_file_on_a_failing_disk(tmp_path, monkeypatch):
    source = tmp_path / "model.pth"
    source.write_bytes(broken.network_zip())

    def failing(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("ckptconv.sources.file.os.pread", failing)
        with pytest.raises(UnreadableError, match="cannot be read: Input/output error"):
            convert(source, tmp_path / "out.pth")
    assert list(tmp_path.iterdir()) == [source]


# Damage nobody has thought of -----------------------------------------------------------------------------------------


def test_any_bit_of_a_zip_matters_or_does_not(tmp_path, guard_each):
    """One bit flipped anywhere: refused, or the same tensors all the same (a date, an attribute)."""
    sound, source, target = broken.network_zip(), tmp_path / "model.pth", tmp_path / "out.safetensors"
    source.write_bytes(sound)
    expected = convert(source, target).fingerprint
    refused = 0
    rng = random.Random(1)
    for _ in range(FLIPS):
        start = rng.choice([0, len(sound) // 2, len(sound) - 9_000])  # the pickle, the tensors, the directory
        at, bit = rng.randrange(start, len(sound)), rng.randrange(8)
        source.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << bit]) + sound[at + 1 :])
        guard_each()
        try:
            assert convert(source, target, force=True).fingerprint == expected, (at, bit)
        except UnreadableError:
            refused += 1
    assert refused > FLIPS / 2


BASES = {
    "legacy": broken.network_legacy,
    "safetensors": broken.network_safetensors,
    "numpy": broken.network_numpy,
    "one legacy tensor": lambda: broken.legacy(broken.W),
    "one safetensor": lambda: broken.safetensors({"w": broken.entry()}),
    "one array": lambda: broken.pickled(broken.ARRAY + broken.array_state(b"five!") + b"b"),
    "index": lambda: json.dumps({"weight_map": {"w": "one", "v": "two"}}).encode(),
}


@pytest.mark.parametrize("base", BASES)
def test_any_damage_has_an_answer(base, tmp_path, guard_each):
    """Bytes changed, lost, put in and doubled: a file that torch reads or one of our own errors, and nothing else."""
    sound, source, target = BASES[base](), tmp_path / "model.pth", tmp_path / "out.pth"
    rng, refused = random.Random(base), 0
    for _ in range(DAMAGES):
        content = bytearray(sound)
        for _ in range(rng.choice([1, 1, 2, 4])):
            at = rng.randrange(min(len(content), rng.choice([64, 400, 6_000])))
            length = rng.choice([1, 1, 1, 2, 8, 50])
            other = rng.choice([b"", rng.randbytes(length), content[at : at + length] * 2])
            content[at : at + length] = other
        source.write_bytes(content)
        guard_each()
        try:
            receipt = convert(source, target, force=True)
        except CkptconvError:
            refused += 1
        else:
            state = torch.load(target, weights_only=True)["state_dict"]
            assert {name: tuple(tensor.shape) for name, tensor in state.items()} == broken.SHAPES
            assert receipt.proved == len(broken.SHAPES)
    assert refused


# One process for all of them: what they cost -------------------------------------------------------------------------

CHILD = """
import json, re, signal, sys, time
from pathlib import Path
from ckptconv.conversion.convert import convert

def stop(*_):
    raise TimeoutError
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
signal.signal(signal.SIGALRM, stop)
for line in sys.stdin:
    name, source, target = json.loads(line)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use now
    started = time.perf_counter()
    signal.alarm(int(sys.argv[1]))
    try:
        convert(source, target)
        end = "converted"
    except BaseException as error:
        end = type(error).__name__
    signal.alarm(0)
    seconds = round(time.perf_counter() - started, 3)
    print(json.dumps({"name": name, "end": end, "seconds": seconds, "peak": peak()}), flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is told by Linux only")
def test_all_in_one_process_are_quick_and_small(files, tmp_path):
    names = [row.name for row in (*broken.ROWS, *broken.HOSTILE)]
    rows = "".join(json.dumps([name, str(files[name]), str(tmp_path / "out.pth")]) + "\n" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(PATIENCE)], input=rows, capture_output=True, text=True, check=False
    )
    (tmp_path / "report.jsonl").write_text(done.stdout)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["name"] for r in found] == names, done.stderr
    assert [r for r in found if r["end"] not in ("UnreadableError", "UnidentifiedError")] == []
    assert [r for r in found if r["peak"] > MAX_MEMORY] == []
    assert [r for r in found if r["seconds"] > PATIENCE] == []


# The command line ----------------------------------------------------------------------------------------------------


def ckptconv(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptconv", *map(str, args)]
    return forked.run(command, server=forked.COMMANDS)


@pytest.mark.parametrize("name", ["web page", "zip: bit flipped in a storage", "safetensors: name of two lines"])
def test_the_command_line_refuses(name, files, tmp_path):
    row = next(r for r in broken.ROWS if r.name == name)
    done = ckptconv("convert", files[name], tmp_path / "out.pth")
    assert done.returncode == 3
    assert done.stdout == ""
    first, *others = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert row.says in first
    assert others
    assert all(line.startswith("hint: ") for line in others)

    done = ckptconv("convert", files[name], tmp_path / "out.pth", "--json")
    assert done.returncode == 3
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert set(answer["error"]) == {"message", "hint", "parameter", "option", "exit_code"}
    assert row.says in answer["error"]["message"]
    assert answer["error"]["exit_code"] == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["convert", "inspect"])
@pytest.mark.parametrize("name", ["key of two lines", "key that is half a character"])
def test_names_do_not_steer_the_terminal(name, command, files, tmp_path):
    target = [tmp_path / "out.pth"] if command == "convert" else []
    done = ckptconv(command, files[name], *target)
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert "\nforged" not in done.stdout


def test_a_name_that_nothing_explains_does_not_steer_the_terminal(tmp_path):
    source = tmp_path / "model.pth"
    source.write_bytes(broken.zipped(broken.table({"w\x1b]0;title\x07": broken.FOUR})))
    done = ckptconv("convert", source, tmp_path / "out.pth")
    assert done.returncode == 1
    assert all(line.isprintable() for line in done.stderr.splitlines())


# Pickles that run a command when they are loaded ---------------------------------------------------------------------

COMMAND = broken.text("echo ran > marker")
SYSTEM = broken.name("posix", "system")
NAMESPACE = broken.name("argparse", "Namespace") + b")\x81"
LATER = broken.name("builtins", "map") + b"(" + SYSTEM + broken.listing(COMMAND) + b"t\x81"
RUNS = {
    "REDUCE": SYSTEM + COMMAND + b"\x85R",
    "STACK_GLOBAL": broken.text("posix") + broken.text("system") + b"\x93" + COMMAND + b"\x85R",
    "INST": b"(" + COMMAND + b"iposix\nsystem\n",
    "OBJ": b"(" + SYSTEM + COMMAND + b"o",
    "NEWOBJ": broken.name("builtins", "tuple") + LATER + b"\x85\x81",
    "BUILD": NAMESPACE + broken.table({"__setstate__": SYSTEM}) + b"b" + COMMAND + b"b",
    "eval": broken.call("builtins", "eval", broken.text("__import__('os').system('echo ran > marker')")),
}


def armed(payload: bytes, place: str) -> bytes:
    """A complete checkpoint with a payload somewhere."""
    weights = broken.weights()
    if place == "beside the state dict":
        return broken.table({"args": payload, "state_dict": broken.table(weights)})
    if place == "in the state dict":
        return broken.table(weights | {"args": payload})
    if place == "as a key":
        return broken.table([(payload, b"N"), (broken.text("state_dict"), broken.table(weights))])
    first, *others = weights.items()
    hooks = first[1].removesuffix(b"}tR") + payload + b"tR"
    assert hooks != first[1]
    return broken.table(dict([(first[0], hooks), *others]))


@pytest.mark.parametrize("payload", RUNS.values(), ids=RUNS)
def test_the_payloads_are_real(payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(TypeError, pickle.UnpicklingError):
        pickle.loads(broken.pickled(payload))
    assert Path("marker").read_text() == "ran\n"


PLACES = ("beside the state dict", "in the state dict", "as a key", "as a tensor's hooks")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", RUNS.values(), ids=RUNS)
def test_nothing_is_run(payload, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.pth").write_bytes(broken.zipped(armed(payload, place), broken.storages()))
    receipt = convert("model.pth", "out.pth")
    assert receipt.proved == len(broken.SHAPES)
    assert not Path("marker").exists()
    assert b"system" not in Path("out.pth").read_bytes()


@pytest.mark.parametrize("payload", RUNS.values(), ids=RUNS)
def test_nothing_is_run_where_the_weights_should_be(payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.pkl").write_bytes(broken.pickled(payload))
    with pytest.raises(UnreadableError, match="holds no named tensors"):
        convert("model.pkl", "out.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pkl"]

"""The output appears complete or not at all, and never over what must stay, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptconv.conversion.convert import convert
from ckptconv.errors import EnvironmentMissingError, UnreadableError, UsageError
from tests.support import broken, hollow

SUFFIXES = ("pth", "safetensors")
KILLS, STOPS = 24, 4
OLD = b"the file that stood here before"


@pytest.fixture
def source(tmp_path) -> Path:
    """A complete checkpoint of a tiny network, in a folder of its own."""
    path = tmp_path / "in" / "model.pth"
    path.parent.mkdir()
    path.write_bytes(broken.network_zip())
    return path


@pytest.fixture
def out(tmp_path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def large(tmp_path_factory) -> Path:
    """A ResNet-18 of lightly, 92 MB: large enough to be interrupted, or to find no room."""
    return hollow.fill("lightly_moco_resnet18_sequential", tmp_path_factory.mktemp("large") / "epoch.ckpt")


NAMED = "import os; del os.O_TMPFILE; from ckptconv.cli import main; main()"
SCHEMES = ["nameless", "named"] if hasattr(os, "O_TMPFILE") else ["named"]


def start(*args: object, named: bool = False) -> subprocess.Popen[bytes]:
    """A conversion; ``named`` as on a system without files that have no name."""
    how = ["-c", NAMED] if named and hasattr(os, "O_TMPFILE") else ["-m", "ckptconv"]
    command = [sys.executable, *how, "convert", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def written(process: subprocess.Popen[bytes], folder: Path) -> int | None:
    """How long the file is that the process has not finished in the folder; None if there is none."""
    files = list(folder.glob("*.partial"))
    with contextlib.suppress(OSError):  # the process has ended
        files += Path(f"/proc/{process.pid}/fd").iterdir()
    for file in files:
        with contextlib.suppress(OSError):  # it was closed, or renamed, meanwhile
            if file.parent == folder or os.readlink(file).startswith(f"{folder}/"):
                return file.stat().st_size
    return None


def reads(process: subprocess.Popen[bytes], source: Path) -> bool:
    """Whether the process has opened its source."""
    with contextlib.suppress(OSError):
        return any(os.readlink(link) == str(source) for link in Path(f"/proc/{process.pid}/fd").iterdir())
    return False


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Interrupted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_killed_at_any_moment(scheme, large, tmp_path):
    """kill -9 leaves the old file, the new one, or none where there was none; never a part of one.

    It comes when the source is open, when a share of the output is written, from none to all of it, and when the output
    has its name.
    """
    assert start(large, tmp_path / "whole.pth").wait() == 0
    whole = (tmp_path / "whole.pth").read_bytes()
    kills = KILLS if scheme == SCHEMES[0] else KILLS // 3
    unfinished = 0
    for i in range(kills):
        folder = tmp_path / str(i)
        folder.mkdir()
        target = folder / "out.pth"
        replaces = i % 2 == 0
        if replaces:
            target.write_bytes(OLD)
        process = start(large, target, *(["--force"] if replaces else []), named=scheme == "named")
        share = (i - 2) / (kills - 5)  # two kills come before, and two after
        while process.poll() is None:
            length = written(process, folder)
            if share < 0 and reads(process, large):
                break
            if 0 <= share <= 1 and length is not None and length >= share * len(whole):
                break
            if share > 1 and length is None and target.exists() and target.stat().st_size != len(OLD):
                break
            time.sleep(0.0005)
        writing = written(process, folder) is not None
        process.kill()
        process.wait()
        found = contents(folder)
        left = found.pop("out.pth", None)
        assert left in (OLD if replaces else None, whole), f"killed at a share of {share:.2f}"
        assert all(name.startswith(".") and name.endswith(".partial") for name in found)
        assert all(part == whole for part in found.values()) or scheme == "named"
        unfinished += left != whole and writing
        shutil.rmtree(folder)
    assert unfinished, "no moment fell into the writing: the test has shown nothing"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replaced"])
def test_stopped_while_it_writes(number, replaces, large, tmp_path, out):
    """SIGTERM and SIGINT end the command and take the unfinished file away."""
    assert start(large, tmp_path / "whole.pth").wait() == 0
    whole, target = (tmp_path / "whole.pth").read_bytes(), out / "out.pth"
    interrupted = 0
    for _ in range(STOPS):
        if replaces:
            target.write_bytes(OLD)
        process = start(large, target, *(["--force"] if replaces else []))
        while process.poll() is None and written(process, out) is None:
            time.sleep(0.0005)
        process.send_signal(number)
        try:
            code = process.wait(timeout=20)
        finally:
            process.kill()
        found = contents(out)
        left = found.pop("out.pth", None)
        assert left in (OLD if replaces else None, whole)
        assert not found
        interrupted += code != 0
        target.unlink(missing_ok=True)
    assert interrupted, "it was always done before the signal came: the test has shown nothing"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_killed_process_left_is_removed_by_the_next(scheme, source, out, monkeypatch):
    """But neither what a living one writes, nor what is no draft."""
    if scheme == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr("ckptconv.sources.atomic._TIME_TO_LOCK", 0)
    dead, living, other = (out / f".ckptconv-{digit * 12}.partial" for digit in ("0", "1", "g"))
    for path in (dead, living, other):
        path.write_bytes(OLD)
    (out / f".ckptconv-{'2' * 12}.partial").symlink_to(source)
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert convert(source, out / "out.pth").written
        assert {*contents(out)} == {living.name, other.name, "out.pth", f".ckptconv-{'2' * 12}.partial"}
    assert convert(source, out / "out.pth", force=True).written
    assert {*contents(out)} == {other.name, "out.pth", f".ckptconv-{'2' * 12}.partial"}
    assert source.is_file()


def test_a_draft_is_locked_while_it_is_written(source, out, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr("ckptconv.sources.atomic._TIME_TO_LOCK", 0)
    seen = []

    def progress(phase: str, done: int, total: int) -> None:
        if not seen:
            seen.extend(out.glob("*.partial"))
            assert convert(source, out / "other.pth").written
            assert seen[0].exists()

    assert convert(source, out / "out.pth", progress=progress).written
    assert {*contents(out)} == {"out.pth", "other.pth"}
    assert seen


# No room -------------------------------------------------------------------------------------------------------------

LITTLE_ROOM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))
from ckptconv.cli import main
main()
"""


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_larger_than_allowed(suffix, replaces, large, out):
    target = out / f"out.{suffix}"
    if replaces:
        target.write_bytes(OLD)
    command = [
        sys.executable,
        "-c",
        LITTLE_ROOM,
        "convert",
        str(large),
        str(target),
        *(["--force"] if replaces else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        f"error: there is no disk space for {target}: File too large",
        "hint: Free some space. No file was left.",
    ]
    assert contents(out) == ({target.name: OLD} if replaces else {})


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB. Only root can make one, and not everywhere."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_disk_full(suffix, replaces, large, small_disk):
    target = small_disk / f"out.{suffix}"
    if replaces:
        target.write_bytes(OLD)
    with pytest.raises(EnvironmentMissingError) as refused:
        convert(large, target, force=replaces)
    assert refused.value.exit_code == 4
    assert refused.value.message == f"there is no disk space for {target}: No space left on device"
    assert refused.value.hint == "Free some space. No file was left."
    assert contents(small_disk) == ({target.name: OLD} if replaces else {})


# What may not be written ---------------------------------------------------------------------------------------------


def refusal(source: Path, target: Path, force: bool = False) -> str:
    with pytest.raises(UsageError) as refused:
        convert(source, target, force=force)
    assert refused.value.exit_code == 2
    assert refused.value.hint
    return refused.value.message


def test_an_existing_file_wants_force(source, out):
    target = out / "out.pth"
    target.write_bytes(OLD)
    assert refusal(source, target) == f"{target} exists"
    assert contents(out) == {"out.pth": OLD}
    convert(source, target, force=True)
    assert list(contents(out)) == ["out.pth"]
    assert target.read_bytes() != OLD


def test_the_command_line_says_so_too(source, out):
    target = out / "out.pth"
    target.write_bytes(OLD)
    command = [sys.executable, "-m", "ckptconv", "convert", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {target} exists\nhint: Give --force to replace it, or another name.\n"
    assert contents(out) == {"out.pth": OLD}


def same(source: Path, out: Path) -> Path:
    return source


def by_another_path(source: Path, out: Path) -> Path:
    return source.parent / ".." / source.parent.name / source.name


def by_symlink(source: Path, out: Path) -> Path:
    (out / "link.pth").symlink_to(source)
    return out / "link.pth"


def by_symlink_to_its_folder(source: Path, out: Path) -> Path:
    (out / "folder").symlink_to(source.parent)
    return out / "folder" / source.name


def by_hard_link(source: Path, out: Path) -> Path:
    (out / "other.pth").hardlink_to(source)
    return out / "other.pth"


@pytest.mark.parametrize("way", [same, by_another_path, by_symlink, by_symlink_to_its_folder, by_hard_link])
@pytest.mark.parametrize("force", [False, True])
def test_never_over_its_input(way, force, source, out):
    before, target = source.read_bytes(), way(source, out)
    assert refusal(source, target, force) == f"{target} is the input itself"
    assert contents(source.parent) == {source.name: before}
    assert not list(out.glob(".*"))


def test_never_over_a_symlink_that_is_its_input(source, out):
    """The input is given by a link, the target is where the link leads."""
    link = out / "link.pth"
    link.symlink_to(source)
    assert refusal(link, source, force=True) == f"{source} is the input itself"
    assert refusal(link, link, force=True) == f"{link} is the input itself"


@pytest.mark.parametrize("part", ["model.index.json", "one"])
def test_never_over_a_part_of_its_input(part, tmp_path):
    index = tmp_path / "model.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(broken.SHAPES, "one")}))
    (tmp_path / "one").write_bytes(broken.network_safetensors())
    before = contents(tmp_path)
    named = "has the name of a JSON file, and ckptconv writes torch and safetensors files"
    why = named if part.endswith(".json") else "is the input itself"
    assert refusal(index, tmp_path / part, force=True) == f"{tmp_path / part} {why}"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
def test_target_is_a_folder(force, source, out):
    assert refusal(source, out, force) == f"{out} is a directory"


@pytest.mark.parametrize("force", [False, True])
def test_target_in_no_folder(force, source, out):
    assert refusal(source, out / "absent" / "out.pth", force) == f"there is no folder {out / 'absent'}"
    assert contents(out) == {}


def test_target_in_a_file(source, out):
    (out / "file").write_bytes(OLD)
    assert refusal(source, out / "file" / "out.pth") == f"there is no folder {out / 'file'}"


def test_target_is_a_pipe(source, out):
    os.mkfifo(out / "pipe")
    assert refusal(source, out / "pipe", force=True) == f"{out / 'pipe'} is not a regular file"


def test_target_folder_is_read_only(source, out, monkeypatch):
    monkeypatch.setattr("ckptconv.sources.atomic.os.access", lambda *_: False)  # root may write everywhere
    assert refusal(source, out / "out.pth") == f"the folder {out} cannot be written to"


@pytest.mark.parametrize("name", ["x" * 251 + ".pth", "ü" * 125 + ".pth", "重" * 80 + ".pth"])
def test_long_names(name, source, out):
    """A name may take 255 bytes, and so may the target's, whatever the unfinished file is called."""
    assert convert(source, out / name).written
    assert list(contents(out)) == [name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_are_no_text(suffix, source, out):
    """A file's name is bytes; the output, which speaks of its source, is text."""
    odd = source.with_name(os.fsdecode(b"\xff.pth"))
    try:
        source.rename(odd)
    except OSError:
        pytest.skip("this file system wants names that are text")
    target = out / os.fsdecode(b"\xfe." + suffix.encode())
    assert convert(odd, target).written
    assert list(contents(out)) == [target.name]


def test_name_too_long(source, out):
    target = out / ("x" * 256)
    assert "File name too long" in refusal(source, target)
    assert contents(out) == {}


def test_link_that_leads_to_itself(source, out):
    link = out / "loop.pth"
    link.symlink_to(link.name)
    refusal(source, link)
    assert os.readlink(link) == link.name
    assert [path.name for path in out.iterdir()] == [link.name]


# What happens meanwhile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_appears_meanwhile_stays(suffix, source, out):
    target = out / f"out.{suffix}"

    def progress(phase: str, done: int, total: int) -> None:
        target.write_bytes(OLD)

    with pytest.raises(UsageError) as refused:
        convert(source, target, progress=progress)
    assert refused.value.message == f"{target} exists"
    assert contents(out) == {target.name: OLD}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_where_no_hard_links_can_be_made(scheme, source, out, monkeypatch):
    """As on FAT and some network file systems, where the file is renamed to its place."""

    def cannot(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("ckptconv.sources.atomic.os.link", cannot)
    monkeypatch.setattr("ckptconv.sources.atomic._linkat", cannot)
    if scheme == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    target = out / "out.pth"
    assert convert(source, target).written
    assert list(contents(out)) == ["out.pth"]

    target.unlink()
    with pytest.raises(UsageError) as refused:
        convert(source, target, progress=lambda phase, done, total: target.write_bytes(OLD) and None)
    assert refused.value.message == f"{target} exists"
    assert contents(out) == {"out.pth": OLD}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_source_that_changes_meanwhile(suffix, source, out):
    def progress(phase: str, done: int, total: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(UnreadableError) as refused:
        convert(source, out / f"out.{suffix}", progress=progress)
    assert refused.value.message == f"{source} changed while it was being read"
    assert contents(out) == {}


def test_source_that_is_cut_meanwhile(source, out):
    def progress(phase: str, done: int, total: int) -> None:
        os.truncate(source, 100)

    with pytest.raises(UnreadableError, match="is truncated"):
        convert(source, out / "out.pth", progress=progress)
    assert contents(out) == {}


def test_source_that_is_replaced_meanwhile(source, out):
    """Another file under the same name is another file: what was opened is what is converted."""
    convert(source, out / "expected.pth")

    def progress(phase: str, done: int, total: int) -> None:
        new = source.with_suffix(".new")
        new.write_bytes(OLD)
        new.replace(source)

    convert(source, out / "out.pth", progress=progress)
    assert (out / "out.pth").read_bytes() == (out / "expected.pth").read_bytes()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, MemoryError, ValueError])
def test_whatever_is_raised_meanwhile(error, source, out):
    def progress(phase: str, done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        convert(source, out / "out.pth", progress=progress)
    assert contents(out) == {}


# What is written -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True], ids=["dangling", "leads to a file"])
def test_a_link_is_followed(exists, source, out):
    real = out / "real.pth"
    if exists:
        real.write_bytes(OLD)
    link = out / "link.pth"
    link.symlink_to(real.name)
    if exists:
        assert refusal(source, link) == f"{link} exists"
    convert(source, link, force=exists)
    assert os.readlink(link) == real.name
    assert not real.is_symlink()
    assert real.read_bytes() != OLD
    assert sorted(contents(out)) == ["link.pth", "real.pth"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_umask(umask, force, source, out):
    before = os.umask(umask)
    try:
        convert(source, out / "out.pth", force=force)
        assert os.umask(umask) == umask, "it is as it was"
    finally:
        os.umask(before)
    assert (out / "out.pth").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_input_same_bytes(suffix, source, tmp_path):
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        copy = tmp_path / name / "model.pth"
        copy.write_bytes(source.read_bytes())
        os.utime(copy, (1, len(name)))
        convert(copy, tmp_path / name / f"{name}.{suffix}")
        found.append((tmp_path / name / f"{name}.{suffix}").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_bytes_from_another_process(suffix, large, out):
    for i, seed in enumerate(("1", "2")):
        command = [sys.executable, "-m", "ckptconv", "convert", str(large), str(out / f"{i}.{suffix}")]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (out / f"0.{suffix}").read_bytes() == (out / f"1.{suffix}").read_bytes()


def test_a_dry_run_writes_nothing(source, out):
    assert not convert(source, out / "out.pth", dry_run=True).written
    (out / "out.pth").write_bytes(OLD)
    assert not convert(source, out / "out.pth", dry_run=True).written
    assert contents(out) == {"out.pth": OLD}

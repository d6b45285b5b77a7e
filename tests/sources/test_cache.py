"""The cache: whole files, checked, taken up again where a fetch broke off, and never a wrong one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import ckptconv
from ckptconv.errors import EnvironmentMissingError, UnreadableError
from ckptconv.sources.address import Address
from ckptconv.sources.cache import Cache, default_cache_dir
from ckptconv.sources.interface import Digest, Fetching
from tests.support import forked
from tests.support.server import numbers, serving

CONTENT = numbers(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


def fetched(server, folder, path="/f.pth", whole=True, published=None):
    """The bytes of the file as it is opened, and its transfer."""
    source = Address(server.url + path, Fetching(whole, folder), published).open()
    try:
        return source.read(0, source.size), replace(source.transfer)
    finally:
        source.close()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_whole_file_is_kept_and_not_fetched_again(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        content, transfer = fetched(server, tmp_path)
        assert content == CONTENT
        assert (transfer.whole, transfer.fetched >= len(CONTENT), transfer.version) == (True, True, 'ETag "v1"')
        assert left(tmp_path) == ["f.pth", "~note.json"]
        before = server.sent
        for whole in (True, False):  # who asks for parts gets them from the file that is here
            content, transfer = fetched(server, tmp_path, whole=whole)
            assert (content, transfer.fetched, transfer.requests) == (CONTENT, 0, 0)
        assert server.sent - before < 2 * 70_000
        (entry,) = Cache(tmp_path).entries()
        assert (entry.address, entry.whole, entry.size) == (f"{server.url}/f.pth", True, len(CONTENT))
        assert Cache(tmp_path).clear() == (1, len(CONTENT))
        assert (Cache(tmp_path).entries(), left(tmp_path)) == ([], [])


def test_a_server_without_ranges_fills_the_cache_unasked(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}, ranged=False) as server:
        content, transfer = fetched(server, tmp_path, whole=False)
        assert (content, transfer.whole) == (CONTENT, True)
        assert fetched(server, tmp_path, whole=False)[1].requests == 0


def test_a_file_that_is_new_on_its_server_is_fetched_anew(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path)
        server.files["/f.pth"], server.version = numbers(2_000_000, 1), 2
        assert fetched(server, tmp_path)[0] == numbers(2_000_000, 1)
        assert [entry.version for entry in Cache(tmp_path).entries()] == ['ETag "v2"']


def test_without_a_word_for_its_state_a_file_is_fetched_each_time(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}, etag=False, date=False) as server:
        fetched(server, tmp_path)
        server.files["/f.pth"] = numbers(3_000_000, 1)
        assert fetched(server, tmp_path)[0] == numbers(3_000_000, 1)


def test_without_a_network_the_file_that_is_here_will_do(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path)
    assert fetched(server, tmp_path)[0] == CONTENT
    with pytest.raises(UnreadableError, match="cannot be fetched"):
        fetched(server, tmp_path, "/other.pth")


def test_two_addresses_of_one_name_are_two_files(tmp_path, naps):
    with serving(files={"/a/f.pth": CONTENT, "/b/f.pth": CONTENT[:1000]}) as server:
        assert fetched(server, tmp_path, "/a/f.pth")[0] == CONTENT
        assert fetched(server, tmp_path, "/b/f.pth")[0] == CONTENT[:1000]
        assert fetched(server, tmp_path, "/b/f.pth?id=2")[0] == CONTENT[:1000]
        assert len(Cache(tmp_path).entries()) == 3


@pytest.mark.parametrize(
    "digest", [Digest("md5", MD5), Digest("md5", MD5[:6]), Digest("sha256", hashlib.sha256(CONTENT).hexdigest()[:8])]
)
def test_a_published_digest_is_checked(tmp_path, naps, digest):
    with serving(files={"/f.pth": CONTENT}) as server:
        transfer = fetched(server, tmp_path, published=digest)[1]
        assert (transfer.published, transfer.hash_checked) == (str(digest), True)
        transfer = fetched(server, tmp_path, whole=False, published=digest)[1]
        assert (transfer.requests, transfer.hash_checked) == (0, True)
        parts = fetched(server, tmp_path / "other", whole=False, published=digest)[1]
        assert (parts.published, parts.hash_checked, parts.whole) == (str(digest), False, False)


def test_a_digest_that_differs_leaves_nothing(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server, pytest.raises(UnreadableError) as caught:
        fetched(server, tmp_path, published=Digest("md5", "00000000"))
    assert caught.value.message == (
        f"{server.url}/f.pth is not the file its authors published: its md5 is {MD5}, theirs 00000000"
    )
    assert left(tmp_path) == []


def test_a_file_that_was_kept_unchecked_is_checked_when_that_is_asked(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path)
        with pytest.raises(UnreadableError, match="is not the file its authors published"):
            fetched(server, tmp_path, published=Digest("md5", "00000000"))


def test_a_fetch_that_broke_off_goes_on_where_it_stopped(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        server.cut = [10**9, 1_000_000, *[0] * 9]
        with pytest.raises(UnreadableError, match=r"the connection broke \(5 attempts\)"):
            fetched(server, tmp_path)
        (entry,) = Cache(tmp_path).entries()
        assert not entry.whole
        assert 900_000 < entry.fetched <= 1_000_000
        server.cut, before = [], server.sent
        assert fetched(server, tmp_path)[0] == CONTENT
        assert server.sent - before < len(CONTENT) - entry.fetched + 70_000
        assert [e.whole for e in Cache(tmp_path).entries()] == [True]


@pytest.mark.parametrize("what", ["changed", "no word", "longer than the file"])
def test_what_broke_off_is_of_no_use_if_the_file_may_be_another(tmp_path, naps, what):
    with serving(files={"/f.pth": CONTENT}) as server:
        server.cut = [10**9, 1_000_000, *[0] * 9]
        with pytest.raises(UnreadableError):
            fetched(server, tmp_path)
        server.cut = []
        server.files["/f.pth"] = other = numbers(3_000_000 if what != "longer than the file" else 500_000, 1)
        server.version += what == "changed"
        server.etag = server.date = what != "no word"
        assert fetched(server, tmp_path)[0] == other


@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_a_file_that_changes_while_it_is_fetched_leaves_nothing(tmp_path, naps, ranged):
    with serving(files={"/f.pth": CONTENT}, ranged=ranged) as server:

        def change(number: int) -> None:
            if number == 2:
                server.midway = lambda: setattr(server, "version", 2)

        server.after = change
        with pytest.raises(UnreadableError, match="changed while it was being read"):
            fetched(server, tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_a_login_page_that_calls_itself_a_file_leaves_nothing(tmp_path, naps, ranged):
    with serving(files={"/f.pth": b"\n<!DOCTYPE html><title>Log in</title>" * 99}, ranged=ranged) as server:
        with pytest.raises(UnreadableError, match=r"/f\.pth is a web page, not a checkpoint"):
            fetched(server, tmp_path)
        with pytest.raises(UnreadableError, match=r"/f\.pth is a web page, not a checkpoint"):
            ckptconv.inspect(f"{server.url}/f.pth", fetching=Fetching(cache_dir=tmp_path))
    assert left(tmp_path) == []


@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_an_empty_file(tmp_path, naps, ranged):
    with serving(files={"/f.pth": b""}, ranged=ranged) as server:
        for whole in (True, False):
            with pytest.raises(UnreadableError, match=r"/f\.pth is empty"):
                fetched(server, tmp_path, whole=whole)
    assert left(tmp_path) == []


def test_a_file_that_turns_out_to_be_none_leaves_the_cache(checkpoint, tmp_path, naps):
    """A server that announces less than it has: nothing tells, until the file is read."""
    content = checkpoint.read_bytes()

    def lie(headers):
        return {**headers, "Content-Length": str(int(headers["Content-Length"]) - 5000), "Connection": "close"}

    with serving(files={"/f.ckpt": content}, ranged=False, lie=lie) as server:
        with pytest.raises(UnreadableError):
            ckptconv.inspect(f"{server.url}/f.ckpt", fetching=Fetching(cache_dir=tmp_path))
        assert left(tmp_path) == []
        server.lie = dict
        assert ckptconv.inspect(f"{server.url}/f.ckpt", fetching=Fetching(cache_dir=tmp_path)).format == "torch zip"


def test_a_file_whose_checksum_is_wrong_leaves_the_cache_and_no_output(checkpoint, tmp_path, naps):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 4] ^= 1
    (tmp_path / "out").mkdir()
    for ranged in (True, False):
        fetching = Fetching(cache_dir=tmp_path / "c")
        with (
            serving(files={"/f.ckpt": bytes(content)}, ranged=ranged) as server,
            pytest.raises(UnreadableError, match="the checksum of storage"),
        ):
            ckptconv.convert(f"{server.url}/f.ckpt", tmp_path / "out" / "r18.pth", fetching=fetching)
    assert left(tmp_path) == []


def test_a_folder_that_somebody_changed_is_not_believed(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path)
        (file,) = tmp_path.rglob("f.pth")
        with file.open("ab") as opened:
            opened.write(b"more")
        assert fetched(server, tmp_path)[0] == CONTENT
        (tmp_path / "a file of somebody's").write_text("kept")
        (note,) = tmp_path.rglob("~note.json")
        note.write_text("{")
        assert fetched(server, tmp_path)[0] == CONTENT
        Cache(tmp_path).clear()
        assert left(tmp_path) == ["a file of somebody's"]


def test_two_at_once_fetch_it_once(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}, rate=20_000_000) as server:
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(fetched(server, tmp_path)[0])) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [CONTENT] * 3
        assert server.sent < len(CONTENT) * 1.2
    assert left(tmp_path) == ["f.pth", "~note.json"]


def test_a_folder_that_cannot_be_one(tmp_path, naps):
    (tmp_path / "file").write_text("")
    with (
        serving(files={"/f.pth": CONTENT}) as server,
        pytest.raises(EnvironmentMissingError, match=r"the cache in .*file cannot be used") as caught,
    ):
        fetched(server, tmp_path / "file")
    assert caught.value.hint == "Name another folder: `cache_dir`."


def test_the_usual_folder(monkeypatch, tmp_path):
    assert default_cache_dir().name == "no-cache-but-this"
    monkeypatch.delenv("CKPTCONV_CACHE_DIR")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_cache_dir() == Path("/elsewhere/ckptconv")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path("/home/me/.cache/ckptconv")


@pytest.mark.parametrize(
    "answer", [RuntimeError("no home"), Path("~/.cache/ckptconv")], ids=["error", "a relative path"]
)
def test_no_home_folder(answer, monkeypatch):
    """What releases of platformdirs do where nothing names a home folder."""
    monkeypatch.delenv("CKPTCONV_CACHE_DIR")
    monkeypatch.setattr("ckptconv.sources.cache.user_cache_path", Mock(side_effect=[answer]))
    with pytest.raises(EnvironmentMissingError, match="there is no home folder for the cache") as caught:
        default_cache_dir()
    assert caught.value.hint == "Name another folder: `cache_dir`."


# -- the cache is input ----------------------------------------------------------------------------------------------

PLANTED = {"address": "x", "name": "f.pth", "size": 20, "version": 'ETag "v1"', "published": "", "fetched": 20}
MINE = b"the user's own file\n"


def planted(cache: Path, url: str, note: object = None, part: bool = False) -> Path:
    """The folder of an address, with a note in it."""
    folder = cache / (hashlib.sha256(url.encode()).hexdigest()[:24] + (".part" if part else ""))
    folder.mkdir(parents=True)
    if note is not None:
        (folder / "~note.json").write_bytes(note if isinstance(note, bytes) else json.dumps(note).encode())
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "../../home/thesis.txt",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "~note.json",
        "a\nb",
        "a\0b",
        "x" * 5000,
        "..\\f.pth",
    ],
)
def test_a_note_names_a_file_of_its_folder_or_nothing(name, tmp_path, naps):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_bytes(MINE)
    cache, url = tmp_path / "cache", "http://127.0.0.1:1/any.pth"
    folder = planted(cache, url, {**PLANTED, "name": name})
    with pytest.raises(UnreadableError, match="cannot be fetched"):
        Address(url, Fetching(True, cache)).open()
    assert Cache(cache).entries() == []
    Cache(cache).clear()
    assert not folder.exists()
    assert (tmp_path / "home" / "thesis.txt").read_bytes() == MINE


@pytest.mark.parametrize(
    "note",
    [
        *(b"", b"{", b"[]", b"null", b"[" * 50_000, b"\xff", b'{"size": ' + b"9" * 5000 + b"}"),
        *({**PLANTED, "size": value} for value in (-1, 1.5, True, "20", None, [])),
        *({**PLANTED, key: value} for key in ("address", "name", "version", "published") for value in (1, None, [])),
        *({**PLANTED, "fetched": value} for value in (-1, 21, False)),
        {**PLANTED, "hash_checked": True},
        {key: value for key, value in PLANTED.items() if key != "version"},
        {**PLANTED, "address": "x" * (1 << 17)},
    ],
)
def test_a_note_that_nobody_wrote(note, tmp_path, naps):
    url = "http://127.0.0.1:1/f.pth"
    (planted(tmp_path, url, note) / "f.pth").write_bytes(MINE)
    assert Cache(tmp_path).entries() == []
    with pytest.raises(UnreadableError, match="cannot be fetched"):
        Address(url, Fetching(True, tmp_path)).open()


def test_a_digest_in_a_note_is_not_believed(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        url = f"{server.url}/f.pth"
        note = {**PLANTED, "size": len(MINE), "fetched": len(MINE), "published": f"md5 {MD5}"}
        (planted(tmp_path, url, note) / "f.pth").write_bytes(MINE)
        assert fetched(server, tmp_path, published=Digest("md5", MD5))[0] == CONTENT


def test_without_a_network_the_digest_is_checked_all_the_same(tmp_path, naps):
    url = "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    note = {**PLANTED, "name": "resnet50-11ad3fa6.pth", "published": "sha256 11ad3fa6"}
    (planted(tmp_path, url, note) / "resnet50-11ad3fa6.pth").write_bytes(MINE)
    assert Cache(tmp_path).find(url, None, Digest("sha256", "11ad3fa6")) is None


@pytest.mark.parametrize("part", [True, False], ids=["part", "whole"])
@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "folder", "dangling"])
def test_what_is_planted_is_neither_written_to_nor_read(kind, part, tmp_path, naps):
    """Whatever stands where the file, its note and the note's draft will stand."""
    if part:
        (tmp_path / "mine").write_bytes(MINE)
    with serving(files={"/f.pth": CONTENT}, ranged=False) as server:
        if not part:
            (tmp_path / "mine").write_bytes(CONTENT)
        mine = (tmp_path / "mine").read_bytes()
        folder = planted(tmp_path / "cache", f"{server.url}/f.pth", part=part)
        for name in ("f.pth", "~note.json", "~note.json.draft"):
            target = folder / name
            if kind == "symlink":
                target.symlink_to(tmp_path / "mine")
            elif kind == "hard link":
                target.hardlink_to(tmp_path / "mine")
            elif kind == "fifo":
                os.mkfifo(target)
            elif kind == "folder":
                (target / "in" / "it").mkdir(parents=True)
            else:
                target.symlink_to(tmp_path / "made")
        assert Cache(tmp_path / "cache").entries() == []
        assert fetched(server, tmp_path / "cache")[0] == CONTENT
        assert server.requests
    assert (tmp_path / "mine").read_bytes() == mine
    assert not (tmp_path / "made").exists()
    assert left(tmp_path / "cache") == ["f.pth", "~note.json"]


@pytest.mark.parametrize("part", [True, False], ids=["part", "whole"])
def test_a_folder_that_is_a_link(part, tmp_path, naps):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "f.pth").write_bytes(MINE)
    with serving(files={"/f.pth": CONTENT}) as server:
        folder = planted(tmp_path / "cache", f"{server.url}/f.pth", part=part)
        folder.rmdir()
        folder.symlink_to(tmp_path / "home")
        assert fetched(server, tmp_path / "cache")[0] == CONTENT
        folder.unlink() if folder.is_symlink() else None
    Cache(tmp_path / "cache").clear()
    assert (tmp_path / "home" / "f.pth").read_bytes() == MINE


def test_clear_follows_no_link(tmp_path):
    (tmp_path / "home" / "in").mkdir(parents=True)
    (tmp_path / "home" / "f.pth").write_bytes(MINE)
    folder = planted(tmp_path / "cache", "https://h/f.pth", PLANTED)
    (folder / "f.pth").write_bytes(MINE)
    (folder / "link").symlink_to(tmp_path / "home")
    (tmp_path / "cache" / ("0" * 24)).symlink_to(tmp_path / "home")
    assert Cache(tmp_path / "cache").clear() == (1, len(MINE))
    assert list((tmp_path / "cache").iterdir()) == []
    assert (tmp_path / "home" / "f.pth").read_bytes() == MINE


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o722])
def test_a_cache_that_others_can_write_to_is_refused_with_the_command_that_helps(mode, tmp_path):
    cache = tmp_path / "a cache"
    cache.mkdir()
    cache.chmod(mode)
    for words in (["list"], ["clear"]):
        done = run("cache", *words, "--cache-dir", cache)
        assert done.returncode == 4
        assert done.stderr.splitlines() == [
            f"error: the folder {cache} is writable by others, who could change its content",
            f"hint: Remove that permission: chmod go-w '{cache}'",
        ]
    subprocess.run(["sh", "-c", done.stderr.partition("permission: ")[2]], check=True)
    assert run("cache", "list", "--cache-dir", cache).returncode == 0


def test_a_cache_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(EnvironmentMissingError) as caught:
        Cache(tmp_path).entries()
    assert caught.value.message == (f"the folder {tmp_path} belongs to another user, who could change its content")
    assert caught.value.hint == "Name a folder of your own: `cache_dir`."


def test_an_entry_that_others_can_write_to_is_none(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path)
        (folder,) = tmp_path.iterdir()
        folder.chmod(0o777)
        assert Cache(tmp_path).entries() == []
        server.sent = 0
        assert fetched(server, tmp_path)[0] == CONTENT
        assert server.sent > len(CONTENT)


@pytest.mark.parametrize("name", ["ckptconv.json", "~note.json", "~note.json.draft", "..", "a%00b", "%2E%2E%2Ff"])
def test_a_file_of_any_name_is_kept(name, tmp_path, naps):
    with serving(files={f"/{name}": CONTENT}) as server:
        for requests in (2, 0):
            content, transfer = fetched(server, tmp_path, f"/{name}")
            assert content == CONTENT
            assert bool(transfer.requests) is bool(requests)


def test_a_list_does_not_wait_for_a_pipe(tmp_path):
    folder = planted(tmp_path, "https://h/f.pth")
    os.mkfifo(folder / "~note.json")
    done = run("cache", "list", "--cache-dir", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"cache     {tmp_path}\n")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have(name, tmp_path):
    with pytest.raises(EnvironmentMissingError, match="cannot be used"):
        Cache(tmp_path / name).entries()
    with pytest.raises(EnvironmentMissingError, match="cannot be used"), serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path / name)


# -- killed ----------------------------------------------------------------------------------------------------------


def command(server, out: Path, cache: Path, *more: str) -> list[str]:
    options = ["--whole", "--cache-dir", str(cache), *more]
    return [sys.executable, "-m", "ckptconv", "convert", f"{server.url}/f.ckpt", str(out), *options]


def test_a_kill_at_any_moment_poisons_nothing(checkpoint, tmp_path):
    out, cache, spool = tmp_path / "out", tmp_path / "cache", tmp_path / "spool"
    for folder in (out, cache, spool):
        folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(spool)}
    size = checkpoint.stat().st_size
    with serving(files={"/f.ckpt": checkpoint}, rate=200_000_000) as server:
        for megabytes in (5, 20, 30):
            server.sent = 0
            process = subprocess.Popen(command(server, out / "r18.pth", cache), env=environment)
            while server.sent < megabytes * 1_000_000 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert left(out) == left(spool) == []
            assert all(not entry.whole for entry in Cache(cache).entries())
        (entry,) = Cache(cache).entries()
        assert entry.fetched > 40_000_000
        server.sent = 0
        done = subprocess.run(command(server, out / "r18.pth", cache), env=environment, check=True, timeout=120)
        assert done.returncode == 0
        assert server.sent < size - entry.fetched + 200_000  # it went on where it was
    assert left(out) == ["r18.pth"]
    assert left(cache) == ["f.ckpt", "~note.json"]
    (kept,) = cache.rglob("f.ckpt")
    assert kept.read_bytes() == checkpoint.read_bytes()
    assert len(torch.load(out / "r18.pth", weights_only=True)["state_dict"]) == 120


def test_a_kill_while_parts_are_fetched_leaves_nothing_at_all(checkpoint, tmp_path):
    out, spool = tmp_path / "out", tmp_path / "spool"
    for folder in (out, spool):
        folder.mkdir()
    with serving(files={"/f.ckpt": checkpoint}, rate=100_000_000) as server:
        words = [sys.executable, "-m", "ckptconv", "convert", f"{server.url}/f.ckpt", str(out / "r18.pth")]
        environment = {**os.environ, "TMPDIR": str(spool), "CKPTCONV_CACHE_DIR": str(tmp_path / "cache")}
        process = subprocess.Popen(words, env=environment)
        while server.sent < 10_000_000 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left(tmp_path) == []


# -- the commands ----------------------------------------------------------------------------------------------------


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "ckptconv", *map(str, words)], server=forked.COMMANDS)


def test_cache_list_and_clear(tmp_path, naps):
    with serving(files={"/f.pth": CONTENT}) as server:
        fetched(server, tmp_path, "/f.pth?key=secret", published=Digest("md5", MD5[:8]))
    listed = run("cache", "list", "--cache-dir", tmp_path)
    assert listed.stdout.splitlines() == [
        f"cache     {tmp_path}",
        f"file      {server.url}/f.pth?… (3.0 MB, published md5 {MD5[:8]})",
    ]
    data = json.loads(run("cache", "list", "--cache-dir", tmp_path, "--json").stdout)
    assert (data["command"], data["files"][0]["published"]) == ("cache list", f"md5 {MD5[:8]}")
    cleared = run("cache", "clear", "--cache-dir", tmp_path)
    assert cleared.stdout.splitlines() == [f"cache     {tmp_path}", "removed   1 file, 3.0 MB"]
    assert left(tmp_path) == []
    assert json.loads(run("cache", "clear", "--cache-dir", tmp_path, "--json").stdout)["files"] == 0

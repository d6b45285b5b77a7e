"""What servers do to downloads: the right result, or the right refusal in one sentence."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate

import pytest
import trustme

from ckptconv.errors import CkptconvError, UnreadableError
from ckptconv.sources.http import HttpFile
from ckptconv.sources.interface import Fetching, UnreachableError
from ckptconv.sources.locate import locate
from tests.support.server import numbers, serving

CONTENT = numbers(3_000_000)
PARTS = [(0, 65536), (70_000, 70_008), (1_000_000, 2_500_000), (2_999_978, 3_000_000)]


@contextmanager
def http_file(server, path="/f.pth"):
    file = HttpFile(f"{server.url}{path}", f"{server.url}{path}")
    try:
        yield file
    finally:
        file.close()


def take(file: HttpFile, start: int, end: int | None) -> bytes:
    return b"".join(file.read(start, end))


def refused(server, path="/f.pth") -> UnreadableError:
    """What opening the address and reading parts of it ends with."""
    try:
        with http_file(server, path) as file:
            for start, end in PARTS:
                take(file, start, end)
            file.require_unchanged()
    except UnreadableError as error:
        return error
    pytest.fail("it was read to its end")


def test_parts_are_parts(naps):
    with serving(files={"/f.pth": CONTENT}) as server, http_file(server) as file:
        assert (file.size, file.version, file.ranged) == (len(CONTENT), 'ETag "v1"', True)
        assert file.head == CONTENT[:65536]
        for start, end in PARTS:
            assert take(file, start, end) == CONTENT[start:end]
        file.require_unchanged()
        assert server.requests == file.requests == 1 + len(PARTS) + 1
        assert {s.get("if-range") for s in server.seen[1:]} == {'"v1"'}
        assert {s["accept-encoding"] for s in server.seen} == {"identity"}
    assert naps == []


@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
def test_a_server_without_ranges_sends_the_whole(length, naps):
    with serving(files={"/f.pth": CONTENT}, ranged=False, length=length) as server, http_file(server) as file:
        assert (file.ranged, file.size, file.head) == (False, len(CONTENT) if length else None, b"")
        assert take(file, 0, file.size) == CONTENT


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_a_connection_that_breaks_anywhere_is_taken_up_again(seed, ranged, naps):
    rng = random.Random(seed)
    cuts = [rng.choice([0, 1, rng.randrange(65536), rng.randrange(3_000_000)]) for _ in range(4)]
    with serving(files={"/f.pth": CONTENT}, ranged=ranged) as server, http_file(server) as file:
        server.cut = list(cuts)
        assert take(file, 0, file.size) == CONTENT
        assert naps[0] == 0.0
        if ranged:  # a little is lost where the connection broke, and nothing is sent twice but that
            assert server.sent < len(CONTENT) + 65536 + 5 * 65536 + 10_000


def test_a_server_that_sends_less_than_is_asked_for_is_asked_again_at_once(naps):
    with serving(files={"/f.pth": CONTENT}, most=100_000) as server, http_file(server) as file:
        assert take(file, 0, file.size) == CONTENT
        assert server.requests == 1 + 30
    assert naps == []


def test_a_connection_that_always_breaks_is_given_up(naps):
    with serving(files={"/f.pth": CONTENT}) as server, http_file(server) as file:
        server.cut = [0] * 100
        with pytest.raises(UnreachableError, match=r"cannot be fetched: the connection broke \(5 attempts\)") as e:
            take(file, 0, 1000)
        assert e.value.hint == "Try again later."
    assert naps == [0.0, 1.0, 2.0, 4.0]  # urllib3 sends the second attempt at once


def test_a_slow_server_is_waited_for(naps):
    with serving(files={"/f.pth": CONTENT[:200_000]}, rate=1_000_000) as server, http_file(server) as file:
        started = time.monotonic()
        assert take(file, 65536, 200_000) == CONTENT[65536:200_000]
        assert time.monotonic() - started > 0.1


@contextmanager
def dripping(start: bytes, drop: bytes, every: float):
    """A server that sends a start at once, and then a drop now and then."""

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(start)
            while drop:
                time.sleep(every)
                connection.sendall(drop)
            time.sleep(every)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=drip, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/f.pth"
        listening.shutdown(socket.SHUT_RDWR)


PART = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 65536\r\nContent-Range: bytes 0-65535/100000\r\n"


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"H"),
        (PART + b"X-A: ", b"a"),
        (PART + b"\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
    ids=["status", "header", "body", "chunk's length"],
)
def test_a_server_that_sends_a_byte_now_and_then(start, drop, naps, monkeypatch):
    monkeypatch.setattr("ckptconv.sources.session.MAX_WAIT", 0.4)
    monkeypatch.setattr("ckptconv.sources.session.TIMEOUT", (5, 5))
    began = time.monotonic()
    with dripping(start, drop, 0.02) as address, pytest.raises(UnreachableError) as caught:
        b"".join(HttpFile(address, "shown").read(0, None))
    assert caught.value.message == "shown cannot be fetched: the server sends less than 4 kB per second"
    assert caught.value.hint == "Try again later. Download it another way, and give the file's path."
    assert time.monotonic() - began < 4


def test_a_server_that_goes_silent_within_a_body(naps, monkeypatch):
    monkeypatch.setattr("ckptconv.sources.session.TIMEOUT", (5, 0.1))
    with dripping(PART + b"\r\n", b"", 2) as address, pytest.raises(UnreachableError) as caught:
        HttpFile(address, "shown")
    assert caught.value.message == "shown cannot be fetched: the server does not answer in time (5 attempts)"
    assert caught.value.hint == "Each attempt waited 0.1 s. Try again later."


def test_a_slow_reader_is_not_taken_for_a_slow_server(naps, monkeypatch):
    monkeypatch.setattr("ckptconv.sources.session.MAX_WAIT", 0.3)
    with serving(files={"/f.pth": CONTENT}) as server, http_file(server) as file:
        got = []
        for number, run in enumerate(file.read(0, 400_000)):
            got.append(run)
            time.sleep(0.1 if number < 5 else 0)
        assert b"".join(got) == CONTENT[:400_000]
    assert naps == []


def test_a_silent_server_is_given_up(naps, monkeypatch):
    monkeypatch.setattr("ckptconv.sources.session.TIMEOUT", (0.2, 0.2))
    with serving(files={"/f.pth": CONTENT}, after=lambda _: time.sleep(0.5)) as server:
        assert "the server does not answer in time (5 attempts)" in refused(server).message


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_server_is_asked_again_when_it_says(status, naps):
    answers = [(status, {"Retry-After": "7"}, b"")] * 2
    with serving(files={"/f.pth": CONTENT}, answers=answers) as server, http_file(server) as file:
        assert file.head == CONTENT[:65536]
    assert naps == [7.0, 7.0]


def test_a_date_to_come_back_at_is_understood(naps):
    answers = [(503, {"Retry-After": formatdate(time.time() + 30, usegmt=True)}, b"")]
    with serving(files={"/f.pth": CONTENT}, answers=answers) as server, http_file(server):
        assert len(naps) == 1
        assert 25 < naps[0] <= 30


@pytest.mark.parametrize(
    ("answers", "message", "hint"),
    [
        ([(401, {}, b"")], "cannot be fetched: access denied (HTTP 401)", "~/.netrc"),
        ([(403, {}, b"")], "cannot be fetched: access denied (HTTP 403)", "~/.netrc"),
        ([(404, {}, b"")], "does not exist (HTTP 404)", "Check the address."),
        ([(410, {}, b"")], "does not exist (HTTP 410)", "Check the address."),
        ([(418, {}, b"")], "cannot be fetched (HTTP 418)", "Check the address."),
        ([(416, {}, b"")], "is empty", "Nothing was uploaded"),
        ([(500, {}, b"")] * 9, "cannot be fetched: the server answers HTTP 500 (5 attempts)", "Try again later."),
        (
            [(429, {"Retry-After": "3600"}, b"")],
            "the server answers HTTP 429 and asks to wait 3600 s",
            "Try again after that time.",
        ),
        ([(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>")], "is a web page, not a ch", "a login page"),
        ([(200, {"Content-Encoding": "gzip"}, b"x")], "the server sends it compressed", "another way"),
        ([(206, {}, b"x" * 10)], "the server sends another range than requested", "another way"),
        (
            [(206, {"Content-Range": "bytes 5-14/100"}, b"x" * 10)],
            "the server sends another range than requested",
            "another way",
        ),
        (
            [(206, {"Content-Range": "bytes 0-9/5"}, b"x" * 10)],
            "the server sends another range than requested",
            "another way",
        ),
        (
            [(206, {"Content-Range": "bytes 0-9/*"}, b"x" * 10)],
            "the server sends another range than requested",
            "another way",
        ),
        (
            [(206, {"Content-Range": "bytes 0-99/100"}, b"x" * 10)],
            "the server sends another range than requested",
            "another way",
        ),
    ],
)
def test_answers_that_are_no_file(answers, message, hint, naps):
    with serving(files={"/f.pth": CONTENT}, answers=list(answers)) as server:
        error = refused(server, "/f.pth")
    assert error.message.startswith(f"{server.url}/f.pth ")
    assert message in error.message
    assert hint in error.hint
    assert error.exit_code == 3


def test_nobody_listens(naps):
    with serving() as server:
        pass
    assert "cannot be fetched: the connection broke (5 attempts)" in refused(server).message


def test_a_file_that_changes_between_two_requests(naps):
    with serving(files={"/f.pth": CONTENT}) as server:

        def change(number: int) -> None:
            if number == 3:
                server.files["/f.pth"], server.version = numbers(3_000_000, 1), 2

        server.after = change
        error = refused(server)
    assert error.message == f"{server.url}/f.pth changed while it was being read"
    assert error.hint == "Wait until its writer is done, then try again."


@pytest.mark.parametrize("kind", ["size alone", "date alone", "ranges end"])
def test_other_ways_to_notice_a_change(kind, naps):
    how = {"etag": False, "date": kind == "date alone"}
    with serving(files={"/f.pth": CONTENT}, **how) as server:

        def change(number: int) -> None:
            if number == 3:
                server.files["/f.pth"] = numbers(3_000_000 + (kind == "size alone"), 1)
                server.version = 2
                server.ranged = kind != "ranges end"

        server.after = change
        assert refused(server).message.endswith("changed while it was being read")


def test_a_file_that_changes_during_the_last_answer(naps):
    """The answer itself cannot tell: the server is asked once more at the end."""
    with serving(files={"/f.pth": CONTENT}) as server, http_file(server) as file:
        server.midway = lambda: setattr(server, "version", 2)
        take(file, 0, len(CONTENT))
        with pytest.raises(UnreadableError, match="changed while it was being read"):
            file.require_unchanged()


def test_a_broken_answer_without_ranges_and_version_is_not_patched_together(naps):
    with serving(files={"/f.pth": CONTENT}, ranged=False, etag=False, date=False) as server, http_file(server) as file:
        server.cut = [100_000]
        with pytest.raises(UnreachableError, match="its server supports neither ranges nor versions"):
            take(file, 0, file.size)


@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("more", [-1000, 1000])
def test_a_server_that_lies_about_length(ranged, more, naps):
    """A body of another length than announced is never taken for the file's."""

    def lie(headers):
        return {**headers, "Content-Length": str(int(headers["Content-Length"]) + more), "Connection": "close"}

    with serving(files={"/f.pth": CONTENT}, ranged=ranged, lie=lie) as server:
        if ranged:
            assert "the server sends another range than requested" in refused(server).message
        elif more > 0:
            assert "the connection broke (5 attempts)" in refused(server).message
        else:  # nothing tells, but what is read by its content: see test_cache
            with http_file(server) as file:
                assert take(file, 0, file.size) == CONTENT[:-1000]


# -- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["http://example.org/a.pth", "HTTP://example.org/a.pth", "http://127.0.0.1.example.org/a.pth", "http://10.0.0.1/a"],
)
def test_http_without_tls_is_refused_before_anything_is_sent(address):
    with pytest.raises(UnreadableError, match="is http without TLS: anybody on the way could change the file"):
        locate(address, Fetching()).path.open()


def test_redirects_are_followed(naps):
    with serving(files={"/f.pth": CONTENT}, redirects={"/old": "/f.pth"}) as server, http_file(server, "/old") as file:
        assert take(file, 70_000, 80_000) == CONTENT[70_000:80_000]


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("http://example.org/f.pth?token=secret", "http://example.org"),
        ("ftp://127.0.0.1/f.pth", "ftp://127.0.0.1"),
        ("file:///etc/passwd", "file://"),
    ],
)
def test_redirects_to_where_less_is_known_are_not(target, where, naps):
    with serving(redirects={"/old": target}) as server:
        error = refused(server, "/old")
    assert error.message == f"{server.url}/old redirects from http:// to {where}, which is not followed"


def test_redirects_in_a_circle(naps):
    with serving(redirects={"/a": "/b", "/b": "/a"}) as server:
        assert refused(server, "/a").message.endswith("/a cannot be fetched: more than 20 redirects")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_an_unknown_certificate_authority(secure, naps):
    with serving(secure, files={"/f.pth": CONTENT}) as server:
        assert "cannot be fetched: TLS certificate verification failed" in refused(server).message
    assert naps == []


def test_tls_and_a_redirect_out_of_it(secure, authority, naps, monkeypatch, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    with serving(files={"/f.pth": CONTENT}) as plain, serving(secure, files={"/f.pth": CONTENT}) as server:
        with http_file(server) as file:
            assert take(file, 70_000, 80_000) == CONTENT[70_000:80_000]
        server.redirects["/out"] = f"{plain.url}/f.pth"
        error = refused(server, "/out")
        assert error.message.endswith("/out redirects from https:// to http://127.0.0.1, which is not followed")
        assert plain.requests == 0


def test_a_login_from_netrc_is_used_and_not_sent_on(naps, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(files={"/f.pth": CONTENT}) as server, http_file(server):
        assert server.seen[0]["authorization"].startswith("Basic ")


def test_a_proxy_is_used(naps, monkeypatch):
    """The proxy here is the server itself, which sees the whole address of a host that there is not."""
    with serving(files={"http://127.0.0.2:1/f.pth": CONTENT}) as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "")
        file = HttpFile("http://127.0.0.2:1/f.pth", "shown")
        assert file.head == CONTENT[:65536]
        file.close()


@pytest.mark.parametrize("status", [404, 500])
def test_nothing_secret_is_ever_said(status, naps):
    with serving(answers=[(status, {}, b"")] * 9) as server:
        address = f"{server.url}/f.pth?X-Amz-Signature=hush#hush"
        with pytest.raises(CkptconvError) as caught:
            locate(address, Fetching()).path.open()
    assert "hush" not in str(caught.value) + repr(locate(address, Fetching()))
    assert str(caught.value).startswith(f"{server.url}/f.pth?… ")

"""One parser of addresses: what it accepts, every library reads in the same way, and so is what is requested."""

from __future__ import annotations

import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ckptconv.errors import CkptconvError, UnreadableError, UsageError
from ckptconv.sources.http import HttpFile
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.sources.urls import UrlError, join, parse, redacted
from tests.support.server import numbers, serving

CONTENT = numbers(100_000)
PIECES = [
    *("http://", "https://", "HTTP://", "ftp://", "//", "/", "\\", "@", ":", "#", "?", "[", "]", "%", ".", "..", ";"),
    *("127.0.0.1", "evil.example", "localhost", "[::1]", "[fe80::1%25eth0]", "80", "0", "99999", "٣", "me:pw"),
    *("%40", "%5C", "%2f", "%00", "%zz", "\t", "\n", " ", "\x00", "\x7f", "\x9b", "ｅ", "。", "ß", "a", "xn--e1afmkfd"),
    *("0x7f.1", "2130706433", "_", "-", "&", "=", "f.pth", "\ud800"),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=9).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=7).map(lambda parts: "https://" + "".join(parts)),
    st.text(max_size=30).map("https://h".__add__),
)


@pytest.fixture
def dialled(monkeypatch):
    """The hosts and ports that would have been called; nobody is."""
    called: list[tuple[str, int]] = []

    def note(address, *_, **__):
        called.append(address)
        raise OSError("nobody is called")

    monkeypatch.setattr(urllib3.util.connection, "create_connection", note)
    monkeypatch.setattr("ckptconv.sources.retries.sleep", lambda _: None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return called


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example("https://evil\\@dl.fbaipublicfiles.com/moco/f.pth")
@example("http://evil\\@127.0.0.1/x")
@example("http://127.0.0.1#@evil.example/x")
@example("http://[::1]/x")
@example("https://EXAMPLE.org:443/a%7eb/%7Ec/../d?x=[1]")
def test_the_host_that_is_called_is_the_host_of_the_rule(dialled, text):
    try:
        url = parse(text)
    except UrlError:
        return
    if url.scheme not in ("http", "https"):
        return
    assert parse(str(url)) == url
    there = urlsplit(requests.Request("GET", text).prepare().url)
    assert (there.hostname, there.port) == (url.host.strip("[]"), url.port)
    dialled.clear()
    with pytest.raises(UnreadableError) as caught:
        HttpFile(text, url.shown)
    if not url.is_secure:
        assert caught.value.message.endswith("is http without TLS: anybody on the way could change the file")
        assert dialled == []
    else:
        assert {*dialled} == {(url.host.strip("[]"), url.port or (443 if url.scheme == "https" else 80))}


@settings(max_examples=1500, deadline=None)
@given(st.one_of(TEXTS, TEXTS.map("hf://o/r/".__add__), TEXTS.map("s3://b/".__add__)))
def test_any_address_is_an_address_or_one_sentence(text):
    try:
        shown = locate(text, Fetching()).path.name
    except CkptconvError as error:
        shown = error.message
    assert shown.isprintable() or not re.match("[A-Za-z][A-Za-z0-9+.-]*://", text)  # else it is a path


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://evil\\@dl.fbaipublicfiles.com/f.pth", "contains a backslash"),
        ("http://evil\\@127.0.0.1/x", "contains a backslash"),
        ("https://h/a b.pth", "contains a space"),
        ("https://h/a\tb.pth", "contains a control character"),
        ("https://h/a\nb.pth", "contains a control character"),
        ("https://h/\x7f", "contains a control character"),
        ("https://h/\x9b31m", "contains the character '\\x9b'"),
        ("https://h/ü.pth", "contains the character '\\xfc'"),
        ("https://ｅvil.org/f", "contains the character '\\uff45'"),
        ("https://h/\ud800", "contains the character '\\ud800'"),
        ("https://me:pw@h/f", "contains a user name or password"),
        ("https://me@h/f", "contains a user name or password"),
        ("s3://key:pw@bucket/f", "contains a user name or password"),
        ("https://h/a%2", "contains a % that does not begin %XX"),
        ("https://h%2Eorg/f", "has no valid host"),
        ("https://h./f", "has no valid host"),
        ("https://.h/f", "has no valid host"),
        ("https://h..org/f", "has no valid host"),
        ("https://[fe80::1%25eth0]/f", "has no valid host"),
        ("https://[::g]/f", "has no valid host"),
        ("https://[::1/f", "has no valid host"),
        ("https://" + "a" * 64 + ".org/f", "has no valid host"),
        ("https://h:/f", "has no valid port"),
        ("https://h:0/f", "has no valid port"),
        ("https://h:99999/f", "has no valid port"),
        ("https://h:65536/f", "has no valid port"),
        ("https://h:8o/f", "has no valid port"),
        ("https://h:" + "9" * 5000 + "/f", "has no valid port"),
        ("https://h/" + "a" * 9000, "is longer than 8,192 characters"),
        ("hf://o/r/a b.bin", "contains a space"),
        ("hf://o/r/a\\b.bin", "contains a backslash"),
        ("s3://b/a\nb", "contains a control character"),
    ],
)
def test_what_parsers_read_in_different_ways_is_refused(text, what):
    with pytest.raises(UsageError) as caught:
        locate(text, Fetching())
    assert caught.value.message.startswith("the address ")
    assert caught.value.message.endswith(f" {what}")
    assert caught.value.message.isprintable()
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://o/r/a%0Ab", "hf://o/r/a%0Ab contains a control character"),
        ("s3://b/a%1Bb", "s3://b/a%1Bb contains a control character"),
        ("s3://b/a#b", "s3://b/a contains a #"),
        ("hf://o/r/../../x", "hf://o/r/../../x leaves its folder"),
    ],
)
def test_names_in_stores(text, message):
    with pytest.raises(UsageError) as caught:
        locate(text, Fetching())
    assert caught.value.message == message


def test_a_store_s_name_may_have_a_space_which_is_written_as_elsewhere():
    assert locate("s3://b/my%20file.pth", Fetching()).path._stored == "b/my file.pth"
    assert locate("hf://o/r/x/index.json", Fetching()).path.sibling("a b.bin")._stored == "o/r/x/a b.bin"


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hush@h:99999/f",
        "https://me:hu?sh@h/f\\",
        "https://me:hu/sh@h/f g",
        "https://h/f g?sig=hush",
        "https://m:hush@h",
    ],
)
def test_no_password_is_printed(text):
    done = subprocess.run(
        [sys.executable, "-m", "ckptconv", "inspect", text], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "hu" not in done.stderr
    assert "Traceback" not in done.stderr


def test_what_may_be_shown():
    assert redacted("https://a@b@c/d?e#f") == "https://…@c/d?…"
    assert redacted("hf://o/r/f@main") == "hf://o/r/f@main"
    assert redacted("no address") == "no address"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/f", "https://h/f"),
        ("g?x", "https://h/a/g?x"),
        ("../g", "https://h/g"),
        ("//other/f", "https://other/f"),
        ("https://other/f", "https://other/f"),
        ("?y=[1]", "https://h/a/b?y=%5B1%5D"),
    ],
)
def test_references(location, target):
    assert str(join(parse("https://h/a/b"), location)) == target


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("http://evil\\@127.0.0.1/f.pth", "to an address that contains a backslash"),
        ("\\\\evil/f.pth", "to an address that contains a backslash"),
        ("/a b", "to an address that contains a space"),
        ("http://me:pw@127.0.0.1/f.pth", "to an address that contains a user name or password"),
        ("http://127.0.0.1:99999/f", "to an address that has no valid port"),
        ("http://[::1/f", "to an address that is not one"),
        ("http://127.0.0.1:port/f", "to an address that has no valid port"),
        ("//evil.example/f", "to http://evil.example"),
        ("s3://bucket/key", "to s3://bucket"),
        ("/\xfc", "to an address that contains the character '\\xfc'"),
        ("x" * 9000, "to an address that is longer than 8,192 characters"),
    ],
)
def test_where_a_server_sends_on_to(location, what, naps):
    with serving(redirects={"/old": location}) as server, pytest.raises(UnreadableError) as caught:
        HttpFile(f"{server.url}/old", "shown")
    assert caught.value.message == f"shown redirects from http:// {what}, which is not followed"


def test_what_is_requested_is_what_was_parsed(naps):
    """Byte for byte, where requests would repair: it takes dots out, and decodes what need not be encoded."""
    target = "/a/../b/%7Ex/./f.pth?sig=%2B%7E&x=%5B1%5D"
    with serving(files={"/a/../b/%7Ex/./f.pth": CONTENT}) as server:
        HttpFile(f"{server.url}{target}#part", "shown").close()
        assert server.asked[0][0] == target


def test_headers_for_one_server_are_not_sent_to_another(naps):
    with serving(files={"/f.pth": CONTENT}) as other, serving(redirects={"/old": f"{other.url}/f.pth"}) as server:
        HttpFile(f"{server.url}/old", "shown", headers={"Authorization": "Bearer hush"}).close()
        assert server.seen[0]["authorization"] == "Bearer hush"
        assert "authorization" not in other.seen[0]


ODD_HEADERS = [
    *("bytes 0-9/10", "bytes 0-" + "9" * 5000 + "/9", "9" * 5000, "-1", "1e9", "²", "0", "nan", 'W/"x"', "x" * 5000),
    *("Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 99 Jan 2020 99:00:00 GMT", ",,,"),
]
HEADERS = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40),
    st.sampled_from(ODD_HEADERS),
)
NAMES = ["Content-Range", "Content-Length", "Retry-After", "ETag", "Last-Modified", "Location", "Content-Encoding"]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([200, 206, 301, 302, 307, 401, 404, 416, 429, 500, 503]),
    st.dictionaries(st.sampled_from([*NAMES, "Transfer-Encoding"]), HEADERS, max_size=4),
    st.binary(max_size=30),
)
def test_any_headers_are_an_answer_or_one_sentence(running, status, headers, body):
    headers.setdefault("Connection", "close")
    running.answers = [(status, headers, body)] * 30
    said = "shown was read"
    try:
        file = HttpFile(f"{running.url}/f.pth", "shown")
        for _ in file.read(0, 20):
            pass
        file.require_unchanged()
        file.close()
    except CkptconvError as error:
        said = error.message
    assert said.startswith("shown ")
    assert said.isprintable()


@pytest.fixture
def running(naps, monkeypatch):
    monkeypatch.setattr("ckptconv.sources.session.TIMEOUT", (1, 0.2))
    with serving() as server:
        yield server

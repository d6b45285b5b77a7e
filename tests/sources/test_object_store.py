"""s3:// through the real s3fs against moto's server, gs:// through the real gcsfs against a stand-in."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import ckptconv
from ckptconv.errors import UnreadableError
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from tests.support.server import numbers


@pytest.fixture(scope="module")
def s3():
    """Where moto's server listens: S3 in memory, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Running on" in line:
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.fixture
def bucket(s3, monkeypatch, tmp_path):
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    store.mkdir("bucket")
    yield store
    store.rm("bucket", recursive=True)


def test_only_what_is_kept_crosses(bucket, checkpoint, tmp_path):
    bucket.put(str(checkpoint), "bucket/some/epoch=9.ckpt")
    words = ["convert", "s3://bucket/some/epoch=9.ckpt", str(tmp_path / "r18.pth"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "ckptconv", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    (fetched,) = data["source"]["fetched"]
    assert data["output"]["bytes"] <= fetched["fetched"] + 1_000_000
    assert fetched["fetched"] < data["output"]["bytes"] + 1_000_000 < checkpoint.stat().st_size
    assert fetched["version"].startswith("ETag ")
    assert data["output"]["fingerprint"] == ckptconv.convert(checkpoint, tmp_path / "local.pth").fingerprint


def test_a_change_between_two_parts_is_refused(bucket):
    content = numbers(3_000_000)
    bucket.pipe("bucket/f", content)
    source = locate("s3://bucket/f", Fetching()).path.open()
    assert source.read(1_000_000, 100) == content[1_000_000:1_000_100]
    bucket.pipe("bucket/f", numbers(3_000_000, 1))
    with pytest.raises(UnreadableError, match="s3://bucket/f changed while it was being read"):
        source.read(2_000_000, 100)
    with pytest.raises(UnreadableError, match="s3://bucket/f changed while it was being read"):
        source.require_unchanged()
    source.close()


def test_whole_goes_through_the_cache(bucket, tmp_path):
    content = numbers(3_000_000)
    bucket.pipe("bucket/f", content)
    for requests in (True, False):
        source = locate("s3://bucket/f", Fetching(whole=True, cache_dir=tmp_path)).path.open()
        assert source.read(0, source.size) == content
        assert bool(source.transfer.requests) is requests
        source.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/none.pth", "does not exist, or you have no access"),
        ("s3://nobucket/none.pth", "does not exist, or you have no access"),
        ("s3://bucket/folder", "is a folder"),
        ("s3://bucket/empty", "is empty"),
    ],
)
def test_refusals(bucket, address, message):
    bucket.pipe("bucket/folder/file", b"x")
    bucket.pipe("bucket/empty", b"")
    with pytest.raises(UnreadableError) as caught:
        locate(address, Fetching()).path.open()
    assert caught.value.message == f"{address} {message}"
    assert "hush" not in str(caught.value)


def test_without_a_login_an_open_bucket_is_read(bucket, monkeypatch):
    bucket.pipe("bucket/f", b"abc" * 1000)
    bucket.pipe("bucket/closed", b"abc" * 1000)
    bucket.chmod("bucket/f", "public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    source = locate("s3://bucket/f", Fetching()).path.open()
    assert source.read(0, 3) == b"abc"
    source.close()
    with pytest.raises(
        UnreadableError, match=r"s3://bucket/closed cannot be fetched: access denied\nLog in: aws configure"
    ):
        locate("s3://bucket/closed", Fetching()).path.open()


class _Storage(BaseHTTPRequestHandler):
    """The two calls of Google Cloud Storage's JSON API that reading an object needs."""

    protocol_version = "HTTP/1.1"
    content = b""
    generation = 1

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        kind = type(self)
        if not self.path.partition("?")[0].endswith("/o/f.pth"):
            return self._send(404, {}, b"{}")
        if "alt=media" not in self.path and "/download/" not in self.path:
            about = {"kind": "storage#object", "bucket": "bucket", "name": "f.pth", "size": str(len(kind.content))}
            about |= {"generation": str(kind.generation), "etag": "x", "updated": "2023-01-01T00:00:00.000Z"}
            about |= {"timeCreated": "2023-01-01T00:00:00.000Z"}
            return self._send(200, {"Content-Type": "application/json"}, json.dumps(about).encode())
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        assert found
        start, end = int(found[1]), int(found[2]) + 1
        size = len(kind.content)
        return self._send(206, {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, kind.content[start:end])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def test_google_cloud_storage(monkeypatch):
    handler = type("Storage", (_Storage,), {"content": numbers(3_000_000)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        source = locate("gs://bucket/f.pth", Fetching()).path.open()
        assert source.read(1_000_000, 1000) == handler.content[1_000_000:1_001_000]
        assert source.transfer.version == "generation 1"
        source.require_unchanged()
        handler.generation = 2
        with pytest.raises(UnreadableError, match=r"gs://bucket/f.pth changed while it was being read"):
            source.require_unchanged()
        source.close()
        with pytest.raises(UnreadableError, match=r"gs://bucket/none.pth does not exist"):
            locate("gs://bucket/none.pth", Fetching()).path.open()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

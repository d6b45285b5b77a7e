"""hf:// through the real huggingface_hub, against a stand-in for the Hub that `HF_ENDPOINT` names."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.support import forked
from tests.support.server import serving

COMMIT = "c0ffee" * 6 + "c0ff"
OTHER = "0ddba1" * 6 + "0ddb"


def hub(server, cdn, checkpoint, commit=COMMIT, revision="main", name="sub/epoch%3D9.ckpt"):
    """Have the server answer as the Hub does: a revision's commit and digest, and a signed address elsewhere."""
    cdn.files["/cdn/blob"] = checkpoint
    headers = {
        "X-Repo-Commit": commit,
        "X-Linked-Size": str(checkpoint.stat().st_size),
        "X-Linked-Etag": f'"{hashlib.sha256(checkpoint.read_bytes()).hexdigest()}"',
        "Location": f"{cdn.url}/cdn/blob?signature=hush",
    }
    server.heads[f"/org/repo/resolve/{revision}/{name}"] = (302, headers)
    server.redirects[f"/org/repo/resolve/{commit}/{name}"] = f"{cdn.url}/cdn/blob?signature=hush"


@pytest.fixture
def run(tmp_path):
    def run(server, *words: object, token: str = "hf_hush") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token}
        environment["CKPTCONV_CACHE_DIR"] = str(tmp_path / "cache")
        command = [sys.executable, "-m", "ckptconv", *map(str, words)]
        return forked.run(command, env=environment, server=forked.COMMANDS)

    return run


def test_only_what_is_kept_crosses_and_the_commit_is_written_down(run, checkpoint, tmp_path):
    with serving() as server, serving() as cdn:
        hub(server, cdn, checkpoint)
        done = run(server, "convert", "hf://org/repo/sub/epoch=9.ckpt", tmp_path / "r18.pth", "--json")
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)
        kept = data["output"]["bytes"]
        assert kept - 1_000_000 < server.sent + cdn.sent < kept + 1_000_000
        (fetched,) = data["source"]["fetched"]
        assert fetched["version"] == f"commit {COMMIT}"
        assert fetched["address"] == "hf://org/repo/sub/epoch=9.ckpt"
        assert fetched["published"].startswith("sha256 ")
        assert not fetched["hash_checked"]
        assert "hush" not in done.stdout
        asked = [headers for headers in server.seen if "/resolve/" in headers["path"]]
        assert {headers.get("authorization") for headers in asked} == {"Bearer hf_hush"}
        assert {headers.get("authorization") for headers in cdn.seen} == {None}


def test_whole_is_checked_against_the_hub_s_digest(run, checkpoint, tmp_path):
    with serving() as server, serving() as cdn:
        hub(server, cdn, checkpoint, OTHER, "v1.0")
        address = "hf://org/repo/sub/epoch=9.ckpt@v1.0"
        done = run(server, "convert", address, tmp_path / "r18.pth", "--whole", "--json")
        assert done.returncode == 0, done.stderr
        (fetched,) = json.loads(done.stdout)["source"]["fetched"]
        assert (fetched["version"], fetched["hash_checked"], fetched["whole"]) == (f"commit {OTHER}", True, True)

        status, headers = server.heads["/org/repo/resolve/v1.0/sub/epoch%3D9.ckpt"]
        server.heads["/org/repo/resolve/v1.0/sub/epoch%3D9.ckpt"] = (
            status,
            {**headers, "X-Linked-Etag": f'"{"0" * 64}"'},
        )
        done = run(server, "convert", address, tmp_path / "r18.pth", "--whole", "--force")
        assert done.returncode == 3
        assert f"error: {address} is not the file its authors published: its sha256 is " in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "EntryNotFound", "does not exist: its repository has no such file"),
        (404, "RevisionNotFound", "does not exist: its repository has no such revision"),
        (401, "RepoNotFound", "does not exist, or you have no access"),
        (403, "GatedRepo", "cannot be fetched: its repository is gated"),
    ],
)
def test_refusals(run, status, code, message):
    with serving() as server:
        server.heads["/org/repo/resolve/main/m.bin"] = (status, {"X-Error-Code": code, "X-Error-Message": "hush"})
        done = run(server, "inspect", "hf://org/repo/m.bin")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"error: hf://org/repo/m.bin {message}\nhint: ")
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr

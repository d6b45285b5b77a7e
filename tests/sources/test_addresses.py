"""What a source's name stands for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckptconv.errors import EnvironmentMissingError, UnreadableError, UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.methods import registry
from ckptconv.methods.interface import Layout, Method, Release
from ckptconv.rules import keep
from ckptconv.sources.address import Address
from ckptconv.sources.interface import Digest, Fetching
from ckptconv.sources.locate import locate
from ckptconv.sources.optional import REQUIREMENTS

FETCHING = Fetching()


def address(text: str) -> Address:
    found = locate(text, FETCHING).path
    assert isinstance(found, Address)
    return found


@pytest.mark.parametrize(
    "text", ["some.pth", "./moco_v2_800ep", "a/folder/moco_v2_800ep", "/a/b.pth", "C:name", "a:b/c"]
)
def test_a_path_is_a_path(text):
    assert locate(text, FETCHING).path == Path(text)
    assert locate(Path(text), FETCHING).path == Path(text)


def test_a_release_by_its_name_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = locate("moco_v2_800ep", FETCHING)
    assert isinstance(found.path, Address)
    assert found.path.url.endswith("moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar")
    assert found.path.digest == Digest("md5", "a04e12f8")
    assert (found.method.name, found.release.name, found.label) == ("moco", "moco_v2_800ep", "moco_v2_800ep")
    assert locate(Path("moco_v2_800ep"), FETCHING).path == Path("moco_v2_800ep")
    (tmp_path / "moco_v2_800ep").write_text("")
    assert locate("moco_v2_800ep", FETCHING).path == Path("moco_v2_800ep")


def test_a_release_of_somebody_s_own(tmp_path):
    release = Release("mine_r50", "https://example.org/mine.pth", sha256="0123abcd", backbone="ResNet-50")
    mine = Method("mine", "Mine", (Layout((keep("{k...}", "{k...}"),), ("",)),), releases=(release,))
    found = locate("mine_r50", FETCHING, [mine])
    assert found.path.digest == Digest("sha256", "0123abcd")
    assert found.method is mine


def test_a_name_that_is_nearly_a_release_s():
    with pytest.raises(UnreadableError) as caught:
        locate("moco_v2_80ep", FETCHING)
    assert caught.value.message == "there is no file moco_v2_80ep, and no release of that name"
    assert caught.value.hint.startswith("Did you mean moco_v2_800ep")
    assert locate("moco_v2_80ep.pth", FETCHING).path == Path("moco_v2_80ep.pth")  # the reader says that there is none


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("https://example.org/a/b.pth", "https://example.org/a/b.pth", "b.pth"),
        ("HTTPS://example.org/a/b%20c.pth", "https://example.org/a/b%20c.pth", "b_c.pth"),
        ("https://example.org:8443/b.pth?sig=secret#x", "https://example.org:8443/b.pth?…", "b.pth"),
        (
            "https://example.org/a/..%2F..%2Fetc%2Fpasswd",
            "https://example.org/a/..%2F..%2Fetc%2Fpasswd",
            ".._.._etc_passwd",
        ),
        ("https://example.org/..", "https://example.org/..", "file"),
        ("https://example.org/a/", "https://example.org/a/", "file"),
        ("hf://org/repo/model.safetensors", "hf://org/repo/model.safetensors", "model.safetensors"),
        ("hf://org/repo/sub/m.bin@refs/pr/1", "hf://org/repo/sub/m.bin@refs/pr/1", "m.bin"),
        ("s3://bucket/key/m.pth", "s3://bucket/key/m.pth", "m.pth"),
        ("gs://bucket/m.pth", "gs://bucket/m.pth", "m.pth"),
    ],
)
def test_addresses(text, shown, name):
    found = address(text)
    assert (str(found), found.name, found.digest) == (shown, name, None)
    assert "secret" not in repr(found) + str(found) + locate(text, FETCHING).label


def test_what_stands_beside_keeps_the_revision_and_the_signature():
    assert address("https://h/a/index.json?s=1").sibling("b.bin").url == "https://h/a/b.bin?s=1"
    assert address("hf://o/r/x/index.json@v1").sibling("b.bin").url == "hf://o/r/x/b.bin@v1"
    assert address("s3://b/x/index.json").sibling("b.bin").url == "s3://b/x/b.bin"


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("https://download.openmmlab.com/x/mocov2_20220825-b6d23c86.pth", Digest("sha256", "b6d23c86")),
        ("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", Digest("sha256", "11ad3fa6")),
        ("https://download.openmmlab.com/x/model.pth", None),
        ("https://example.org/resnet50-11ad3fa6.pth", None),  # elsewhere it may be a commit
    ],
)
def test_hosts_that_name_files_by_their_digest(text, digest):
    assert address(text).digest == digest


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "ftp://h/a",
            "ftp:// addresses are not supported",
            "`source` is a path, https://, hf://, s3://, gs://",
        ),
        ("file:///a", "file:// addresses are not supported", "`source` is a path"),
        ("https://h", "https://h does not name a file", "…/FILE"),
        ("s3://bucket/", "s3://bucket/ does not name a file", "…/FILE"),
        ("hf://org/repo", "hf://org/repo does not name a file", "hf://ORGANISATION/REPOSITORY/FILE[@REVISION]"),
    ],
)
def test_addresses_that_are_none(text, message, hint):
    with pytest.raises(UsageError) as caught:
        locate(text, FETCHING)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_what_a_scheme_needs_is_what_its_extra_says():
    text = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for scheme, requirement in REQUIREMENTS.items():
        assert f'\n{scheme} = ["{requirement}"]\n' in text


@pytest.mark.parametrize(
    ("scheme", "package", "requirement"),
    [
        ("hf", "huggingface_hub", "huggingface_hub>=0.26"),
        ("s3", "s3fs", "s3fs>=2024.6"),
        ("gs", "gcsfs", "gcsfs>=2024.6"),
    ],
)
def test_a_package_that_is_missing_is_named_with_what_to_type(scheme, package, requirement, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentMissingError) as caught:
        open_checkpoint(locate(f"{scheme}://a/b/c.pth", FETCHING).path)
    assert caught.value.exit_code == 4
    assert caught.value.message == f"{scheme}:// needs the package {package}"
    assert caught.value.hint == f"pip install '{requirement}'"


def test_releases_are_listed():
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "ckptconv", "releases", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    names = [line.split()[0] for line in run("moco").splitlines()[1:]]
    assert {"moco_v2_800ep", "mocov3_r50_300ep", "vissl_moco_v2_rn50_200ep"} <= {*names}
    assert all("moco" in name for name in names)
    assert [line.split()[0] for line in run("moco_v?_200ep").splitlines()[1:]] == ["moco_v1_200ep", "moco_v2_200ep"]
    assert re.search(r"^moco_v2_800ep +moco +ResNet-50 +md5 a04e12f8 +CC-BY-NC-4.0 *$", run("moco"), re.M)
    listed = run("--json")
    assert all(f'"{name}"' in listed for name in registry.releases())

"""Configs whose checkpoint is an address: what mmengine would download is fetched by the inert code, and compared."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.config import emit
from ckptconv.sources.interface import Fetching
from tests.mmdetection.check.test_run import Marker, command, detector, only
from tests.support import raw_files
from tests.support.server import serving

pytestmark = pytest.mark.mmdet

CACHE = Fetching(cache_dir="cache")
HUB = Path("torch/hub/checkpoints")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A folder of its own, which holds torch's downloads and ckptconv's cache, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "torch")
    monkeypatch.setenv("CKPTCONV_CACHE_DIR", "no-cache-but-this")
    return tmp_path


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return raw_files.moco(tmp_path_factory.mktemp("raw") / "moco18.pth.tar")


@pytest.fixture(scope="module")
def converted(raw, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "r18.pth"
    ckptconv.convert(raw, path, "moco")
    return path


def test_a_detector_that_starts_from_an_address(converted):
    with serving(files={"/a/r18.pth": converted}) as server:
        address = f"{server.url}/a/r18.pth"
        found = check(detector(address), CACHE)
        report, problems, _ = only(found)
        assert (report.checkpoint, report.equal, report.total, problems) == (address, 120, 120, [])
        assert found.good
        (transfer,) = found.transfers
        assert (transfer.address, transfer.whole, transfer.size) == (address, True, converted.stat().st_size)
        assert report.notes == ()
        size = converted.stat().st_size
        assert size < server.sent < size + 200_000  # once, though it is initialised from and compared with
        assert check(detector(address), CACHE).good
        assert server.sent < size + 400_000
    assert not Path("torch").exists()  # torch.hub, which would have unpickled it, was not asked


def test_a_raw_file_at_an_address_gets_a_command_with_the_address(raw):
    with serving(files={"/moco.pth.tar": raw}) as server:
        address = f"{server.url}/moco.pth.tar"
        _, (problem,), (fixes,) = only(check(detector(f"{address}?signature=secret"), CACHE))
        assert problem.startswith(f"nothing was loaded: {address}?… has none of the module's 120 names; its names")
        assert fixes[0].startswith(f"`ckptconv.convert('{address}?…', 'moco_backbone.pth', method='moco')`, then ")
        report, problems, _ = only(check(detector(address, prefix="module.encoder_q"), CACHE))
        assert (report.equal, problems) == (120, [])


def test_a_hostile_file_is_refused_and_one_that_a_training_would_unpickle_is_told(here):
    state = raw_files.backbone_state(18)
    torch.save({"payload": Marker(), "state_dict": state}, "evil.pth")
    torch.save({"args": argparse.Namespace(), "state_dict": state}, "args.pth")
    files = {"/evil.pth": Path("evil.pth"), "/args.pth": Path("args.pth")}
    with serving(files=files) as server:
        address = f"{server.url}/evil.pth"
        done = command("check", detector(address), "--cache-dir", "cache", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == (
            f"error: {address} is not safe: unpickling it would call posix.mkdir. Nothing was run here\n"
            f"hint: Convert its weights into a safe file: ckptconv convert --selfsup torchvision {address} "
            "evil_backbone.pth\n"
        )
        assert not Path("executed").exists()
        from mmengine.runner import CheckpointLoader

        CheckpointLoader.load_checkpoint(address, "cpu", logger=None)
        assert Path("executed").exists()  # the control: a training would have
        address = f"{server.url}/args.pth"
        path = detector(address)
        done = command("check", path, "--cache-dir", "cache")
        assert (done.returncode, done.stderr) == (0, "")
        told, mark, _ = done.stdout.partition("train     ")
        assert mark
        assert re.sub(r"\d+\.\d MB in \d requests", "N MB in N requests", told) == (
            "config    detector.py: RetinaNet\n"
            f"fetched   N MB in N requests from {address}\n"
            "verified  size, ETag unchanged\n"
            f"module    backbone: ResNet-18, from {address}\n"
            "equal     120/120\n"
            "note      a training downloads this file with torch.hub, which imports and calls what the file names: "
            "argparse.Namespace\n"
            f"  fix     ckptconv convert --selfsup torchvision {address} args_backbone.pth, then "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='args_backbone.pth')\n"
            "verdict   the detector starts from its checkpoint\n"
        )
        data = json.loads(command("check", path, "--cache-dir", "cache", "--json").stdout)
        assert (data["good"], data["transfers"][0]["address"]) == (True, address)


def test_another_file_that_torch_hub_has_under_the_name(converted):
    HUB.mkdir(parents=True)
    other = HUB / "r18.pth"
    other.write_bytes(b"another")
    with serving(files={"/r18.pth": converted}) as server:
        _, problems, fixes = only(check(detector(f"{server.url}/r18.pth"), CACHE))
        problem = (
            "a training would start from another file: torch.hub finds downloads by file name alone, and "
            f"{other.absolute()} is not the file at {server.url}/r18.pth"
        )
        assert problems == [problem]
        assert fixes == [(f"rm {other.absolute()}",)]
        other.write_bytes(converted.read_bytes())
        assert check(detector(f"{server.url}/r18.pth"), CACHE).good


def test_what_torch_does_not_read_cannot_be_started_from(raw):
    ckptconv.convert(raw, "r18.safetensors", "moco")
    with serving(files={"/r18.safetensors": Path("r18.safetensors")}) as server:
        _, (problem,), _ = only(check(detector(f"{server.url}/r18.safetensors"), CACHE))
    assert problem == (
        "the initialisation fails: UnpicklingError: mmengine reads downloads with torch.load, and this is safetensors"
    )


ELSEWHERE = "check reads a file or an https:// address"


@pytest.mark.parametrize(
    ("checkpoint", "message", "hint"),
    [
        (
            "hf://org/repo/model.safetensors",
            "backbone starts from hf://org/repo/model.safetensors, which mmengine cannot download",
            "Convert it first: `ckptconv.convert('hf://org/repo/model.safetensors', 'model_backbone.pth')`",
        ),
        (
            "s3://bucket/a/m.pth",
            "backbone starts from s3://bucket/a/m.pth, which mmengine cannot download",
            "Convert it first: `ckptconv.convert('s3://bucket/a/m.pth', 'm_backbone.pth')`",
        ),
        (
            "gs://bucket/m.pth",
            "backbone starts from gs://bucket/m.pth, which mmengine cannot download",
            "Convert it first: `ckptconv.convert('gs://bucket/m.pth', 'm_backbone.pth')`",
        ),
        (
            "moco_v2_800ep",
            "backbone starts from moco_v2_800ep, the name of a release, which mmengine reads as a path",
            "Convert it first: `ckptconv.convert('moco_v2_800ep', 'moco_v2_800ep_backbone.pth')`",
        ),
        *(
            (
                f"{scheme}://resnet50",
                f"backbone starts from {scheme}://resnet50, which mmengine looks up in its own table",
                f"Name a converted file instead, or write a config for one with ckptconv emit-config: {ELSEWHERE}.",
            )
            for scheme in ("torchvision", "modelzoo", "open-mmlab", "openmmlab", "mmcls")
        ),
        (
            "ftp://h/a.pth",
            "backbone starts from ftp://h/a.pth, which is not a file on this machine",
            f"Download it and give its path: {ELSEWHERE}.",
        ),
        (
            "HTTPS://h/a.pth",  # mmengine takes it for a path
            "backbone starts from HTTPS://h/a.pth, which is not a file on this machine",
            f"Download it and give its path: {ELSEWHERE}.",
        ),
    ],
)
def test_what_is_no_file_and_no_download_gets_a_sentence(checkpoint, message, hint):
    with pytest.raises(UsageError) as raised:
        check(detector(checkpoint), CACHE)
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_refused_as_elsewhere():
    with pytest.raises(UnreadableError, match="is http without TLS: anybody on the way could change the file"):
        check(detector("http://example.org/r18.pth"), CACHE)
    with (
        serving(files={"/page.pth": b"<html>log in</html>"}) as server,
        pytest.raises(UnreadableError, match="is a web page, not a checkpoint"),
    ):
        check(detector(f"{server.url}/page.pth"), CACHE)
    with serving() as server, pytest.raises(UnreadableError, match=r"does not exist \(HTTP 404\)"):
        check(detector(f"{server.url}/none.pth"), CACHE)
    assert not any(p.is_file() for p in Path("cache").rglob("*"))


@pytest.mark.parametrize("source", ["moco_v2_800ep", "hf://org/repo/moco_v2_800ep.pth", "{server}/moco_v2_800ep.pth"])
def test_configs_and_recipes_are_for_files_only(source):
    def ran(*words: Any) -> tuple[int, str, str]:
        done = command(*words)
        return done.returncode, done.stdout, done.stderr

    with serving() as server:
        source = source.format(server=server.url)
        said = (
            f"error: {source} is no file here, and a config names one that convert wrote\n"
            f"hint: Convert it first: ckptconv convert {source} moco_v2_800ep_backbone.pth\n"
        )
        assert ran("emit-config", source) == ran("emit-config", source, "-o", "out.py") == (2, "", said)
        recipe = ("verify-ap", "mocov2-mask-rcnn-r50-fpn-1x", "--tier", "load", "--pretrained", source)
        assert ran(*recipe) == (2, "", said)
        assert server.requests == 0
    assert os.listdir() == []


def test_a_file_of_a_release_s_name_is_a_file(converted):
    Path("moco_v2_800ep").write_bytes(converted.read_bytes())
    assert emit.emit("moco_v2_800ep").pretrained.path == "moco_v2_800ep"
    Path("moco_v2_800ep").unlink()
    with pytest.raises(UnreadableError, match="there is no file moco_v2_800ep"):
        emit.emit(Path("moco_v2_800ep"))

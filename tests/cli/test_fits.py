"""`ckptconv methods --fits SRC`: which methods' rules explain a file, of which network, from which section."""

from __future__ import annotations

import json

import pytest
import torch

from ckptconv import inspection
from ckptconv.errors import UnidentifiedError, UnreadableError
from tests.cli.test_cli import ckptconv
from tests.support import hollow
from tests.support.server import serving

FITS = {  # (method, guessed, network, section), in the order in which they are listed
    "dino_r50_full": [("dino", True, "ResNet-50", "teacher"), ("dino-student", False, "ResNet-50", "student")],
    "lightly_moco_resnet18_sequential": [("lightly", True, "ResNet-18", "state_dict")],
    "mae_vitb16_pretrain": [("mae", True, "ViT-B/16", "model")],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    return {layout: hollow.fill(layout, folder / f"{layout}.pth") for layout in FITS}


@pytest.mark.parametrize("layout", FITS)
def test_the_methods_that_fit_with_network_and_section(files, layout):
    found = inspection.fitting(files[layout])
    assert [(fit.method, fit.guess, fit.backbone, fit.section) for fit in found.fits] == FITS[layout]
    assert all(fit.complete and not fit.problems for fit in found.fits)
    assert found.path == str(files[layout])


def test_what_is_printed(files):
    file = files["dino_r50_full"]
    done = ckptconv("methods", "--fits", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"file      {file} (torch zip, {file.stat().st_size / 1e6:.1f} MB)\n"
        "fits      dino: ResNet-50, from 'teacher' (training checkpoint, teacher)\n"
        "          dino-student*: ResNet-50, from 'student' (training checkpoint, student)\n"
        "* never guessed by auto: ask for it with --selfsup\n"
    )
    done = ckptconv("methods", "--fits", files["mae_vitb16_pretrain"])
    assert "*" not in done.stdout
    data = json.loads(ckptconv("methods", "--fits", file, "--json").stdout)
    assert (data["schema"], data["command"], data["path"]) == (1, "methods", str(file))
    fits = [(fit["method"], fit["guess"], fit["backbone"], fit["section"]) for fit in data["fits"]]
    assert fits == FITS["dino_r50_full"]
    assert data["fetched"] == []


def test_where_none_fits_the_nearest_is_named_with_what_it_leaves_unexplained(tmp_path):
    file = hollow.fill("lightly_moco_resnet18_sequential", tmp_path / "plain.pth")
    content = torch.load(file, weights_only=True)
    content["state_dict"]["backbone.stranger.weight"] = torch.zeros(3)
    torch.save(content, tmp_path / "strange.pth")
    done = ckptconv("methods", "--fits", tmp_path / "strange.pth")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "error: no method explains this file; the nearest is lightly:"
    assert "  backbone.stranger.weight (float32 [3]): no rule explains it\n" in done.stderr
    done = ckptconv("methods", "--fits", tmp_path / "strange.pth", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["exit_code"]) == (1, 1)
    with pytest.raises(UnidentifiedError, match="the nearest is lightly"):
        inspection.fitting(tmp_path / "strange.pth")


def test_a_file_without_names_and_a_rule_file(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(UnreadableError, match="the file holds no named tensors"):
        inspection.fitting(tmp_path / "list.pth")
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nsections = ["state_dict"]\nrules = [{keep = "backbone.0.{p}", to = "conv1.{p}"}, '
        '{drop = "{all...}", why = "all else"}]\n'
    )
    file = hollow.fill("lightly_moco_resnet18_sequential", tmp_path / "file.pth")
    names = [fit.method for fit in inspection.fitting(file, rules=tmp_path / "mine.toml").fits]
    assert names == ["lightly"]  # a stem alone is no network


def test_a_name_and_a_file_are_two_questions(files):
    done = ckptconv("methods", "moco", "--fits", files["mae_vitb16_pretrain"])
    assert done.returncode == 2
    assert done.stderr == (
        "error: a method's NAME and --fits are two questions\n"
        "hint: Whether moco fits: ckptconv convert --dry-run --selfsup moco SRC DST\n"
    )


def test_it_costs_kilobytes_of_a_file_far_away(files, tmp_path):
    file = files["mae_vitb16_pretrain"]
    with serving(files={"/file.pth": file}) as server:
        address = f"{server.url}/file.pth"
        done = ckptconv("methods", "--fits", address, "--cache-dir", tmp_path / "cache")
        assert (done.returncode, done.stderr) == (0, "")
        assert server.sent < 700_000 < file.stat().st_size / 1000
        assert server.requests <= 6
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"file      {address} (torch zip, ")
        assert lines[1].endswith(f"{server.requests} requests from {address}")
        assert lines[3] == "fits      mae: ViT-B/16, from 'model' (training checkpoint, with decoder)"
        assert not (tmp_path / "cache").exists()
        small = files["lightly_moco_resnet18_sequential"]
        server.files["/small.pth"] = small
        done = ckptconv("methods", "--fits", f"{server.url}/small.pth", "--whole", "--cache-dir", tmp_path / "cache")
        assert (done.returncode, done.stderr) == (0, "")
        assert sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.pth")) == small.stat().st_size

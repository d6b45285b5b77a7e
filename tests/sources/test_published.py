"""Which published file a source is, and what is then known of its licence: said of that file, and of no other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckptconv
from ckptconv import Licence, Receipt
from ckptconv.errors import UnreadableError
from ckptconv.methods import METHODS, registry
from ckptconv.methods.interface import Release
from ckptconv.sources import published
from tests.support import released

CC = Licence("CC-BY-NC-4.0", "https://example.org/licence", "no commercial use")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 as a file that is published, by a method of its own, and one of the same name that is not."""
    made = tmp_path_factory.mktemp("published")
    network = released.network("ResNet-18").entries()
    for name, value in (("theirs", 0.5), ("mine", 0.25)):
        (made / name).mkdir()
        state = {entry: torch.full(shape, value) if shape else torch.tensor(1) for entry, shape in network.items()}
        torch.save(state, made / name / "r18.pth")
    content = (made / "theirs/r18.pth").read_bytes()
    (made / "theirs/other.pth").write_bytes(content)
    for name, digest in (
        ("rules", f'sha256 = "{hashlib.sha256(content).hexdigest()[:8]}"'),
        ("md5", f'md5 = "{hashlib.md5(content).hexdigest()}"'),
        ("nothing", ""),
    ):
        (made / f"{name}.toml").write_text(
            f"""name = "theirs"
rules = [{{keep = "{{key...}}", to = "{{key...}}"}}]
[[releases]]
name = "theirs_r18"
url = "https://example.org/files/r18.pth"
licence = "{CC.name}"
licence_url = "{CC.url}"
restrictions = "{CC.restrictions}"
{digest}
"""
        )
    return made


def converted(folder: Path, source: str, out: Path, rules: str = "rules", **more: bool) -> Receipt:
    return ckptconv.convert(folder / source, out, rules=folder / f"{rules}.toml", **more)


@pytest.mark.parametrize("rules", ["rules", "md5"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_with_a_release_s_name_and_digest_is_that_release(
    rules: str, suffix: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    receipt = converted(folder, "theirs/r18.pth", out, rules)
    assert (receipt.release, receipt.licence) == ("theirs_r18", CC)
    assert ckptconv.inspect(out).licence == CC
    again = ckptconv.convert(out, tmp_path / "again.pth")  # a file that was made of it has the same licence
    assert (again.release, again.licence) == ("", CC)
    assert ckptconv.inspect(tmp_path / "again.pth").licence == CC


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("mine/r18.pth", "rules"),  # another content
        ("theirs/other.pth", "rules"),  # another name
        ("theirs/r18.pth", "nothing"),  # no digest is published
    ],
)
def test_nothing_is_said_of_any_other_file(source: str, rules: str, folder: Path, tmp_path: Path) -> None:
    receipt = converted(folder, source, tmp_path / "out.pth", rules)
    assert (receipt.release, receipt.licence) == ("", None)
    assert ckptconv.inspect(tmp_path / "out.pth").licence is None
    assert b"licence" not in (tmp_path / "out.pth").read_bytes()


def test_a_digest_is_computed_only_for_a_name_that_is_known_and_a_file_that_is_read(
    folder: Path, tmp_path: Path
) -> None:
    with mock.patch.object(published, "_digits", side_effect=AssertionError):
        converted(folder, "theirs/other.pth", tmp_path / "out.pth")
        assert converted(folder, "theirs/r18.pth", tmp_path / "dry.pth", dry_run=True).licence is None
        ckptconv.plan(folder / "theirs/r18.pth", rules=folder / "rules.toml")
        ckptconv.inspect(folder / "theirs/r18.pth", rules=folder / "rules.toml")
        with pytest.raises(AssertionError):
            converted(folder, "theirs/r18.pth", tmp_path / "other.pth")


def test_the_receipt_says_the_licence_and_what_it_forbids(folder: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "ckptconv", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    source, rules = str(folder / "theirs/r18.pth"), str(folder / "rules.toml")
    line = "licence   CC-BY-NC-4.0, no commercial use (https://example.org/licence)"
    assert line in run("convert", source, "out.pth", "--rules", rules).splitlines()
    assert line in run("inspect", "out.pth").splitlines()
    other = run("convert", str(folder / "mine/r18.pth"), "mine.pth", "--rules", rules)
    assert not any(line.startswith("licence") for line in other.splitlines())
    said = json.loads(run("convert", source, "out.pth", "--rules", rules, "--json", "--force"))
    assert said["licence"] == vars(CC)
    assert said["source"]["release"] == "theirs_r18"
    assert json.loads(run("inspect", "out.pth", "--json"))["licence"] == vars(CC)
    assert json.loads(run("convert", str(folder / "mine/r18.pth"), "b.pth", "--json"))["licence"] is None


def test_the_receipt_says_whose_release_a_file_is_that_another_method_took(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ckptconv.cli import render_checkpoints

    done = converted(folder, "theirs/r18.pth", tmp_path / "out.pth", dry_run=True)
    line = "          it is the release dinov3_vitl16_sat493m, of dinov3-sat493m: --selfsup dinov3-sat493m\n"
    for named, also, said in ((False, (), True), (True, (), False), (False, ("dinov3-sat493m",), False)):
        other = dataclasses.replace(done, release="dinov3_vitl16_sat493m", method_named=named, also=also)
        render_checkpoints.receipt(other, as_json=False)
        assert (line in capsys.readouterr().out) == said


def test_a_config_says_the_licence_in_its_head(folder: Path, tmp_path: Path) -> None:
    converted(folder, "theirs/r18.pth", tmp_path / "out.safetensors")
    emitted = ckptconv.emit_config(tmp_path / "out.safetensors")
    line = "# The weights' licence: CC-BY-NC-4.0, no commercial use (https://example.org/licence)"
    assert emitted.text.splitlines()[2:4] == [line, ""]
    tensors = load_file(tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        said = json.loads(file.metadata()["ckptconv"])
    said["licence"] |= {"name": "{{ fileBasename }}", "restrictions": "x y " * 50}  # mmengine replaces double braces
    save_file(tensors, tmp_path / "evil.safetensors", {"format": "pt", "ckptconv": json.dumps(said)})
    text = ckptconv.emit_config(tmp_path / "evil.safetensors").text
    head = text.partition("\n\n")[0].splitlines()
    assert head[2].startswith("# The weights' licence: { { fileBasename }}, x y x y")
    assert all(len(line) <= 100 and line.startswith("# ") for line in head)
    assert "{{" not in text


# -- addresses --------------------------------------------------------------------------------------------------------

MAE = "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (MAE, "mae_pretrain_vit_base"),
        (f"{MAE}?download=true", "mae_pretrain_vit_base"),
        (MAE.replace("pretrain/", ""), None),
        (MAE.replace("fbaipublicfiles", "example"), None),
        ("https://huggingface.co/facebook/PE-Core-T16-384/resolve/main/PE-Core-T16-384.pt", "pe-core-t16-384"),
        ("hf://facebook/PE-Core-T16-384/PE-Core-T16-384.pt", "pe-core-t16-384"),
        ("hf://facebook/PE-Core-T16-384/PE-Core-T16-384.pt@main", "pe-core-t16-384"),
        ("hf://facebook/PE-Core-T16-384/PE-Core-T16-384.pt@v2", None),  # another version
        ("hf://BAAI/EVA/eva_psz14.pt", "eva_psz14"),
        ("hf://me/EVA/eva_psz14.pt", None),
        ("s3://bucket/mae_pretrain_vit_base.pth", None),
    ],
)
def test_a_release_is_found_by_its_address(address: str, name: str | None) -> None:
    found = published.at(address)
    assert (found.name if found else None) == name


@pytest.mark.parametrize("release", [r for m in METHODS for r in m.releases], ids=lambda r: r.name)
def test_every_release_is_found_by_its_own_address(release: Release) -> None:
    assert published.at(release.url) is release


# -- after a login ----------------------------------------------------------------------------------------------------

GATED = [(m, r) for m, r in registry.releases().values() if r.login]
PAGE = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"


def test_what_is_given_after_a_login_is_known() -> None:
    assert {method.name for method, _ in GATED} == {"dinov3", "dinov3-sat493m"}
    assert len(GATED) == 12
    assert {release.login for _, release in GATED} == {PAGE}


@pytest.mark.parametrize("name", [release.name for _, release in GATED])
def test_a_file_after_a_login_is_refused_with_its_page_and_the_command_for_later(name: str, tmp_path: Path) -> None:
    method, release = registry.releases()[name]
    asked = "" if method.guess else ", method='dinov3-sat493m'"
    with mock.patch("socket.socket", side_effect=AssertionError), pytest.raises(UnreadableError) as caught:
        ckptconv.convert(name, tmp_path / "out.pth")
    assert caught.value.message == f"{name} cannot be fetched: its authors give it after a login only"
    assert caught.value.hint == (
        f"Get {release.file_name} at {PAGE}, "
        f"then: `ckptconv.convert('{release.file_name}', '{tmp_path}/out.pth'{asked})`"
    )


def test_the_command_line_says_it_in_its_own_words() -> None:
    command = [sys.executable, "-m", "ckptconv", "convert", "dinov3_vitl16_sat493m", "vitl16.pth"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    file = "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth"
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        "error: dinov3_vitl16_sat493m cannot be fetched: its authors give it after a login only",
        f"hint: Get {file} at {PAGE}, then: ckptconv convert --selfsup dinov3-sat493m {file} vitl16.pth",
    ]


def test_releases_are_listed_with_what_their_licences_forbid_and_where_a_login_is() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ckptconv", "releases", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    def rows(*words: str) -> list[str]:
        return [line.rstrip() for line in run(*words).stdout.splitlines()[1:]]

    assert rows("dinov3_vits16")[0].endswith("sha256 08c60483 *  DINOv3 License")
    terms = "no use for warfare, nuclear industries, espionage or weapons; copies under this licence only"
    assert run("dinov3_vits16").stderr.splitlines() == [f"DINOv3 License, {terms}", f"* after a login only: {PAGE}"]
    assert run("m[ao][ec]*").stderr == "CC-BY-NC-4.0, no commercial use\n"  # of several pages, once
    assert rows("byol_pretrain") == [
        "byol_pretrain_res50x1   byol    ResNet-50                        not known",
        "byol_pretrain_res200x2  byol    ResNet-200, width x2             not known",
    ]
    assert rows("beitv2_large*k")[-1].endswith("MIT")
    assert run("beitv2_large*k").stderr == ""  # it forbids nothing
    one = json.loads(run("dinov3_vits16", "--json").stdout)["releases"][0]
    assert (one["licence"], one["restrictions"], one["login"]) == ("DINOv3 License", terms, PAGE)

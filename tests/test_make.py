"""The Makefile says what it is going to download, and takes torch from an index of the user's choice."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import downloads

ROOT = Path(__file__).parent.parent
CPU = "https://download.pytorch.org/whl/cpu"


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        required = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    ("requires", "text"),
    [
        ("nvidia-cublas", f", which is built for CUDA here; without CUDA it is 0.2 GB: make test INDEX={CPU}"),
        ("", ""),
    ],
)
def test_what_pip_would_download(tmp_path, monkeypatch, requires, text):
    wheel(tmp_path, "torch", "99.1", requires)
    wheel(tmp_path, "nvidia_cublas", "13.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    items = downloads.planned(["--no-index", "--find-links", str(tmp_path), "--no-build-isolation", "torch==99.1"])
    assert len(items) == 1 + bool(requires)
    monkeypatch.setattr(downloads, "size", lambda url: 1_700_000_000 if "torch" in url else 1_000_000_000)
    total = "2.7" if requires else "1.7"
    assert downloads.said(items) == f"pip is going to download {total} GB for torch 99.1{text}"


def test_nothing_is_said_of_what_is_there_or_cannot_be_found():
    for arguments in (["pytest"], ["--no-index", "no-such-distribution-of-tests"]):
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.downloads", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("target", [".venv/.test", ".onedl/.made"])
def test_the_index_is_for_torch_alone(target):
    said = subprocess.run(
        ["make", "-n", "-B", target, f"INDEX={CPU}"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    with_index = [line for line in said if "--index-url" in line]
    assert [line.split("/bin/python ")[1].split(" -c ")[0] for line in with_index] == [
        "-m tests.support.downloads",
        "-m pip --disable-pip-version-check install -q",
    ]
    assert all(line.endswith(f"--index-url {CPU} torch") for line in with_index)
    usual = subprocess.run(["make", "-n", "-B", target], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "--index-url" not in usual
    assert "install -q -c constraints.txt torch\n" in usual.replace("  ", " ")

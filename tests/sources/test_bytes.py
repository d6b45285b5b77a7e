"""Real layouts at their full size, fetched from a server that counts what it sends: what is kept, and little more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import ckptconv
from tests.support import hollow
from tests.support.server import serving

LITTLE = 1_000_000
MOCO = ("moco", "state_dict", "module.encoder_q.", ("module.encoder_q.fc.",), "state_dict")
PRETRAINING_ONLY = ("decoder", "mask_token")
LAYOUTS = {  # method, section, what every name that is kept starts with, and those that are not; where it is written
    "moco_v2_r50": MOCO,
    "moco_v2_r50_legacy": MOCO,
    "dino_r50_full": ("dino", "teacher", "module.backbone.", ("none",), "state_dict"),
    "mae_vitb16_pretrain": ("mae", "model", "", PRETRAINING_ONLY, "state_dict"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_kept_crosses_once_and_little_else(layout, tmp_path):
    method, section, prefix, left, place = LAYOUTS[layout]
    file = hollow.fill(layout, tmp_path / "file.pth")
    with serving(files={"/file.pth": file}) as server:
        receipt = ckptconv.convert(f"{server.url}/file.pth", tmp_path / "out.pth")
        assert receipt.method.name == method
        kept = sum(move.spec.nbytes for move in receipt.plan.moves)
        assert kept > 90_000_000
        assert kept < server.sent <= kept + LITTLE
        assert server.requests <= 20
        (transfer,) = receipt.transfers
        assert kept <= transfer.fetched <= server.sent
        assert transfer.requests == server.requests

        before = server.sent
        assert ckptconv.inspect(f"{server.url}/file.pth").fits[0].method == method
        assert server.sent - before < LITTLE

    # the oracle: torch, on the file itself
    source = torch.load(file, map_location="cpu", weights_only=False)[section]
    written = torch.load(tmp_path / "out.pth", weights_only=True)[place]
    wanted = {k.removeprefix(prefix): v for k, v in source.items() if k.startswith(prefix) and not k.startswith(left)}
    assert set(written) == set(wanted)
    assert all(torch.equal(written[name], wanted[name]) for name in wanted)
    local = ckptconv.convert(file, tmp_path / "local.pth")
    assert local.fingerprint == receipt.fingerprint


def test_the_command_says_what_crossed_and_the_file_says_what_vouches_for_it(checkpoint, tmp_path):
    file = checkpoint
    with serving(files={"/some/file.ckpt": file}) as server:
        address = f"{server.url}/some/file.ckpt"
        signed = f"{address}?signature=secret"
        command = [sys.executable, "-m", "ckptconv", "convert", signed, str(tmp_path / "r18.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"read      {address}?… (torch zip, " in done.stdout
        assert f" requests from {address}?…\n" in done.stdout
        assert "verified  size, ETag unchanged, 120 checksums\n" in done.stdout
        done = subprocess.run([*command, "--json", "--force"], capture_output=True, text=True, check=False, timeout=120)
        data = json.loads(done.stdout)
    with ckptconv.formats.open_checkpoint(tmp_path / "r18.safetensors") as written:
        said = json.loads(written.metadata["ckptconv"])["source"]
    trust = {
        "address": f"{address}?…",
        "bytes": file.stat().st_size,
        "version": 'ETag "v1"',
        "whole": False,
        "published": "",
        "hash_checked": False,
    }
    assert said == {
        "name": "file.ckpt",
        "format": "torch zip",
        "bytes": file.stat().st_size,
        "fetched": [trust],
        "checksums": 120,
    }
    (fetched,) = data["source"]["fetched"]
    assert (fetched["address"], fetched["size"], fetched["version"]) == (
        f"{address}?…",
        file.stat().st_size,
        'ETag "v1"',
    )
    assert "secret" not in done.stdout + done.stderr + json.dumps(said)


def test_a_conversion_from_afar_loads_neither_torch_nor_numpy(checkpoint, tmp_path):
    code = """
import sys
sys.argv = ['ckptconv', 'convert', sys.argv[1], sys.argv[2]]
from ckptconv.cli import main
try: main()
except SystemExit as end: assert not end.code
print([m for m in ('torch', 'numpy', 'fsspec', 'huggingface_hub') if m in sys.modules])"""
    with serving(files={"/f.ckpt": checkpoint}) as server:
        command = [sys.executable, "-c", code, f"{server.url}/f.ckpt", str(tmp_path / "r18.pth")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"

"""Whole conversions from servers that misbehave: the file that would come from the disk, or none and one sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptconv
from ckptconv import Fetching
from ckptconv.errors import UnreadableError, UsageError
from ckptconv.methods import METHODS, registry
from ckptconv.methods.interface import Release
from tests.cli.test_cli import in_a_terminal
from tests.support.server import serving


@pytest.fixture(scope="module")
def fingerprint(checkpoint, tmp_path_factory):
    return ckptconv.convert(checkpoint, tmp_path_factory.mktemp("local") / "r18.pth").fingerprint


@pytest.fixture
def places(tmp_path):
    """A folder for outputs and one for the cache."""
    for name in ("out", "cache"):
        (tmp_path / name).mkdir()
    return tmp_path / "out", tmp_path / "cache"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("said", [{"method": "moko"}, {"dtype": "float12"}, {"format": "onnx"}, {"target": "d3"}])
def test_what_nobody_can_do_is_refused_before_anything_is_fetched(checkpoint, places, said):
    with serving(files={"/f.ckpt": checkpoint}) as server:
        with pytest.raises(UsageError):
            ckptconv.convert(f"{server.url}/f.ckpt", places[0] / "r18.pth", said.pop("method", "auto"), **said)
        assert server.sent == 0
    assert left(places[0]) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_connections_that_break_anywhere(checkpoint, fingerprint, places, naps, ranged, seed):
    out, cache = places
    rng = random.Random(seed)
    with serving(files={"/f.ckpt": checkpoint}, ranged=ranged) as server:
        server.cut = [rng.randrange(rng.choice([100, 100_000, 50_000_000])) for _ in range(4)]
        receipt = ckptconv.convert(f"{server.url}/f.ckpt", out / "r18.pth", fetching=Fetching(cache_dir=cache))
    assert receipt.fingerprint == fingerprint
    assert left(out) == ["r18.pth"]
    assert left(cache) == ([] if ranged else ["f.ckpt", "~note.json"])
    assert naps


@pytest.mark.parametrize(
    ("whole", "request_number"), [*((False, n) for n in range(2, 5)), *((True, n) for n in range(2, 4))]
)
def test_a_change_at_any_request_is_refused_and_leaves_nothing(checkpoint, places, naps, whole, request_number):
    out, cache = places
    with serving(files={"/f.ckpt": checkpoint}) as server:

        def change(number: int) -> None:
            server.version = 1 + (number >= request_number)

        server.after = change
        with pytest.raises(UnreadableError, match=r"/f\.ckpt changed while it was being read"):
            ckptconv.convert(f"{server.url}/f.ckpt", out / "r18.pth", fetching=Fetching(whole, cache))
        assert left(out) == left(cache) == []


def test_a_slow_server_and_how_far_it_is(checkpoint, fingerprint, places):
    out, cache = places
    seen: list[tuple[int, int]] = []
    fetching = Fetching(cache_dir=cache, progress=lambda done, total: seen.append((done, total)))
    with serving(files={"/f.ckpt": checkpoint}, rate=100_000_000) as server:
        receipt = ckptconv.convert(f"{server.url}/f.ckpt", out / "r18.pth", fetching=fetching)
    assert receipt.fingerprint == fingerprint
    assert receipt.seconds > server.sent / 100_000_000
    assert seen[-1][0] == seen[-1][1] > 40_000_000
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_bar_on_a_terminal_and_none_elsewhere(checkpoint, tmp_path):
    with serving(files={"/f.ckpt": checkpoint}, rate=20_000_000) as server:  # the bar asks for the speed now and then
        shown = in_a_terminal("convert", f"{server.url}/f.ckpt", tmp_path / "r18.pth")
    assert "fetching" in shown
    assert "MB/s" in shown
    assert "proved" in shown


def test_a_dry_run_and_a_plan_cost_next_to_nothing(checkpoint, places):
    out, _ = places
    with serving(files={"/f.ckpt": checkpoint}) as server:
        receipt = ckptconv.convert(f"{server.url}/f.ckpt", out / "r18.pth", dry_run=True)
        assert ckptconv.plan(f"{server.url}/f.ckpt") == receipt.plan
        found = ckptconv.explain(f"{server.url}/f.ckpt", "backbone.0.weight")
        assert (found.fate, found.target) == ("kept", "conv1.weight")
        assert server.sent < 1_500_000
    assert left(out) == []


# -- formats ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(checkpoint):
    source = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {k: v.clone() for k, v in source.items() if not k.endswith("num_batches_tracked")}


def test_safetensors_in_shards_that_lie_beside_their_index(state, fingerprint, places, tmp_path):
    out, cache = places
    names = list(state)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: state[key] for key in keys}, tmp_path / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    files = {f"/m/{file}": tmp_path / file for file in shards} | {"/m/i.index.json": json.dumps(index).encode()}
    with serving(files=files) as server:
        receipt = ckptconv.convert(f"{server.url}/m/i.index.json", out / "r18.pth", "lightly", section="")
        kept = sum(move.spec.nbytes for move in receipt.plan.moves)
        assert server.sent < kept + 1_000_000
    addresses = [transfer.address for transfer in receipt.transfers]
    assert addresses == [f"{server.url}/m/{name}" for name in ("i.index.json", *shards)]
    written = torch.load(out / "r18.pth", weights_only=True)["state_dict"]
    assert torch.equal(written["layer4.1.conv2.weight"], state["backbone.7.1.conv2.weight"])
    assert left(cache) == []


@pytest.mark.parametrize("lie", ["in a kept storage", "in a dropped one"])
def test_the_counts_of_a_legacy_file_are_looked_at_where_it_is_read(state, places, tmp_path, lie):
    """From afar the dropped ones' counts are not: their places are known, and nothing of them is used."""
    out, _ = places
    torch.save({"state_dict": state}, tmp_path / "f.pth", _use_new_zipfile_serialization=False)
    content = bytearray((tmp_path / "f.pth").read_bytes())
    name = "backbone.0.weight" if lie == "in a kept storage" else "backbone_momentum.0.weight"
    at = content.index(struct.pack("<q", state[name].numel()) + state[name].numpy().tobytes())
    content[at : at + 8] = struct.pack("<q", 5)
    with serving(files={"/f.pth": bytes(content)}) as server:
        if lie == "in a kept storage":
            with pytest.raises(UnreadableError, match=r"the storage '\d+' has 5 elements, its pickle says 9,408"):
                ckptconv.convert(f"{server.url}/f.pth", out / "r18.pth", "lightly")
            assert left(out) == []
        else:
            assert ckptconv.convert(f"{server.url}/f.pth", out / "r18.pth", "lightly").proved == 100
    (tmp_path / "local.pth").write_bytes(bytes(content))
    with pytest.raises(UnreadableError, match="has 5 elements"):
        ckptconv.inspect(tmp_path / "local.pth")


# -- releases --------------------------------------------------------------------------------------------------------


@pytest.fixture
def release(checkpoint, monkeypatch):
    """A release of lightly's, as if its authors published it on a server here."""
    with serving(files={"/epoch=9.ckpt": checkpoint}) as server:
        md5 = hashlib.md5(checkpoint.read_bytes()).hexdigest()[:8]
        one = Release("lightly_here", f"{server.url}/epoch=9.ckpt", md5, backbone="ResNet-18")
        table = tuple(dataclasses.replace(m, releases=(one,)) if m.name == "lightly" else m for m in METHODS)
        monkeypatch.setattr(registry, "_BUILT_IN", {m.name: m for m in table})
        yield server, md5


def test_a_release_by_its_name(release, fingerprint, places):
    _, md5 = release
    out, cache = places
    receipt = ckptconv.convert("lightly_here", out / "r18.pth", fetching=Fetching(cache_dir=cache))
    assert (receipt.source, receipt.release, receipt.method.name) == ("lightly_here", "lightly_here", "lightly")
    assert receipt.method_named
    assert receipt.fingerprint == fingerprint
    (transfer,) = receipt.transfers
    assert (transfer.published, transfer.hash_checked) == (f"md5 {md5}", False)
    receipt = ckptconv.convert("lightly_here", out / "r18.pth", fetching=Fetching(True, cache), force=True)
    assert (receipt.transfers[0].published, receipt.transfers[0].hash_checked) == (f"md5 {md5}", True)
    assert ckptconv.inspect("lightly_here", fetching=Fetching(cache_dir=cache)).transfers[0].requests == 0


def test_a_release_that_is_not_what_was_published(release, places, checkpoint, tmp_path):
    server, md5 = release
    out, cache = places
    other = shutil.copy(checkpoint, tmp_path / "other")
    with other.open("r+b") as file:
        file.seek(40_000_000)
        file.write(b"\1" * 8)
    server.files["/epoch=9.ckpt"] = other
    with pytest.raises(UnreadableError, match=f"is not the file its authors published: its md5 is .*, theirs {md5}"):
        ckptconv.convert("lightly_here", out / "r18.pth", fetching=Fetching(True, cache))
    assert left(out) == left(cache) == []

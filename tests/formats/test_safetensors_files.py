"""What the safetensors library writes is read back bit for bit; so are sharded checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.spec import DTYPES
from tests.formats.test_torch_files import assert_reads, filled, tensors

WRITABLE = [d.name for d in DTYPES.values() if d.safetensors]
State = Mapping[str, torch.Tensor]

states = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__"),
    tensors(WRITABLE),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(state=states, metadata=st.none() | st.dictionaries(st.text(), st.text(), max_size=3))
def test_what_safetensors_writes_is_read_back(
    state: State, metadata: dict[str, str] | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "model.safetensors"
    save_file(state, path, metadata)
    assert_reads(path, {"": state})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata == (metadata or {})
        assert checkpoint.format == "safetensors"
        assert checkpoint.named == ()


def test_every_type_is_read(tmp_path: Path) -> None:
    state = {f"{dtype}{shape}": filled(dtype, shape) for dtype in WRITABLE for shape in [(), (3,), (2, 0), (2, 3, 4)]}
    save_file(state, tmp_path / "model.safetensors")
    assert_reads(tmp_path / "model.safetensors", {"": state})


@pytest.mark.parametrize("length", [0x80, 0x4B50, 0x10080, 0x14B50], ids=hex)
def test_no_length_of_the_header_looks_like_another_format(length: int, tmp_path: Path) -> None:
    """The file starts with that length: 0x80 is how a pickle starts, 'PK' a zip."""
    path, state = tmp_path / "model.safetensors", {"w": filled("float32", (3, 4))}
    save_file(state, path, {"note": ""})
    short = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(state, path, {"note": "x" * (length - short)})
    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    assert_reads(path, {"": state})


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    save_file({}, tmp_path / "model.safetensors")
    assert_reads(tmp_path / "model.safetensors", {})


def test_the_order_of_the_names_means_nothing(tmp_path: Path) -> None:
    """The header may name the tensors in another order than the one they lie in."""
    path, state = tmp_path / "model.safetensors", {name: filled("int16", (3,), seed=ord(name)) for name in "abcde"}
    save_file(state, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    turned = dict(reversed(json.loads(data[8 : 8 + length]).items()))
    header = json.dumps(turned, separators=(",", ":")).encode().ljust(length)
    assert len(header) == length
    path.write_bytes(data[:8] + header + data[8 + length :])
    assert_reads(path, {"": state})


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.pkl", "model"])
def test_the_name_of_the_file_means_nothing(name: str, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / name)
    assert_reads(tmp_path / name, {"": {"w": torch.ones(2)}})


# Shards -----------------------------------------------------------------------------------------------------------


def sharded(folder: Path, kind: str, shards: Mapping[str, State]) -> Path:
    """Shards and their index, as transformers lays them out."""
    for name, state in shards.items():
        save_file(state, folder / name) if kind == "safetensors" else torch.save(state, folder / name)
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {key: name for name, state in shards.items() for key in state},
    }
    (folder / "model.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return folder / "model.index.json"


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("names", [("model-1-of-2.bin", "model-2-of-2.bin"), ("1:a.bin", "1:b.bin")])
def test_shards_are_read_as_one(names: tuple[str, str], kind: str, tmp_path: Path) -> None:
    first = {"a.weight": filled("float32", (3, 4)), "a:b": filled("bfloat16", (5,))}
    second = {"b.weight": filled("float16", (2, 0)), "c": filled("int64", ())}
    assert_reads(sharded(tmp_path, kind, dict(zip(names, (first, second), strict=True))), {"": {**first, **second}})


def test_views_in_shards_are_read(tmp_path: Path) -> None:
    base = filled("float32", (3, 4))
    shards = {"one.bin": {"t": base.t(), "whole": base}, "two.bin": {"tail": base[1:, ::2]}}
    assert_reads(sharded(tmp_path, "torch", shards), {"": {"t": base.t(), "whole": base, "tail": base[1:, ::2]}})


def test_an_index_names_only_what_its_shards_hold(tmp_path: Path) -> None:
    path = sharded(tmp_path, "safetensors", {"one": {"a": torch.ones(2)}, "two": {"b": torch.ones(2)}})
    path.write_text(path.read_text().replace('"a": "one"', '"a": "two"'))
    with pytest.raises(UnreadableError, match="says that two holds a, but it does not"):
        open_checkpoint(path)


@pytest.mark.parametrize("shard", ["../one", "/etc/passwd", "a\\b", "", ".."])
def test_shards_lie_beside_their_index(shard: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(UnreadableError, match="names a shard outside its folder"):
        open_checkpoint(tmp_path / "index.json")

"""What ckptconv writes, torch and safetensors load bit for bit."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from ckptconv.errors import UsageError
from ckptconv.formats import open_checkpoint, safetensors_writer, torch_writer
from ckptconv.formats.interface import Piece, split
from ckptconv.spec import DTYPES, TensorSpec
from tests.formats.test_torch_files import VIEWS, filled, raw, records, spec, tensors

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")

State = Mapping[str, torch.Tensor]
IN_SAFETENSORS = [d.name for d in DTYPES.values() if d.safetensors]


def piece(name: str, tensor: torch.Tensor, crc_known: bool = True) -> Piece:
    data = raw(tensor)
    return Piece(name, spec(tensor), zlib.crc32(data) if crc_known else None, lambda verify: split(data))


def write_torch(path: Path, state: State, meta: Mapping[str, object] | None = None, crc_known: bool = True) -> None:
    seen: Counter[str] = Counter()
    with path.open("w+b") as file:
        pieces = [piece(n, t, crc_known) for n, t in state.items()]
        torch_writer.write(file, pieces, meta or {}, lambda name, count: seen.update({name: count}))
    assert seen == {n: len(raw(t)) for n, t in state.items() if t.numel()}
    assert all(start % 64 == 0 for start in starts(path).values())  # mapping what is not aligned crashes torch


def starts(path: Path) -> dict[str, int]:
    """Where the bytes of each record start."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        headers = {info.filename: info.header_offset for info in archive.infolist()}
    return {name: at + 30 + sum(struct.unpack_from("<2H", data, at + 26)) for name, at in headers.items()}


def write_safetensors(path: Path, state: State, metadata: Mapping[str, str] | None = None) -> None:
    seen: Counter[str] = Counter()
    with path.open("w+b") as file:
        pieces = safetensors_writer.in_order([piece(n, t) for n, t in state.items()])
        safetensors_writer.write(file, pieces, metadata or {}, lambda name, count: seen.update({name: count}))
    assert seen == {n: len(raw(t)) for n, t in state.items() if t.numel()}


def assert_same(found: State, state: State) -> None:
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert spec(found[name]) == spec(tensor), name
        assert found[name].stride() == torch.empty(tensor.shape).stride(), name
        assert raw(found[name]) == raw(tensor), name


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__")


def states(dtypes: list[str]) -> st.SearchStrategy[dict[str, torch.Tensor]]:
    return st.dictionaries(names, tensors(dtypes), max_size=5)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 80), 1 << 80) | names,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(names, inside, max_size=3),
    max_leaves=8,
)


# torch ------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, derandomize=True)
@given(state=states([*DTYPES]), meta=st.dictionaries(names, plain, max_size=3), crc_known=st.booleans())
def test_torch_loads_what_is_written(
    state: State, meta: dict[str, object], crc_known: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.pth"
    write_torch(path, state, meta, crc_known)
    for mmap in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mmap)
        assert set(loaded) == {"state_dict", "meta"}
        assert_same(loaded["state_dict"], state)
        assert repr(loaded["meta"]) == repr(meta)  # 1 is not True
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_torch_loads_every_type(tmp_path: Path) -> None:
    state = {f"{dtype}{shape}": filled(dtype, shape) for dtype in DTYPES for shape in [(), (3,), (2, 0), (2, 3, 4)]}
    write_torch(tmp_path / "written.pth", state)
    for mmap in (False, True):
        assert_same(torch.load(tmp_path / "written.pth", weights_only=True, mmap=mmap)["state_dict"], state)


@pytest.mark.parametrize("value", [0, 255, 256, 65536, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63)])
def test_integers_at_the_edges_of_their_opcodes(value: int, tmp_path: Path) -> None:
    write_torch(tmp_path / "written.pth", {}, {"value": value, "list": [value]})
    assert torch.load(tmp_path / "written.pth", weights_only=True)["meta"] == {"value": value, "list": [value]}


@pytest.mark.parametrize("value", [{1}, 0.5])
def test_only_plain_data_goes_into_the_metadata(value: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"a value of type {type(value).__name__} is not plain data"):
        write_torch(tmp_path / "written.pth", {}, {"value": value})


TORCH_1_13 = {
    *("GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK", "TUPLE", "TUPLE1"),
    *("TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
    *("BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINSTRING", "BINPERSID", "BINGET", "LONG_BINGET"),
    *("BINPUT", "LONG_BINPUT", "LONG1", "PROTO", "STOP"),
}
"""The opcodes of `torch/_weights_only_unpickler.py` at v1.13.1. BINFLOAT is none of them; torch 2.0 has it."""


def test_torch_1_13_knows_every_opcode_and_every_name(tmp_path: Path) -> None:
    path = tmp_path / "written.pth"
    old = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    write_torch(path, {d: filled(d, (2, 70000)[:1]) for d in old}, {"a": [-1, 1 << 40, None, {"b": True, "c": "d"}]})
    operations = [*pickletools.genops(records(path)["archive/data.pkl"])]
    assert {op.name for op, *_ in operations} <= TORCH_1_13
    named = {arg for op, arg, _ in operations if op.name == "GLOBAL"}
    assert named - {f"torch {DTYPES[d].storage}" for d in old} == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
    }


def test_no_code_is_named(tmp_path: Path) -> None:
    path = tmp_path / "written.pth"
    write_torch(path, {dtype: filled(dtype, (2, 3)) for dtype in DTYPES}, {"a": [1, None, {"b": True}]})
    operations = [*pickletools.genops(records(path)["archive/data.pkl"])]
    named = {arg for op, arg, _ in operations if op.name == "GLOBAL"}
    assert named == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch.storage UntypedStorage",
        *(f"torch {d.storage}" if d.storage else f"torch {d.name}" for d in DTYPES.values()),
    }
    assert not {op.name for op, *_ in operations} & {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []


def test_records_are_aligned_and_named_as_torch_does(tmp_path: Path) -> None:
    path = tmp_path / "written.pth"
    state = {f"n{i}": filled("uint8", (i,), i) for i in range(130)}
    write_torch(path, state)
    data, at = path.read_bytes(), starts(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[:3] == ["archive/data.pkl", "archive/byteorder", "archive/data/0"]
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/version") == b"3\n"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        for i, tensor in enumerate(state.values()):
            start = at[f"archive/data/{i}"]
            assert start % 64 == 0
            assert data[start : start + i] == archive.read(f"archive/data/{i}") == raw(tensor)


def test_more_records_than_a_narrow_directory_counts(tmp_path: Path) -> None:
    path, one = tmp_path / "written.pth", piece("", torch.ones(1))
    with path.open("w+b") as file:
        torch_writer.write(file, [replace(one, name=str(i)) for i in range(1 << 16)], {}, lambda *_: None)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == (1 << 16) + 3
    assert len(torch.load(path, weights_only=True)["state_dict"]) == 1 << 16


class Holes(io.FileIO):
    """A file that leaves a hole for every block of zeros, so that gigabytes take no room and no time."""

    ZEROS = bytes(1 << 24)

    def write(self, data: Any) -> int:
        if data is self.ZEROS:
            self.seek(len(data), io.SEEK_CUR)
            return len(data)
        return super().write(data) or 0


@pytest.mark.parametrize("crc", [zlib.crc32(b""), None], ids=["checksum known", "checksum filled in"])
def test_more_than_four_gigabytes(crc: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of 4.5 GiB, and one that starts behind it."""

    def zeros(verify: bool) -> Iterator[bytes]:
        return (Holes.ZEROS for _ in range(288))

    monkeypatch.setattr(torch_writer.zlib, "crc32", _crc32_of_anything_but(Holes.ZEROS))
    path, small = tmp_path / "written.pth", filled("float32", (3, 4))
    huge = Piece("huge", TensorSpec((288, 1 << 24), DTYPES["uint8"]), crc, zeros)
    with Holes(path, "w+") as file:
        torch_writer.write(file, [piece("first", small), huge, piece("last", small)], {}, lambda *_: None)
    monkeypatch.undo()
    assert path.stat().st_size > 9 << 29
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()][2:5] == [48, 9 << 29, 48]
        assert archive.getinfo("archive/data/2").header_offset > 9 << 29
        assert archive.read("archive/data/2") == raw(small)
    loaded = torch.load(path, weights_only=True, mmap=True)["state_dict"]
    assert raw(loaded["first"]) == raw(loaded["last"]) == raw(small)
    assert loaded["huge"].shape == (288, 1 << 24)
    assert not loaded["huge"][-1].any()
    with open_checkpoint(path) as checkpoint:
        stored = checkpoint.tensors("state_dict")
        assert b"".join(checkpoint.chunks(stored["last"])) == raw(small)
        assert stored["huge"].spec == huge.spec


def _crc32_of_anything_but(skipped: bytes) -> Any:
    """The checksum of gigabytes of zeros would take seconds, and nobody looks at it here."""
    crc32 = zlib.crc32
    return lambda data, value=0: value if data is skipped else crc32(data, value)


# safetensors ------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, derandomize=True)
@given(state=states(IN_SAFETENSORS), metadata=st.dictionaries(names, names, max_size=3))
def test_safetensors_loads_what_is_written(
    state: State, metadata: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.safetensors"
    write_safetensors(path, state, metadata)
    assert_same(dict(sorted(load_file(path).items())), dict(sorted(state.items())))
    with safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == metadata
        assert sorted(file.keys()) == sorted(state)
        for name, tensor in state.items():
            assert raw(file.get_tensor(name)) == raw(tensor)
            assert file.get_slice(name).get_dtype() == spec(tensor).dtype.safetensors


def test_safetensors_loads_every_type(tmp_path: Path) -> None:
    shapes = [(), (3,), (2, 0), (2, 3, 4)]
    state = {f"{dtype}{shape}": filled(dtype, shape) for dtype in IN_SAFETENSORS for shape in shapes}
    write_safetensors(tmp_path / "written.safetensors", state)
    assert_same(dict(sorted(load_file(tmp_path / "written.safetensors").items())), dict(sorted(state.items())))


def test_every_tensor_is_aligned_to_its_elements(tmp_path: Path) -> None:
    path = tmp_path / "written.safetensors"
    write_safetensors(path, {f"{i}{dtype}": filled(dtype, (i,)) for dtype in IN_SAFETENSORS for i in (1, 3)})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    types = {d.safetensors: d for d in DTYPES.values()}
    assert length % 8 == 0
    for name, entry in header.items():
        assert name == "__metadata__" or entry["data_offsets"][0] % types[entry["dtype"]].itemsize == 0, name


@pytest.mark.parametrize("dtype", ["complex32", "complex128"])
def test_safetensors_has_no_word_for_some_types(dtype: str) -> None:
    with pytest.raises(UsageError) as caught:
        safetensors_writer.in_order([piece("a.w", filled(dtype, (2,)))])
    assert str(caught.value) == f"safetensors cannot hold a.w: it has no {dtype}\nWrite a torch file: `format='torch'`."


def test_safetensors_keeps_one_name_for_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="__metadata__"):
        write_safetensors(tmp_path / "written.safetensors", {"__metadata__": torch.ones(2)})


# Both -------------------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("write", [write_torch, write_safetensors], ids=["torch", "safetensors"])


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_read_write_read_is_the_identity(kind: str, tmp_path: Path) -> None:
    state = {dtype: filled(dtype, (2, 3)) for dtype in IN_SAFETENSORS}
    state |= {name: view(filled("float32", (2, 3, 4, 4))) for name, view in VIEWS.items()}
    torch.save({"net": state}, tmp_path / "source")
    with open_checkpoint(tmp_path / "source") as source, (tmp_path / "copy").open("w+b") as file:
        found = source.tensors("net")
        pieces = [Piece(n, t.spec, source.checksum(t), partial(source.chunks, t)) for n, t in found.items()]
        if kind == "torch":
            torch_writer.write(file, pieces, {}, lambda *_: None)
        else:
            safetensors_writer.write(file, safetensors_writer.in_order(pieces), {}, lambda *_: None)
        file.flush()
        with open_checkpoint(tmp_path / "copy") as copy:
            copies = copy.tensors("state_dict" if kind == "torch" else "")
            assert {n: t.spec for n, t in copies.items()} == {n: spec(t) for n, t in state.items()}
            for name, tensor in found.items():
                assert b"".join(copy.chunks(copies[name])) == b"".join(source.chunks(tensor)), name


@both
def test_same_input_same_bytes(write: Any, tmp_path: Path) -> None:
    state = {dtype: filled(dtype, (2, 3)) for dtype in IN_SAFETENSORS}
    for name in ("first.a", "second.b"):
        write(tmp_path / name, state, {"note": "same"})
    assert (tmp_path / "first.a").read_bytes() == (tmp_path / "second.b").read_bytes()


def test_an_unknown_checksum_changes_no_byte(tmp_path: Path) -> None:
    state = {dtype: filled(dtype, (2, 3)) for dtype in DTYPES}
    for known in (True, False):
        write_torch(tmp_path / str(known), state, {}, crc_known=known)
    assert (tmp_path / "True").read_bytes() == (tmp_path / "False").read_bytes()


def test_safetensors_does_not_depend_on_the_order_of_its_input(tmp_path: Path) -> None:
    state = {dtype: filled(dtype, (2, 3)) for dtype in IN_SAFETENSORS}
    write_safetensors(tmp_path / "first", state)
    write_safetensors(tmp_path / "second", dict(reversed(state.items())))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_half_a_surrogate_is_no_name_for_safetensors(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_safetensors(tmp_path / "written", {"\ud800": torch.ones(2)})


def test_half_a_surrogate_is_a_name_for_torch(tmp_path: Path) -> None:
    """torch.save writes such names, and torch.load reads them."""
    write_torch(tmp_path / "written", {"\ud800": torch.ones(2)})
    assert_same(torch.load(tmp_path / "written", weights_only=True)["state_dict"], {"\ud800": torch.ones(2)})

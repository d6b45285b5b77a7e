"""Pickled dictionaries of numpy arrays are read back bit for bit. The oracles are numpy and pickle."""

from __future__ import annotations

import math
import pickle
import random
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.spec import DTYPES, TensorSpec

NAMES = {d.numpy[1:]: d for d in DTYPES.values() if d.numpy}
PROTOCOLS = [2, 3, 4, 5]
Arrays = Mapping[str, np.ndarray[Any, Any]]


def filled(code: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    """An array of random bits."""
    dtype = np.dtype(code)
    data = random.Random(seed).randbytes(math.prod(shape) * dtype.itemsize)
    data = bytes(b & 1 for b in data) if dtype.kind == "b" else data
    return np.frombuffer(data, dtype).reshape(shape).copy()


def raw(array: np.ndarray[Any, Any]) -> bytes:
    """The array's bytes in order, little-endian, without a look at what they mean."""
    swapped = array.byteswap() if array.dtype.str[0] == ">" else array
    return swapped.tobytes(order="C")


def assert_reads(path: Path, expected: Mapping[str, Arrays]) -> None:
    with open_checkpoint(path) as checkpoint:
        assert {p: set(s.tensors) for p, s in checkpoint.sections.items()} == {p: set(a) for p, a in expected.items()}
        for section, arrays in expected.items():
            for name, stored in checkpoint.tensors(section).items():
                assert stored.spec == TensorSpec(arrays[name].shape, NAMES[arrays[name].dtype.str[1:]]), name
                assert b"".join(checkpoint.chunks(stored)) == raw(arrays[name]), name
                array = checkpoint.array(stored)
                assert (array.shape, array.tobytes()) == (arrays[name].shape, raw(arrays[name])), name


codes = st.sampled_from([order + name for name in NAMES for order in "<>"])
arrays = st.builds(
    lambda array, axes, step: array.transpose(axes[: array.ndim] if len(axes) == array.ndim else None)[..., ::step],
    st.builds(filled, codes, st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple), st.integers(0, 1 << 32)),
    st.permutations(range(3)),
    st.sampled_from([1, 1, 2, -1]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    model=st.dictionaries(st.text(), arrays, min_size=1, max_size=4),
    protocol=st.sampled_from(PROTOCOLS),
    bare=st.booleans(),
)
def test_what_pickle_writes_is_read_back(
    model: Arrays, protocol: int, bare: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = model if bare else {"model": model, "__author__": "caffe2", "matching_heuristics": True}
    path = tmp_path_factory.getbasetemp() / "model.pkl"
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    assert_reads(path, {"" if bare else "model": model})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_every_type_is_read(name: str, protocol: int, tmp_path: Path) -> None:
    base = filled(f"<{name}", (2, 3, 4))
    model = {
        "c": base,
        "fortran": np.asfortranarray(base),
        "permuted": base.transpose(1, 0, 2),
        "sliced": base[:, ::2, ::-1],
        "big-endian": filled(f">{name}", (2, 3)),
        "scalar": filled(f"<{name}", ()),
        "empty": filled(f"<{name}", (2, 0)),
        "read-only": np.frombuffer(base.tobytes(), base.dtype),
        "again": base,
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": model}, protocol=protocol))
    assert_reads(path, {"model": model})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_detectron2_writes_is_read(protocol: int, tmp_path: Path) -> None:
    model = {"stem.conv1.weight": filled("<f4", (64, 3, 7, 7)), "res2.0.conv1.norm.bias": filled("<f4", (64,))}
    tree = {"model": model, "__author__": "MOCO", "matching_heuristics": True}
    path = tmp_path / "detectron.pkl"
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    assert_reads(path, {"model": model})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "numpy pickle"
        assert set(checkpoint.named) <= {
            "_codecs.encode",
            "numpy.dtype",
            "numpy.ndarray",
            "numpy._core.multiarray._reconstruct",
            "numpy._core.numeric._frombuffer",
        }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.array([None, 1], dtype=object),
        np.array(["a", "bc"]),
        np.array([b"a", b"bc"]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.zeros(2, dtype=[("x", "f4"), ("y", "i2")]),
        np.zeros(2, dtype="V3"),
        np.float32(1.5),
        np.ma.masked_array([1, 2], [0, 1]),
    ],
    ids=["objects", "text", "bytes", "dates", "records", "void", "number", "masked"],
)
def test_what_is_no_tensor_is_left_among_the_others(array: object, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"w": np.ones(2), "strange": array}, protocol=protocol))
    assert_reads(path, {"": {"w": np.ones(2)}})
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.sections[""].others) == {"strange"}


@pytest.mark.parametrize("nested", [False, True])
def test_a_dictionary_in_a_npy_file_is_read(nested: bool, tmp_path: Path) -> None:
    model = {"w": filled("<f4", (3, 4)), "b": filled(">i8", (2,)), "n": filled("<f8", ())}
    path = tmp_path / "model.npy"
    np.save(path, {"model": model, "epoch": 3} if nested else model, allow_pickle=True)
    assert_reads(path, {"model" if nested else "": model})


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    model = {"w": filled("<f4", (3, 4))}
    with (tmp_path / "model.npy").open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that older versions of numpy cannot read it
        np.lib.format.write_array(file, np.array(model, dtype=object), version)
    assert_reads(tmp_path / "model.npy", {"": model})


@pytest.mark.parametrize("name", ["array.npy", "array.pth"])
def test_a_bare_array_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        np.save(file, np.ones((2, 3)))
    with pytest.raises(UnreadableError, match="is a single numpy array, not a checkpoint"):
        open_checkpoint(tmp_path / name)


def test_an_archive_of_arrays_is_read(tmp_path: Path) -> None:
    model = {code: filled(code, (3, 4)) for code in ("<f4", ">f4", "<f8", "<f2", "|b1", "<i8", "<c8")}
    model |= {"scalar": filled("<f4", ()), "empty": filled("<f4", (0, 2)), "blocks.0.w": filled("<f4", (2, 3, 4)).T}
    np.savez(tmp_path / "model.npz", **model)
    assert_reads(tmp_path / "model.npz", {"": model})


def test_what_an_archive_holds_beside_numbers_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", w=np.ones(2), config=np.array("vit"))
    with open_checkpoint(tmp_path / "model.npz") as checkpoint:
        assert (set(checkpoint.sections[""].tensors), dict(checkpoint.sections[""].others)) == (
            {"w"},
            {"config": "str"},
        )


def test_an_archive_is_read_as_its_checksum_says(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, w=np.arange(64, dtype=np.float32))
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(63).tobytes())] ^= 1
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint, pytest.raises(UnreadableError, match="checksum"):
        b"".join(checkpoint.chunks(checkpoint.tensors("")["w"]))


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "model.npz", w=np.zeros(100))
    with pytest.raises(UnreadableError, match=r"its arrays are compressed\nRead them with numpy"):
        open_checkpoint(tmp_path / "model.npz")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(2, 3)", b"(2, 4)"),
        (b"(2, 3)", b"(2,-3)"),
        (b"(2, 3)", b"(2, x)"),
        (b"'shape'", b"'shale'"),
        (b"\x93NUMPY", b"\x93NUMPX"),
        (b"NUMPY\x01", b"NUMPY\x04"),
        (b"\x76\x00{", b"\xff\xff{"),
    ],
)
def test_an_array_whose_header_lies_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, w=np.ones((2, 3), np.float32))
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(UnreadableError, match="the header of its array 'w' is malformed"):
        open_checkpoint(path)


# Python 2 ---------------------------------------------------------------------------------------------------------


def _old_string(data: bytes) -> bytes:
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def _old_array(array: np.ndarray[Any, Any]) -> bytes:
    """How numpy under Python 2 pickled an array at protocol 2: every text a byte string."""
    order, code = array.dtype.newbyteorder("<").str[0], array.dtype.str[1:].encode()
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
    kind = b"cnumpy\ndtype\n" + _old_string(code) + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _old_string(order.encode()) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _old_string(b"b") + b"\x87R"
    return made + b"(K\x01" + shape + kind + b"\x89" + _old_string(array.tobytes()) + b"tb"


@pytest.mark.parametrize("length", [0, 1, 63, 64, 1000, 1024, 1025, 100_000])
def test_what_python_2_wrote_is_read(length: int, tmp_path: Path) -> None:
    model = {"conv1_w": filled("<f4", (length,)), "flags": filled("|b1", (length, 1)), "half": filled("<f2", (length,))}
    pairs = b"".join(_old_string(name.encode()) + _old_array(array) for name, array in model.items())
    data = b"\x80\x02}(" + _old_string(b"blobs") + b"}(" + pairs + b"uU\x03cfgU\x05a: 1\nu."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is an old name
        oracle = pickle.loads(data, encoding="latin1")
    assert {name: array.tobytes() for name, array in oracle["blobs"].items()} == {
        n: a.tobytes() for n, a in model.items()
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    assert_reads(path, {"blobs": model})

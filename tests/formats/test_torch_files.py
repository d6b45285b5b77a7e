"""What torch.save writes is read back bit for bit, in both containers. The oracle is torch."""

from __future__ import annotations

import argparse
import math
import random
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import CHUNK
from ckptconv.spec import DTYPES, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")

Sections = Mapping[str, Mapping[str, torch.Tensor]]
zip_and_legacy = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])


# What is saved, and what must come back ---------------------------------------------------------------------------


def filled(dtype: str, shape: Iterable[int], seed: int = 0) -> torch.Tensor:
    """A contiguous tensor of random bits: NaNs with payloads, infinities and subnormals among them."""
    shape, kind = tuple(shape), getattr(torch, dtype)
    data = bytearray(random.Random(seed).randbytes(math.prod(shape) * kind.itemsize))
    if not data:
        return torch.empty(shape, dtype=kind)
    if dtype == "bool":
        data = bytearray(b & 1 for b in data)
    return torch.frombuffer(data, dtype=torch.uint8).view(kind).reshape(shape)


def raw(tensor: torch.Tensor) -> bytes:
    """The tensor's bytes in order, as torch sees them."""
    flat = tensor.detach().clone(memory_format=torch.contiguous_format).flatten()
    return flat.view(torch.uint8).numpy().tobytes()


def spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), DTYPES[str(tensor.dtype).removeprefix("torch.")])


VIEWS = {
    "transposed": lambda t: t.permute(tuple(reversed(range(t.dim())))),
    "every other": lambda t: t[..., ::2] if t.dim() else t,
    "tail": lambda t: t[1:] if t.dim() else t,
    "right": lambda t: t.narrow(-1, t.shape[-1] // 2, t.shape[-1] - t.shape[-1] // 2) if t.dim() else t,
    "expanded": lambda t: t.unsqueeze(0).expand(3, *t.shape),
    "channels last": lambda t: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "one row": lambda t: t[0] if t.dim() and len(t) else t,
    "diagonal": lambda t: t.diagonal() if t.dim() > 1 else t,
    "overlapping": lambda t: t.unfold(0, 2, 1) if t.dim() and len(t) > 1 else t,
    "parameter": lambda t: torch.nn.Parameter(t, requires_grad=t.is_floating_point()),
}

shapes = st.lists(st.integers(1, 4) | st.integers(0, 3), max_size=4)


def tensors(dtypes: Iterable[str] = DTYPES) -> st.SearchStrategy[torch.Tensor]:
    return st.builds(filled, st.sampled_from([*dtypes]), shapes, st.integers(0, 1 << 32))


@st.composite
def views(draw: st.DrawFn, bases: st.SearchStrategy[torch.Tensor]) -> torch.Tensor:
    tensor = draw(bases)
    for name in draw(st.lists(st.sampled_from([*VIEWS]), max_size=3)):
        tensor = VIEWS[name](tensor)
    return tensor


others = st.sampled_from(
    [None, True, 7, -(1 << 70), 2.5, 3j, "text", b"bytes", (1, (2,)), {1, 2}, range(3), slice(1, 2), OrderedDict]
) | st.sampled_from(
    [torch.float16, torch.device("cpu"), torch.Size([2, 3]), np.float64(1.5), np.int64(3), argparse.Namespace(lr=0.1)]
)
odd = st.sampled_from(["w", "a", "a.b", ".", "module.0.weight", "\0", "\n", "\ud800", "é", "鍵", "\U0001d11e", 0, 1])
keys = odd | st.text(min_size=1, max_size=5)


@st.composite
def trees(draw: st.DrawFn) -> dict[object, object]:
    """Nested containers of tensors that share a few storages, and of other things."""
    pool = draw(st.lists(tensors(), min_size=1, max_size=3))
    tensor = views(st.sampled_from(pool))

    def containers(inside: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        table = st.dictionaries(keys, inside, max_size=4)
        return table | table.map(OrderedDict) | st.lists(inside, max_size=3)

    around = draw(st.dictionaries(keys, st.recursive(tensor | others, containers, max_leaves=6), max_size=3))
    return {**around, draw(keys): draw(st.dictionaries(keys, tensor, min_size=1, max_size=4))}


def sections(tree: object, path: tuple[str, ...] = ()) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """The mappings that hold tensors by name, with their dotted paths."""
    items = [*(tree.items() if isinstance(tree, dict) else enumerate(tree))]
    found = {k: v for k, v in items if isinstance(k, str) and isinstance(v, torch.Tensor)}
    inner = [s for k, v in items if isinstance(v, dict | list) for s in sections(v, (*path, str(k)))]
    return [(".".join(path), found), *inner] if found and isinstance(tree, dict) else inner


def assert_reads(path: Path, expected: Sections) -> None:
    with open_checkpoint(path) as checkpoint:
        assert {p: set(s.tensors) for p, s in checkpoint.sections.items()} == {p: set(t) for p, t in expected.items()}
        for section, wanted in expected.items():
            for name, stored in checkpoint.tensors(section).items():
                assert stored.spec == checkpoint.sections[section].tensors[name] == spec(wanted[name])
                assert b"".join(checkpoint.chunks(stored)) == raw(wanted[name]), (section, name)
                assert checkpoint.checksum(stored) in (None, zlib.crc32(raw(wanted[name])))
                array = checkpoint.array(stored)
                assert (array.shape, array.tobytes()) == (wanted[name].shape, raw(wanted[name])), (section, name)


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_records(path: Path, content: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def replace_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Change the pickle of a torch file of either container."""
    if zipfile.is_zipfile(path):
        changed = {n: d.replace(old, new) if n.endswith("data.pkl") else d for n, d in records(path).items()}
        assert changed != records(path)
        write_records(path, changed)
    else:
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))


# Anything torch.save writes ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(tree=trees(), as_zip=st.booleans(), protocol=st.integers(2, 5))
def test_what_torch_saves_is_read_back(
    tree: dict[object, object], as_zip: bool, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = sections(tree)
    assume(len(dict(expected)) == len(expected))  # two sections of one dotted path cannot be told apart
    path = tmp_path_factory.getbasetemp() / "tree.pth"
    torch.save(tree, path, _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    assert_reads(path, dict(expected))


@zip_and_legacy
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_read_under_every_view(dtype: str, as_zip: bool, tmp_path: Path) -> None:
    base = filled(dtype, (2, 3, 4, 4))
    state = {"whole": base, "scalar": filled(dtype, ()), "empty": filled(dtype, (2, 0, 3))}
    state |= {name: view(base) for name, view in VIEWS.items()}
    torch.save({"state_dict": state}, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert_reads(tmp_path / "file.pth", {"state_dict": state})


@zip_and_legacy
def test_a_training_file_is_read(as_zip: bool, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "args": argparse.Namespace(arch="r50"), "best": np.float64(0.5), "model": model.state_dict()}
    saved["optimizer"] = optimizer.state_dict()
    torch.save(saved, tmp_path / "file.pth.tar", _use_new_zipfile_serialization=as_zip)
    state = saved["optimizer"]["state"]
    assert_reads(
        tmp_path / "file.pth.tar",
        {"model": saved["model"], **{f"optimizer.state.{i}": state[i] for i in range(4)}},
    )


@zip_and_legacy
@pytest.mark.parametrize("view", ["whole", "transposed", "tail"])
def test_long_tensors_come_in_runs(view: str, as_zip: bool, tmp_path: Path) -> None:
    tensor = VIEWS.get(view, lambda t: t)(filled("int16", (1100, 1000)))
    torch.save({"w": tensor}, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert_reads(tmp_path / "file.pth", {"": {"w": tensor}})
    with open_checkpoint(tmp_path / "file.pth") as checkpoint:
        lengths = [len(run) for run in checkpoint.chunks(checkpoint.tensors("")["w"])]
    assert lengths[:-1] == [CHUNK] * (len(lengths) - 1)
    assert len(lengths) > 2


@zip_and_legacy
def test_an_empty_view_may_lie_behind_its_storage(as_zip: bool, tmp_path: Path) -> None:
    tensor = torch.empty(2, 0)[1:]
    assert tensor.storage_offset() == 1
    torch.save({"w": tensor}, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert torch.load(tmp_path / "file.pth")["w"].shape == (1, 0)
    assert_reads(tmp_path / "file.pth", {"": {"w": tensor}})


@pytest.mark.parametrize(
    "tree",
    [
        {"a": 1, "a.b": {"w": torch.ones(1)}},
        {"a": {"c": 1}, "a.b": {"w": torch.ones(1)}},
        {"a": {"b": 1}, "a.b": {"c": {"w": torch.ones(1)}}},
        {"net": {"layer": {"x": torch.ones(1)}, "layer.0": {"y": torch.ones(2)}}},
    ],
)
def test_names_of_sections_may_hold_dots(tree: dict[str, object], tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "file.pth")
    assert_reads(tmp_path / "file.pth", dict(sections(tree)))


@pytest.mark.parametrize("tree", [{"": {"w": torch.ones(1)}}, {"": {"": {"w": torch.ones(1)}}}])
def test_names_of_sections_may_be_empty(tree: dict[str, object], tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "file.pth")
    with open_checkpoint(tmp_path / "file.pth") as checkpoint:
        (path,) = checkpoint.sections
        assert b"".join(checkpoint.chunks(checkpoint.tensors(path)["w"])) == raw(torch.ones(1))


@zip_and_legacy
@pytest.mark.parametrize("tree", [torch.ones(2), [torch.ones(2)], {"epoch": 1}, {0: torch.ones(2)}, "text"])
def test_a_file_without_named_tensors_has_no_section(tree: object, as_zip: bool, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert_reads(tmp_path / "file.pth", {})


# Tensors with something about them --------------------------------------------------------------------------------


class Subclass(torch.Tensor):
    """Like torchvision's datapoints or fastai's TensorBase."""


def _with_attribute(tensor: torch.Tensor) -> torch.Tensor:
    tensor.note = "kept by torch, of no use here"
    return tensor


@zip_and_legacy
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).as_subclass(Subclass),
        torch.arange(6.0)[2:].as_subclass(Subclass),
        _with_attribute(torch.arange(3)),
        _with_attribute(torch.nn.Parameter(torch.arange(6.0).view(2, 3).t())),
        _with_attribute(filled("float8_e5m2", (3,))),
        torch.nn.Buffer(torch.arange(3.0)),
        torch.arange(4.0).requires_grad_(),
    ],
    ids=["subclass", "view of a subclass", "attribute", "parameter with state", "float8", "buffer", "requires grad"],
)
def test_what_surrounds_a_tensor_is_left_out(tensor: torch.Tensor, as_zip: bool, tmp_path: Path) -> None:
    torch.save({"w": tensor, "plain": torch.ones(2)}, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert_reads(tmp_path / "file.pth", {"": {"w": tensor.as_subclass(torch.Tensor), "plain": torch.ones(2)}})


WEIGHTS = torch.arange(6.0).reshape(2, 3)
STRANGE = {
    "conjugated": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "conjugated float16": lambda: torch.ones(3, dtype=torch.complex32).conj(),
    "negated": lambda: torch._neg_view(WEIGHTS),
    "imaginary part of a conjugate": lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
    "sparse": lambda: WEIGHTS.to_sparse(),
    "compressed sparse": lambda: WEIGHTS.to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(WEIGHTS, 0.1, 0, torch.qint8),
    "quantized to 32 bits": lambda: torch.quantize_per_tensor(WEIGHTS, 0.1, 0, torch.qint32),
    "quantized to 4 bits": lambda: torch.quantize_per_tensor(WEIGHTS, 0.1, 0, torch.quint4x2),
    "quantized per channel": lambda: torch.quantize_per_channel(
        WEIGHTS, torch.tensor([0.1, 0.2]), torch.zeros(2), 0, torch.quint8
    ),
    "meta": lambda: WEIGHTS.to("meta"),
    "nested": lambda: torch.nested.nested_tensor([WEIGHTS, WEIGHTS]),
    "bits": lambda: torch.ones(4, dtype=torch.uint8).view(torch.bits8),
    "float4": lambda: torch.ones(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "storage": lambda: WEIGHTS.untyped_storage(),
}


@zip_and_legacy
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch announces most of these as prototypes or as deprecated
def test_what_is_no_plain_tensor_is_named_and_harms_no_other(kind: str, as_zip: bool, tmp_path: Path) -> None:
    tensors = {"before": torch.arange(4), "after": filled("float16", (2, 2))}
    tree = {"before": tensors["before"], "strange": STRANGE[kind](), "after": tensors["after"]}
    torch.save(tree, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert_reads(tmp_path / "file.pth", {"": tensors})
    with open_checkpoint(tmp_path / "file.pth") as checkpoint:
        assert set(checkpoint.sections[""].others) == {"strange"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@zip_and_legacy
def test_numpy_arrays_and_options_beside_weights(as_zip: bool, protocol: int, tmp_path: Path) -> None:
    arrays = {
        "flat": np.arange(200, dtype="<f4"),
        "matrix": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "scalar": np.array(3.5),
        "empty": np.empty((0, 3), "<f8"),
    }
    tree = {"w": torch.ones(2), "mean": np.float32(0.5), "args": argparse.Namespace(lr=np.float64(0.1)), **arrays}
    torch.save({"model": tree}, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    expected = {name: torch.from_numpy(a.astype(a.dtype.newbyteorder("="))) for name, a in arrays.items()}
    assert_reads(tmp_path / "file.pth", {"model": {"w": torch.ones(2), **expected}})
    with open_checkpoint(tmp_path / "file.pth") as checkpoint:
        assert checkpoint.sections["model"].others["args"] == "argparse.Namespace"
        assert set(checkpoint.sections["model"].others) == {"mean", "args"}


@zip_and_legacy
def test_tensors_of_another_device_are_read(as_zip: bool, tmp_path: Path) -> None:
    path, tensors = tmp_path / "file.pth", {"w": filled("float32", (3, 4)).t(), "n": torch.tensor(7)}
    torch.save(tensors, path, _use_new_zipfile_serialization=as_zip)
    replace_in_pickle(path, b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert raw(torch.load(path, map_location="cpu")["w"]) == raw(tensors["w"])
    assert_reads(path, {"": tensors})


# Zip archives of other origins ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_big_endian_machine_wrote_it(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    base = filled(dtype, (3, 4))
    tensors = {"w": base, "t": base.t(), "tail": base[1:, ::2]}
    torch.save(tensors, path)
    unit = base.dtype.itemsize // (2 if base.is_complex() else 1)
    content = records(path)
    for name, data in content.items():
        if name.endswith("/byteorder"):
            content[name] = b"big"
        elif "/data/" in name:
            content[name] = np.frombuffer(data, f"V{unit}").view(np.uint8).reshape(-1, unit)[:, ::-1].tobytes()
    write_records(path, content)
    if DTYPES[dtype].storage:  # of newer types torch.load forgets to swap the bytes
        assert raw(torch.load(path)["t"]) == raw(tensors["t"])
    assert_reads(path, {"": tensors})


def test_the_first_zip_files_had_less_in_them(tmp_path: Path) -> None:
    path, tensors = tmp_path / "file.pth", {"w": filled("float32", (3, 4)), "n": torch.tensor(7)}
    torch.save(tensors, path)
    old = {f"archive/{n.partition('/')[2]}": d for n, d in records(path).items()}
    old = {n: d for n, d in old.items() if n == "archive/data.pkl" or n.startswith("archive/data/")}
    write_records(path, {**old, "archive/version": b"3\n"})
    assert raw(torch.load(path)["w"]) == raw(tensors["w"])
    assert_reads(path, {"": tensors})


@pytest.mark.parametrize("name", ["a.pth", "a b.c.ckpt", "noending", "模型.pth.tar", "x.safetensors", "x.pkl"])
@zip_and_legacy
def test_the_name_of_the_file_means_nothing(name: str, as_zip: bool, tmp_path: Path) -> None:
    torch.save({"w": torch.arange(3)}, tmp_path / name, _use_new_zipfile_serialization=as_zip)
    assert_reads(tmp_path / name, {"": {"w": torch.arange(3)}})


def test_records_with_zip64_fields(tmp_path: Path) -> None:
    path, tensors = tmp_path / "file.pth", {"w": filled("float32", (3, 4)), "n": torch.tensor(7)}
    torch.save(tensors, path)
    content = records(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            with archive.open(name, "w", force_zip64=True) as record:
                record.write(data)
    assert raw(torch.load(path)["w"]) == raw(tensors["w"])
    assert_reads(path, {"": tensors})


@pytest.mark.skipif(sys.maxsize < 1 << 40, reason="needs large files")
def test_records_behind_four_gigabytes(tmp_path: Path) -> None:
    path, tensors = tmp_path / "file.pth", {"w": filled("float32", (3, 4)), "n": torch.tensor(7)}
    torch.save(tensors, path)
    content = records(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            if name.endswith("/data/1"):
                archive.start_dir += 5 << 30  # a hole, which takes no room on the disk
            archive.writestr(name, data)
    assert path.stat().st_size > 5 << 30
    assert torch.load(path)["n"] == 7
    assert_reads(path, {"": tensors})

"""Entries that stand for tensors and are no plain ones: each is a problem, says what it is and what to do."""

from __future__ import annotations

import argparse
import pickle
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from ckptconv import convert, inspect, plan
from ckptconv.arguments import argument
from ckptconv.errors import UnidentifiedError, UnreadableError
from ckptconv.formats import open_checkpoint
from tests.formats.test_torch_files import records, write_records
from tests.formats.test_torch_files import zip_and_legacy as every_container

pytestmark = pytest.mark.filterwarnings("ignore")

LOST = "layer1.0.conv1.weight"


def resnet(bad: object = None, name: str = LOST) -> dict[Any, Any]:
    """A small ResNet of torchvision's names, one of whose tensors is something else."""
    state: dict[Any, Any] = {"conv1.weight": torch.randn(64, 3, 7, 7)}
    last = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            head = f"layer{stage}.{block}"
            state[f"{head}.conv1.weight"] = torch.randn(width, last, 3, 3)
            state[f"{head}.conv2.weight"] = torch.randn(width, width, 3, 3)
            if block == 0 and stage > 1:
                state[f"{head}.downsample.0.weight"] = torch.randn(width, last, 1, 1)
            last = width
    for kernel in [*state]:
        norm = kernel.removesuffix(".weight").replace("conv", "bn").replace("downsample.0", "downsample.1")
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(len(state[kernel]))
    if bad is not None:
        state[name] = bad
    return state


def saved(path: Path, value: object, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


class Masked(torch.Tensor):
    """A subclass that has no numbers of its own, as a library's quantised tensor has none."""

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, inside.shape, dtype=inside.dtype)  # type: ignore[attr-defined]

    def __init__(self, inside: torch.Tensor) -> None:
        self.inside = inside

    @classmethod
    def __torch_dispatch__(cls, func: object, types: object, args: object = (), kwargs: object = None) -> Any:
        return NotImplemented


def kernel() -> torch.Tensor:
    return torch.randn(64, 64, 3, 3)


SORTS: dict[str, tuple[Callable[[], object], str, str]] = {
    "sparse": (lambda: kernel().to_sparse(), "a sparse tensor", ".to_dense()"),
    "sparse rows": (lambda: torch.randn(64, 64).to_sparse_csr(), "a sparse tensor", ".to_dense()"),
    "quantised": (
        lambda: torch.quantize_per_tensor(kernel(), 0.1, 0, torch.qint8),
        "a quantised tensor",
        ".dequantize()",
    ),
    "by channel": (
        lambda: torch.quantize_per_channel(kernel(), torch.full((64,), 0.1), torch.zeros(64), 0, torch.quint8),
        "a quantised tensor",
        ".dequantize()",
    ),
    "packed": (
        lambda: (torch.quantize_per_tensor(kernel(), 0.1, 0, torch.qint8), torch.zeros(64)),
        "a quantised tensor",
        ".dequantize()",
    ),
    "meta": (lambda: kernel().to("meta"), "a tensor on the device 'meta'", "holds no values"),
    "negated": (lambda: torch._neg_view(kernel()), "a tensor that is still to be negated", ".resolve_neg()"),
    "conjugated": (lambda: kernel().to(torch.complex64).conj(), "a tensor that is still to be", ".resolve_conj()"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "a nested tensor", "its parts"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
        "a nested tensor (torch.nested._internal.nested_tensor.NestedTensor)",
        "its parts",
    ),
    "lazy": (torch.nn.UninitializedParameter, "a parameter without a shape yet", "run the network once"),
    "subclass": (lambda: Masked(kernel()), f"an object that holds tensors ({__name__}.Masked)", "plain tensor"),
    "masked": (lambda: torch.masked.masked_tensor(kernel(), kernel() > 0), "a masked tensor", ".to_tensor(0.0)"),
    "bits": (
        lambda: torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "a tensor of type torch.float4_e2m1fn_x2",
        ".float()",
    ),
    "storage": (lambda: kernel().storage(), "a storage without a shape", "the tensor that it belongs to"),
    "numpy objects": (lambda: np.array([None, 1], dtype=object), "a numpy array of O8", ".astype('float32')"),
    "numpy long": (lambda: np.zeros(3, np.longdouble), "a numpy array of f16", ".astype('float32')"),
}


@pytest.mark.parametrize("sort", SORTS)
def test_an_entry_that_a_rule_would_keep_is_a_problem(sort: str, tmp_path: Path) -> None:
    make, what, advice = SORTS[sort]
    path = saved(tmp_path / "model.pth", resnet(make()))
    with pytest.raises(UnidentifiedError) as caught:
        convert(path, tmp_path / "out.pth")
    assert f"  {LOST} is {what}" in caught.value.message
    assert "which cannot be read as a plain tensor" in caught.value.message
    assert advice in caught.value.hint
    assert "drop" not in caught.value.hint
    assert not (tmp_path / "out.pth").exists()
    with pytest.raises(UnidentifiedError) as caught:
        convert(path, tmp_path / "out.pth", drop=[LOST])
    assert (
        f"`drop` cannot remove {LOST}: it is part of layer1, and other tensors of it are kept: "
        "without it the network computes something else" in caught.value.message
    )
    found = inspect(path)
    assert found.unreadable[""][LOST].startswith(what)
    assert LOST in found.others[""]
    assert not any(fit.complete for fit in found.fits)


@pytest.mark.parametrize("sort", [s for s in SORTS if s not in ("subclass", "numpy objects")])
@pytest.mark.parametrize("name", ["secret.weight", 7])
def test_one_that_no_rule_explains_is_dropped_by_name_only(sort: str, name: object, tmp_path: Path) -> None:
    make, what, _ = SORTS[sort]
    path = saved(tmp_path / "model.pth", {**resnet(), name: make()})
    with pytest.raises(UnidentifiedError) as caught:
        convert(path, tmp_path / "out.pth")
    assert f"  {name} is {what}" in caught.value.message
    assert f"drop it: {argument('drop', [str(name)])}" in caught.value.hint
    receipt = convert(path, tmp_path / "out.pth", drop=[str(name)])
    assert {d.source: d.why for d in receipt.plan.dropped}[str(name)] == "dropped on request"
    assert receipt.plan.entries == receipt.plan.tensors + 1


def test_a_tensor_under_a_name_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pth", {**resnet(), 7: torch.zeros(2), "7": torch.zeros(2), b"b": torch.zeros(2)})
    with pytest.raises(UnidentifiedError) as caught:
        convert(path, tmp_path / "out.pth", drop=["7"])
    assert "  7' is a tensor whose name is not text but int" in caught.value.message
    assert "whose name is not text but bytes" in caught.value.message
    assert "Give it a name that is text" in caught.value.hint


@pytest.mark.parametrize(
    "value",
    [3, 2.5, None, "text", [1, 2], {"a": 1}, argparse.Namespace(arch="resnet18"), np.float32(3), torch.Size([3])],
    ids=str,
)
@pytest.mark.parametrize("name", ["note", "layer1.0.note"])
def test_what_is_no_tensor_at_all_is_a_harmless_drop(value: object, name: str, tmp_path: Path) -> None:
    settled = plan(saved(tmp_path / "model.pth", {**resnet(), name: value}))
    assert settled.complete
    assert settled.entries == settled.tensors + 1
    (gone,) = [d for d in settled.dropped if d.source == name]
    assert gone.why.startswith("not a tensor: ")


def test_the_names_of_other_libraries_classes_are_enough(tmp_path: Path) -> None:
    """No class is looked up: a file of a library that is not here says as much as one of a library that is."""
    for number, (module, name, what) in enumerate(
        [
            ("torchao.dtypes.affine_quantized_tensor", "AffineQuantizedTensor", "a quantised tensor (torchao."),
            ("torchao.float8.float8_tensor", "Float8Tensor", "a quantised tensor (torchao."),
            ("bitsandbytes.nn.modules", "Params4bit", "a quantised tensor (bitsandbytes."),
            ("torch.distributed._tensor.api", "DTensor", "one rank's part of a tensor (torch."),
            ("torch.distributed._shard.sharded_tensor.api", "ShardedTensor", "one rank's shard of a tensor (torch."),
            ("a.library", "StrangeTensor", "a tensor of the class a.library.StrangeTensor"),
        ]
    ):
        path = saved(tmp_path / f"{number}.pth", resnet())
        body = records(path)
        text = LOST.encode()
        made = f"c{module}\n{name}\n)R".encode()
        known = body["archive/data.pkl"] if "archive/data.pkl" in body else body[f"{number}/data.pkl"]
        entry = b"X" + struct.pack("<I", len(text)) + text + made
        body[next(n for n in body if n.endswith("data.pkl"))] = known[:-2] + entry + b"u."
        write_records(path, body)
        with pytest.raises(UnidentifiedError) as caught:
            plan(path)
        assert f"  {LOST} is {what}" in caught.value.message


# Distributed tensors ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2])
def ranks(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process group of one rank or of two, the second of which does not exist."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield request.param
    dist.destroy_process_group()


@pytest.mark.parametrize("placement", [Shard(0), Replicate(), Partial()], ids=str)
def test_a_dtensor_is_read_where_this_rank_has_all_of_it(ranks: int, placement: Any, tmp_path: Path) -> None:
    mesh, local = init_device_mesh("cpu", (ranks,)), kernel()
    value = DTensor.from_local(local, mesh, [placement], run_check=False)
    path = saved(tmp_path / "model.pth", resnet(value))
    if isinstance(placement, Replicate) or (isinstance(placement, Shard) and ranks == 1):
        assert plan(path).complete
        with open_checkpoint(path) as checkpoint:
            found = checkpoint.array(checkpoint.tensors("")[LOST])
        assert np.array_equal(found, local.numpy())
        return
    with pytest.raises(UnidentifiedError) as caught:
        plan(path)
    assert f"{LOST} is one rank's part of a tensor (torch.distributed.tensor.DTensor)" in caught.value.message
    assert "full_state_dict=True" in caught.value.hint


def test_a_file_of_nothing_but_parts_says_so(tmp_path: Path) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        state = {n: DTensor.from_local(t, mesh, [Shard(0)], run_check=False) for n, t in resnet().items()}
        path = saved(tmp_path / "model.pth", {"model": state})
    finally:
        dist.destroy_process_group()
    with pytest.raises(UnidentifiedError) as caught:
        convert(path, tmp_path / "out.pth")
    assert caught.value.message.startswith(
        f"'model' holds 0 tensors and {len(state)} entries that cannot be read as plain tensors: conv1.weight is one "
    )
    assert "full_state_dict=True" in caught.value.hint
    assert len(inspect(path).unreadable["model"]) == len(state)


# Opcodes that change what is no container -------------------------------------------------------------------------


def changed(path: Path, opcodes: bytes, as_zip: bool) -> Path:
    """A state dict of one tensor, to which the opcodes are applied before it is stored."""
    torch.save({"w": torch.zeros(4)}, path, _use_new_zipfile_serialization=as_zip)
    if as_zip:
        body = records(path)
        name = next(n for n in body if n.endswith("data.pkl"))
        assert body[name].endswith(b"s.")
        body[name] = body[name][:-2] + opcodes + b"s."
        write_records(path, body)
        return path
    data = path.read_bytes()
    at = data.index(b"s.", data.index(b"_rebuild_tensor_v2"))
    path.write_bytes(data[:at] + opcodes + data[at:])
    return path


SETS = {
    "SETITEM": (b"K\x00K\x07s", "sets items in a tensor"),
    "SETITEMS": (b"(K\x00K\x07u", "sets items in a tensor"),
    "APPEND": (b"K\x07a", "appends to a tensor"),
    "APPENDS": (b"(K\x07e", "appends to a tensor"),
    "ADDITEMS": (b"(K\x07\x90", "appends to a tensor"),
    "BUILD": (b"}b", "gives attributes to a tensor"),
    "SETITEM on a tuple": (b"0)K\x00K\x07s", "sets items in a tuple"),
    "SETITEM on a list": (b"0]K\x00K\x07s", "sets items in a list"),
    "SETITEM on a number": (b"0K\x01K\x00K\x07s", "sets items in a int"),
    "APPEND to a dict": (b"0}K\x07a", "appends to a dict"),
    "BUILD on a dict": (b"0}}b", "gives attributes to a dict"),
    "BUILD on a list": (b"0]}b", "gives attributes to a list"),
    "BUILD on a class": (b"0ctorch\nTensor\n}b", "gives attributes to a torch.Tensor"),
}


@every_container
@pytest.mark.parametrize("sort", SETS)
def test_a_change_of_what_is_no_container_is_refused(sort: str, as_zip: bool, tmp_path: Path) -> None:
    opcodes, reason = SETS[sort]
    with pytest.raises(UnreadableError, match=reason), open_checkpoint(changed(tmp_path / "m.pth", opcodes, as_zip)):
        pass


@pytest.mark.parametrize("opcode", ["SETITEM", "BUILD"])
def test_a_change_of_a_storage_is_refused(opcode: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", {"w": torch.zeros(4)})
    body = records(path)
    name = next(n for n in body if n.endswith("data.pkl"))
    body[name] = body[name].replace(b"Q", b"Q" + {"SETITEM": b"K\x00K\x07s", "BUILD": b"}b"}[opcode], 1)
    write_records(path, body)
    with pytest.raises(UnreadableError, match="a storage"), open_checkpoint(path):
        pass


class Book(dict):  # type: ignore[type-arg]
    """A dict that is a class of its own, as configurations and state dicts of some frameworks are."""


class Row(list):  # type: ignore[type-arg]
    """A list that is one."""


@every_container
def test_containers_and_objects_keep_what_they_receive(as_zip: bool, tmp_path: Path) -> None:
    state = OrderedDict(w=torch.arange(4.0))
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    grown, book, row = defaultdict(list, w=torch.arange(3.0)), Book(w=torch.arange(2.0)), Row([{"w": torch.ones(5)}])
    book.note = row.note = "kept"  # type: ignore[attr-defined]
    names = argparse.Namespace(x=1)
    tree = {"state": state, "grown": grown, "book": book, "row": row, "args": names, "set": {1, 2}, "w": np.ones(6)}
    path = saved(tmp_path / "m.pth", tree, _use_new_zipfile_serialization=as_zip)
    with open_checkpoint(path) as checkpoint:
        found = {at: section.tensors["w"].shape for at, section in checkpoint.sections.items()}
        assert found == {"": (6,), "state": (4,), "grown": (3,), "book": (2,)}
        assert checkpoint.tree["state"].state == {"_metadata": {"version": 1}}  # type: ignore[index]
        assert checkpoint.tree["args"].state == {"x": 1}  # type: ignore[index]
        assert len(checkpoint.tree["row"].items) == 1  # type: ignore[index]


def test_an_ordered_dict_of_what_is_no_pairs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x02ccollections\nOrderedDict\nK\x07\x85R.")
    with pytest.raises(UnreadableError, match="an ordered dict is not made of pairs"), open_checkpoint(path):
        pass
    path.write_bytes(pickle.dumps({"a": OrderedDict([("w", np.ones(2))])}, protocol=2))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.sections) == ["a"]

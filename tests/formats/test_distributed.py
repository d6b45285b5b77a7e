"""Folders of torch.distributed.checkpoint, compared with what torch itself makes of them."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import distributed, multiprocessing, nn
from torch.distributed.checkpoint.filesystem import SerializationFormat
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, ChunkStorageMetadata, MetadataIndex

from ckptconv import convert
from ckptconv.cli import main
from ckptconv.errors import UnreadableError, UsageError
from ckptconv.formats import distributed as reader
from ckptconv.formats import distributed_metadata, open_checkpoint
from ckptconv.formats.concatenated import ConcatenatedSource, concatenated_crc
from ckptconv.sources.file import Source
from tests.support import hollow

pytestmark = pytest.mark.filterwarnings("ignore")


class Ran:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


def save(state: Mapping[str, Any], folder: Path, **how: Any) -> Path:
    dcp.save(dict(state), storage_writer=dcp.FileSystemWriter(folder, **how), no_dist=True)
    return folder


def one_rank() -> dict[str, Any]:
    torch.manual_seed(3)
    weight = torch.randn(6, 4)
    return {
        "epoch": 3,
        "args": argparse.Namespace(arch="resnet50", lr=0.1),
        "names": ["a", "b"],
        "model": {
            "weight": weight,
            "tied": weight,
            "transposed": torch.randn(4, 6).t(),
            "channels_last": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
            "row": torch.randn(9, 4)[3],
            "column": torch.randn(9, 4)[:, 2],
            "expanded": torch.randn(1, 4).expand(5, 4),
            "half": torch.randn(3).half(),
            "bf16": torch.randn(5, 3).bfloat16(),
            "double": torch.randn(2).double(),
            "complex": torch.randn(3, dtype=torch.complex64),
            "flags": torch.tensor([True, False]),
            "steps": torch.tensor(7),
            "scalar": torch.tensor(0.5),
            "empty": torch.zeros(0, 4),
            "parameter": nn.Parameter(torch.randn(2, 2)),
            "a.dotted.name": torch.randn(2),
            "none": None,
            "nested": {"deeper": {"w": torch.ones(3)}},
            "listed": [torch.zeros(2), {"w": torch.ones(1)}, 5],
        },
    }


def several_ranks(rank: int, folder: str) -> None:
    """What each of two processes does: a small network under FSDP2 and its optimizer, and tensors cut by hand."""
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    distributed.init_process_group("gloo", init_method=f"file://{folder}.store", rank=rank, world_size=2)
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (2,))
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 1, 1))
    fully_shard(network, mesh=mesh)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    model, state = get_state_dict(network, optimizer)
    cut = {
        "rows": distribute_tensor(torch.randn(7, 4, 2), mesh, [Shard(0)]),
        "bf16": distribute_tensor(torch.randn(6, 3).bfloat16(), mesh, [Shard(0)]),
        "turned": distribute_tensor(torch.randn(6, 8).t(), mesh, [Shard(0)]),
        "one row": distribute_tensor(torch.randn(1, 4), mesh, [Shard(0)]),
        "inner": distribute_tensor(torch.randn(1, 6, 2), mesh, [Shard(1)]),
        "copied": distribute_tensor(torch.randn(4, 6), mesh, [Replicate()]),
        "whole": torch.ones(3),
    }
    columns = {"w": distribute_tensor(torch.randn(4, 6), mesh, [Shard(1)]), "b": torch.ones(3)}
    dcp.save({"model": model, "optimizer": state, "cut": cut, "columns": columns, "step": 4}, checkpoint_id=folder)
    distributed.barrier()
    os._exit(0)  # a process that tears its threads down while the other does is aborted now and then


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(one_rank(), tmp_path_factory.mktemp("alone") / "dcp")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together") / "dcp"
    multiprocessing.spawn(several_ranks, (str(folder),), 2)
    return folder


def consolidated(folder: Path, file: Path) -> Path:
    dcp_to_torch_save(folder, file)
    return file


def at(tree: Any, path: str) -> Any:
    """The mapping at a section's path: keys of which some have dots, and places in lists."""
    if not path:
        return tree
    steps = enumerate(tree) if isinstance(tree, list) else tree.items()
    for key, value in steps:
        if path == str(key) or path.startswith(f"{key}."):
            found = at(value, path.removeprefix(str(key)).removeprefix("."))
            if found is not None:
                return found
    return None


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def require_same(folder: Path, file: Path, leave: str = "") -> int:
    """Sections, names, types, shapes, other values' kinds and all bytes as torch joins them. Returns the tensors."""
    theirs, count = torch.load(file, weights_only=False), 0
    with open_checkpoint(folder) as ours, open_checkpoint(file) as joined:
        assert [*ours.sections] == [*joined.sections]
        for path, section in joined.sections.items():
            if path == leave:
                continue
            own = ours.sections[path]
            assert [*own.tensors.items()] == [*section.tensors.items()]
            assert own.others == section.others
            assert not own.unreadable
            mapping = at(theirs, path)
            for name, stored in ours.tensors(path).items():
                wanted = raw(mapping[name])
                assert b"".join(ours.chunks(stored)) == wanted
                assert ours.array(stored).tobytes() == wanted
                place = ours.location(stored)
                if place is not None and wanted:
                    assert place[0].read(place[1], len(wanted)) == wanted
                count += 1
        ours.require_unchanged()
    return count


def test_a_folder_of_one_process_is_what_torch_makes_of_it(alone: Path, tmp_path: Path) -> None:
    assert require_same(alone, consolidated(alone, tmp_path / "whole.pth")) == 19
    with open_checkpoint(alone) as checkpoint:
        assert checkpoint.format == "torch distributed, 1 file"
        assert checkpoint.size == sum(file.stat().st_size for file in alone.iterdir())
        assert checkpoint.path == alone
        assert "argparse.Namespace" in checkpoint.called
        assert not checkpoint.dangerous
        assert checkpoint.sections["model"].others["none"] == "NoneType"


@pytest.mark.parametrize("how", [{"single_file_per_rank": False}, {"thread_count": 3}])
def test_a_process_may_write_several_files(how: dict[str, Any], tmp_path: Path) -> None:
    folder = save(one_rank(), tmp_path / "dcp", **how)
    count = len([*folder.glob("*.distcp")])
    assert count > 1
    require_same(folder, consolidated(folder, tmp_path / "whole.pth"))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == f"torch distributed, {count} files"


def test_rows_of_several_processes_are_joined(together: Path, tmp_path: Path) -> None:
    assert require_same(together, consolidated(together, tmp_path / "whole.pth"), "columns") > 25
    with open_checkpoint(together) as checkpoint:
        assert checkpoint.format == "torch distributed, 2 files"
        stored = checkpoint.tensors("cut")
        storage = checkpoint.locate(stored["rows"].storage)
        assert storage.inline is None
        assert storage.crc is not None  # of both parts together
        assert storage.crc == checkpoint.checksum(stored["rows"])
        target = tmp_path / "copy"
        with target.open("wb") as file:
            assert storage.source is not None
            assert storage.source.copy_to(file.fileno(), 0, 4, storage.nbytes - 4)
        assert target.read_bytes() == b"".join(checkpoint.chunks(stored["rows"]))[4:]


def test_what_is_cut_into_columns_is_a_problem_with_the_command(together: Path) -> None:
    with open_checkpoint(together) as checkpoint:
        section = checkpoint.sections["columns"]
        assert [*section.tensors] == ["b"]
        assert section.unreadable["w"].what == "a tensor whose parts are not consecutive rows"
        assert section.unreadable["w"].advice == (
            "Join it into one file, on a machine with torch: "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
            f"{together} dcp.pth"
        )
        assert section.unreadable["w"].certain


def test_names_are_flat_where_the_folder_keeps_no_paths(alone: Path, tmp_path: Path) -> None:
    folder = doctored(alone, tmp_path, lambda m: setattr(m, "planner_data", None))
    with open_checkpoint(folder) as checkpoint:
        assert {"model.weight", "model.nested.deeper.w", "model.listed.1.w"} <= {*checkpoint.sections[""].tensors}


def test_a_resnet_18_is_converted_as_from_the_file_that_torch_makes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = hollow.fill("lightly_moco_resnet18_sequential", tmp_path / "epoch.ckpt")
    state = torch.load(source, weights_only=False)
    state["state_dict"] = {
        name: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in state["state_dict"].items()
    }
    folder = save(state, tmp_path / "dcp")
    monkeypatch.setattr("sys.argv", ["ckptconv", "convert", str(folder), str(tmp_path / "own.pth"), "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert json.loads(capsys.readouterr().out)["source"]["format"] == "torch distributed, 1 file"
    convert(consolidated(folder, tmp_path / "whole.pth"), tmp_path / "theirs.pth")
    own, theirs = (torch.load(tmp_path / name, weights_only=True) for name in ("own.pth", "theirs.pth"))
    assert json.loads(own["meta"]["ckptconv"])["source"]["format"] == "torch distributed, 1 file"
    assert [*own["state_dict"]] == [*theirs["state_dict"]]
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in own["state_dict"].items())


# Hostile folders ----------------------------------------------------------------------------------------------------


def doctored(folder: Path, where: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a folder whose `.metadata` is changed."""
    copy = where / "doctored"
    shutil.copytree(folder, copy)
    metadata = pickle.loads((copy / ".metadata").read_bytes())
    change(metadata)
    (copy / ".metadata").write_bytes(pickle.dumps(metadata))
    return copy


def refused(folder: Path, section: str = "model") -> UnreadableError:
    """The error, at the latest when all tensors of a section are read."""

    def read() -> None:
        with open_checkpoint(folder) as checkpoint:
            for stored in checkpoint.tensors(section).values():
                checkpoint.array(stored)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnreadableError) as caught:
        read()
    assert len(os.listdir("/proc/self/fd")) == before
    assert caught.value.exit_code == 3
    return caught.value


WEIGHT = MetadataIndex("model.weight", torch.Size([0, 0]))


def info(**changes: Any) -> Callable[[Any], object]:
    return lambda m: m.storage_data[WEIGHT].__dict__.update(changes)


def chunks(m: Any, name: str = "model.weight") -> Any:
    return m.state_dict_metadata[name].chunks


def moved(m: Any) -> None:
    one, other = WEIGHT, MetadataIndex("model.transposed", torch.Size([0, 0]))
    m.storage_data[one], m.storage_data[other] = m.storage_data[other], m.storage_data[one]
    chunks(m)[:], chunks(m, other.fqn)[:] = chunks(m, other.fqn)[:], chunks(m)[:]


MALFORMED: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "offset behind the end": (info(offset=1 << 40), "model.weight is outside of __0_0.distcp"),
    "offset below 0": (info(offset=-1), "model.weight is outside of __0_0.distcp"),
    "length below 0": (info(length=-5), "model.weight is outside of __0_0.distcp"),
    "endless length": (info(length=1 << 70), "model.weight is outside of __0_0.distcp"),
    "no number": (info(offset="0"), "a part has no name, no offset or no length"),
    "a bool": (info(length=True), "a part has no name, no offset or no length"),
    "short length": (info(length=90), "a part of model.weight is 96 bytes in a file of 90"),
    "a path up": (info(relative_path="../__0_0.distcp"), "it names a file outside its folder: ../__0_0.distcp"),
    "a path down": (info(relative_path="a/b"), "it names a file outside its folder: a/b"),
    "an absolute path": (info(relative_path="/etc/passwd"), "it names a file outside its folder: /etc/passwd"),
    "a backslash": (info(relative_path="..\\x"), "it names a file outside its folder: ..\\x"),
    "the folder above": (info(relative_path=".."), "it names a file with an invalid name"),
    "itself": (info(relative_path=".metadata"), "it names a file with an invalid name"),
    "a NUL": (info(relative_path="a\0b"), "it names a file with an invalid name"),
    "no name": (info(relative_path=None), "it names a file with an invalid name"),
    "a place for no record": (lambda m: m.storage_data.update({WEIGHT: 3}), "a _StorageInfo is missing"),
    "no place": (lambda m: m.storage_data.pop(WEIGHT), "it does not say where model.weight is"),
    "no places": (lambda m: setattr(m, "storage_data", None), "it does not list what its files hold"),
    "no tensors": (lambda m: setattr(m, "state_dict_metadata", None), "it lists no tensors by their names"),
    "a part twice": (lambda m: chunks(m).append(chunks(m)[0]), "it lists one part of model.weight twice"),
    "parts on top of each other": (
        lambda m: m.storage_data.update({MetadataIndex("model.tied", torch.Size([0, 0])): m.storage_data[WEIGHT]}),
        "two of its parts overlap in __0_0.distcp",
    ),
    "other axes": (
        lambda m: chunks(m).__setitem__(0, ChunkStorageMetadata(torch.Size([0]), torch.Size([24]))),
        "a part of model.weight has other axes than the whole",
    ),
    "a size that is text": (
        lambda m: setattr(m.state_dict_metadata["model.weight"], "size", "6"),
        "a shape or stride is not a list of lengths",
    ),
    "no type": (
        lambda m: setattr(m.state_dict_metadata["model.weight"], "properties", None),
        "model.weight has no type or no parts",
    ),
    "a value where a tensor is": (
        lambda m: m.state_dict_metadata.update({"model.weight": BytesStorageMetadata()}),
        "it does not say where model.weight is",
    ),
    "an unhashable path": (lambda m: m.planner_data.update({"epoch": ([],)}), "the path of epoch is invalid"),
    "an endless path": (lambda m: m.planner_data.update({"epoch": ("a",) * 999}), "the path of epoch is invalid"),
    "an empty path": (lambda m: m.planner_data.update({"epoch": ()}), "the path of epoch is invalid"),
    "a place far behind in a list": (
        lambda m: m.planner_data.update({"model.listed.2": ("model", "listed", 1 << 30)}),
        "a list in it has invalid indexes",
    ),
    "a name in a list": (
        lambda m: m.planner_data.update({"model.listed.2": ("model", "listed", "x")}),
        "a list in it has invalid indexes",
    ),
    "one path for two": (
        lambda m: m.planner_data.update({"epoch": ("model", "weight")}),
        "model.weight has the path of another value",
    ),
    "a path through a tensor": (
        lambda m: m.planner_data.update({"model.tied": ("model", "weight", "w")}),
        "model.tied is inside of another value",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_hostile_metadata_is_refused_with_one_sentence(case: str, alone: Path, tmp_path: Path) -> None:
    change, message = MALFORMED[case]
    folder = doctored(alone, tmp_path, change)
    error = refused(folder)
    assert error.message == f"{folder}/.metadata is malformed: {message}"
    assert error.hint == "The folder is damaged or malicious. Download it again from its source."


def grown(m: Any) -> None:
    m.state_dict_metadata["model.weight"].size = torch.Size([7, 4])


def cut_short(m: Any) -> None:
    chunks(m)[0] = ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([5, 4]))


def outside(m: Any) -> None:
    m.storage_data[MetadataIndex("model.weight", torch.Size([1, 0]))] = m.storage_data.pop(WEIGHT)
    chunks(m)[0] = ChunkStorageMetadata(torch.Size([1, 0]), torch.Size([6, 4]))


@pytest.mark.parametrize("change", [grown, cut_short, outside, lambda m: chunks(m).clear()])
def test_parts_that_are_not_the_whole_are_a_problem(
    change: Callable[[Any], object], alone: Path, tmp_path: Path
) -> None:
    folder = doctored(alone, tmp_path, change)
    with open_checkpoint(folder) as checkpoint:
        found = checkpoint.sections["model"].unreadable["weight"]
    assert found.what == "a tensor whose parts are not consecutive rows"
    assert found.advice.endswith(f"format_utils dcp_to_torch {folder} doctored.pth")


def test_what_the_files_hold_must_be_what_the_metadata_says(alone: Path, tmp_path: Path) -> None:
    def other_type(m: Any) -> None:
        m.state_dict_metadata["model.weight"].properties.dtype = torch.int32

    def other_shape(m: Any) -> None:
        m.state_dict_metadata["model.weight"].size = torch.Size([4, 6])
        chunks(m)[0] = ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([4, 6]))

    for number, (change, spec) in enumerate(((other_type, "int32 [6, 4]"), (other_shape, "float32 [4, 6]"))):
        (tmp_path / str(number)).mkdir()
        error = refused(doctored(alone, tmp_path / str(number), change))
        assert re.search(rf"the data at byte [\d,]+ is not model\.weight \({re.escape(spec)}\)$", error.message)


def test_an_unknown_type_is_a_problem(alone: Path, tmp_path: Path) -> None:
    def change(m: Any) -> None:
        m.state_dict_metadata["model.weight"].properties.dtype = torch.quint8

    with open_checkpoint(doctored(alone, tmp_path, change)) as checkpoint:
        assert checkpoint.sections["model"].unreadable["weight"].what == "a tensor of type torch.quint8"


def test_extensions_are_named(alone: Path, tmp_path: Path) -> None:
    folder = doctored(alone, tmp_path, info(transform_descriptors=["stream.zstd"]))
    error = refused(folder)
    assert error.message == f"{folder} is compressed or encrypted by an extension of torch.distributed.checkpoint"
    assert error.hint == "Load it with the extension that it was saved with, and save it again without one."


def test_safetensors_in_such_a_folder_are_named(tmp_path: Path) -> None:
    folder = save(
        {"w": torch.ones(2), "b": torch.ones(1)}, tmp_path / "dcp", serialization_format=SerializationFormat.SAFETENSORS
    )
    error = refused(folder)
    assert error.message == (
        f"{folder} is a folder of torch.distributed.checkpoint, but torch.save did not write its tensors"
    )


def test_more_files_than_may_be_open_are_refused_with_the_command(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MAX_FILES", 4)
    folder = save(one_rank(), tmp_path / "dcp", single_file_per_rank=False)
    error = refused(folder)
    assert error.message == f"{folder} consists of more than 4 files"
    assert error.hint.endswith(f"format_utils dcp_to_torch {folder} dcp.pth")


def test_budgets_end_what_has_no_end(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(distributed_metadata, "_MAX_STEPS", 500)
        assert refused(alone).message.endswith("(it has more than 500 steps)")
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_MAX_PARTS", 5)
        assert refused(alone).message.endswith("it lists more than 5 parts")


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "device", "empty", "loop"])
def test_files_that_are_none_are_refused(kind: str, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    shutil.copytree(alone, folder)
    file = folder / "__0_0.distcp"
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "empty":
        file.touch()
    elif kind == "loop":
        file.symlink_to(file.name)
    assert str(file) in refused(folder).message


def test_a_link_is_followed_as_caches_use_them(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    folder.mkdir()
    for file in alone.iterdir():
        (folder / file.name).symlink_to(file)
    require_same(folder, consolidated(alone, tmp_path / "whole.pth"))


def test_damage_is_found_in_whole_tensors_and_in_joined_ones(alone: Path, together: Path, tmp_path: Path) -> None:
    for source, section, name in (
        (alone, "model", "weight"),
        (alone, "model", "transposed"),
        (together, "cut", "rows"),
    ):
        folder = tmp_path / f"{section} {name}"
        shutil.copytree(source, folder)
        with open_checkpoint(folder) as checkpoint:
            wanted = checkpoint.array(checkpoint.tensors(section)[name]).tobytes()
        inside = next(f for f in sorted(folder.glob("*.distcp")) if wanted[:16] in f.read_bytes() or name != "rows")
        data = bytearray(inside.read_bytes())
        if name == "transposed":
            wanted = torch.load(consolidated(source, tmp_path / "t.pth"), weights_only=False)["model"][name]
            wanted = raw(wanted.t())
        spot = data.find(wanted[:16])
        assert spot > 0
        data[spot] ^= 1
        inside.write_bytes(data)
        assert "the checksum of storage " in refused(folder, section).message


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "__1_0.distcp"])
def test_a_change_of_any_file_while_it_is_read_is_seen(name: str, together: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    shutil.copytree(together, folder)
    with open_checkpoint(folder) as checkpoint:
        checkpoint.require_unchanged()
        os.utime(folder / name, (1, 1))
        with pytest.raises(UnreadableError) as caught:
            checkpoint.require_unchanged()
    assert caught.value.message == f"{folder / name} changed while it was being read"


def test_no_file_of_the_folder_is_written_over(tmp_path: Path) -> None:
    state = torch.load(hollow.fill("lightly_moco_resnet18_sequential", tmp_path / "epoch.ckpt"), weights_only=False)
    folder = save(state, tmp_path / "dcp")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        with pytest.raises(UsageError) as caught:
            convert(folder, file, format="torch", force=True)
        assert caught.value.message == f"{file} is the input itself"
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_file_that_breaks_off_is_refused(cut: int, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    shutil.copytree(alone, folder)
    file = folder / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-cut])
    assert "is outside of __0_0.distcp" in refused(folder).message


def test_every_cut_of_the_metadata_is_refused(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    shutil.copytree(alone, folder)
    whole = (folder / ".metadata").read_bytes()
    for length in range(0, len(whole), 97):
        (folder / ".metadata").write_bytes(whole[:length])
        refused(folder)
    (folder / ".metadata").write_bytes(whole + b"x")
    assert refused(folder).message.endswith("is malformed: 1 bytes follow its pickle")
    (folder / ".metadata").write_bytes(pickle.dumps({"state_dict_metadata": {}}))
    assert refused(folder).message.endswith("is malformed: a Metadata is missing")


def test_bytes_that_are_changed_end_in_a_refusal_or_nowhere(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    shutil.copytree(alone, folder)
    whole = (folder / ".metadata").read_bytes()
    refused = 0
    for spot in range(0, len(whole), 29):
        (folder / ".metadata").write_bytes(whole[:spot] + bytes([whole[spot] ^ 0x41]) + whole[spot + 1 :])
        try:
            with open_checkpoint(folder) as checkpoint:
                for path in checkpoint.sections:
                    for stored in checkpoint.tensors(path).values():
                        assert checkpoint.array(stored).shape == stored.spec.shape
        except UnreadableError:
            refused += 1
    assert refused


def test_nothing_is_executed(alone: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    folder = save({"model": {"w": torch.ones(2)}, "run": Ran(made)}, tmp_path / "dcp")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.dangerous == ("posix.system",)
    folder = doctored(alone, tmp_path, lambda m: setattr(m, "storage_meta", Ran(made)))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.dangerous == ("posix.system",)
    assert not made.exists()


def test_a_tensor_s_file_that_calls_something_is_refused(tmp_path: Path) -> None:
    folder = save({"model": {"w": torch.ones(2)}}, tmp_path / "dcp")
    torch.save({"w": torch.ones(2), "run": Ran(tmp_path / "made")}, tmp_path / "other.pth")
    data = (tmp_path / "other.pth").read_bytes()
    (folder / "__0_0.distcp").write_bytes(data)
    folder = doctored(folder, tmp_path, lambda m: [setattr(i, "length", len(data)) for i in m.storage_data.values()])
    assert refused(folder).message.endswith("the data at byte 0 is not model.w (float32 [2])")
    assert not (tmp_path / "made").exists()


def test_tensors_in_objects_are_shown(tmp_path: Path) -> None:
    state = {"pair": (torch.ones(2), 3), "array": torch.ones(2).numpy(), "long": "x" * 70_000, "short": "x"}
    folder = save({"model": {"w": torch.ones(2), **state}}, tmp_path / "dcp")
    with open_checkpoint(folder) as checkpoint:
        found = checkpoint.sections["model"].unreadable
    assert {name: (one.what, one.certain) for name, one in found.items()} == {
        "pair": ("a tuple that holds tensors", False),
        "array": ("a tensor that was saved as an object", True),
        "long": ("an object that was not inspected", False),
    }
    assert {one.advice.partition(":")[0] for one in found.values()} == {
        "Join it into one file, on a machine with torch"
    }


# Stretches ----------------------------------------------------------------------------------------------------------


def test_stretches_are_one_file(tmp_path: Path) -> None:
    import zlib

    (tmp_path / "a").write_bytes(bytes(range(100)))
    (tmp_path / "b").write_bytes(bytes(range(100, 200)))
    a, b = Source(tmp_path / "a"), Source(tmp_path / "b")
    stretches = [(a, 10, 5), (b, 0, 0), (b, 90, 10), (a, 0, 3)]
    whole = b"".join(source.read(offset, length) for source, offset, length in stretches)
    joined = ConcatenatedSource(stretches)
    assert joined.size == len(whole) == 18
    for start in range(19):
        for end in range(start, 19):
            assert joined.read(start, end - start) == whole[start:end]
            buffer = bytearray(end - start)
            joined.read_into(memoryview(buffer), start)
            assert buffer == whole[start:end]
    for start, length in ((0, 19), (18, 1), (-1, 2), (3, -1)):
        with pytest.raises(UnreadableError) as caught:
            joined.read(start, length)
        assert caught.value.message == f"{tmp_path / 'a'}: a part of 18 bytes is truncated"
    crc = 0
    for source, offset, length in stretches:
        crc = concatenated_crc(crc, zlib.crc32(source.read(offset, length)), length)
    assert crc == zlib.crc32(whole)
    a.close()
    b.close()

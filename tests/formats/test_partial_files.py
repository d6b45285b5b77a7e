"""One part of a checkpoint, or a folder, is called what it is, with what to give instead."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from ckptconv.cli import main
from ckptconv.errors import UnreadableError
from ckptconv.formats import RemotePath, Source, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")


def refused(path: Path | RemotePath) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught, open_checkpoint(path):
        pass
    assert caught.value.exit_code == 3
    return caught.value


def shards(folder: Path, names: tuple[str, str], index: str | None) -> None:
    parts = [{"a.weight": torch.zeros(2)}, {"b.weight": torch.ones(2)}]
    for name, part in zip(names, parts, strict=True):
        if name.endswith(".safetensors"):
            save_file(part, folder / name, {"format": "pt"})
        else:
            torch.save(part, folder / name)
    if index:
        weights = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        (folder / index).write_text(json.dumps({"weight_map": weights}))


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), "model.safetensors.index.json"),
        (("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"), "pytorch_model.bin.index.json"),
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), "other.index.json"),
        (("first.safetensors", "second.safetensors"), "model.safetensors.index.json"),
    ],
)
def test_a_shard_points_at_the_index_that_knows_the_others(names: tuple[str, str], index: str, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    shards(folder, names, index)
    for name in names:
        error = refused(folder / name)
        assert "that hold the network together" in error.message
        assert error.hint == (
            f"Give the index, which names them all: `ckptconv.convert({str(folder / index)!r}, 'DST')`"
        )
    with open_checkpoint(folder / index) as checkpoint:
        assert set(checkpoint.sections[""].tensors) == {"a.weight", "b.weight"}


def test_a_shard_without_an_index_asks_for_it(tmp_path: Path) -> None:
    shards(tmp_path, ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), None)
    error = refused(tmp_path / "model-00001-of-00002.safetensors")
    assert error.message.endswith("model-00001-of-00002.safetensors is one of 2 files that hold the network together")
    assert error.hint == "Download the others and their index, model.safetensors.index.json, and give the index."


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "other.pth"}}', "[" * 9999])
@pytest.mark.parametrize("name", ["model-00001-of-00001.pth", "run-1-of-3.pth", "model.pth"])
def test_a_whole_file_is_read_whatever_index_lies_beside_it(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "model.index.json").write_text(content)
    torch.save({"w": torch.zeros(2)}, tmp_path / name)
    with open_checkpoint(tmp_path / name) as checkpoint:
        assert list(checkpoint.sections) == [""]


@pytest.mark.parametrize(
    "name", ["zero_pp_rank_0_mp_rank_00_optim_states.pt", "bf16_zero_pp_rank_3_mp_rank_01_optim_states.pt"]
)
def test_a_part_of_a_deepspeed_training_is_named(name: str, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / name)
    error = refused(tmp_path / name)
    assert error.message.endswith(f"{name} is one process's part of a DeepSpeed training")
    assert error.hint.endswith("python zero_to_fp32.py FOLDER OUTPUT.")


def test_a_part_of_a_folder_of_torch_distributed_checkpoint_is_named_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    dcp.save({"model": {"w": torch.zeros(2)}}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    for part in (".metadata", "__0_0.distcp"):
        error = refused(folder / part)
        assert error.message == f"{folder / part} is a part of a folder of torch.distributed.checkpoint"
        assert error.hint == f"Give the folder: `ckptconv.convert({str(folder)!r}, 'DST')`"
    (folder / ".metadata").unlink()
    error = refused(folder)
    assert error.message == f"{folder} is a folder of torch.distributed.checkpoint without .metadata"
    assert error.hint == "Download the file .metadata too, which describes the others."
    error = refused(folder / "__0_0.distcp")
    assert error.hint == "Download the file .metadata too, which describes the others, and give the folder."


def test_a_folder_without_a_common_metadata_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    writer = dcp.FileSystemWriter(folder)
    dcp.save({"w": torch.zeros(2)}, storage_writer=writer, no_dist=True, use_collectives=False)
    assert {file.name for file in folder.iterdir()} == {"__0.metadata", "__0_0.distcp"}
    error = refused(folder)
    assert error.message == (
        f"{folder} is a folder of torch.distributed.checkpoint in which each process described only its own part"
    )
    assert error.hint == "Load it where it was saved, and save it again without use_collectives=False."


def test_a_part_of_such_a_folder_at_an_address_is_named() -> None:
    class Elsewhere:
        """An address: it is refused for its name, and never opened."""

        def __init__(self, name: str) -> None:
            self.name = name

        def __str__(self) -> str:
            return f"hf://someone/runs/dcp/{self.name}"

        def open(self) -> Source:
            raise AssertionError

        def sibling(self, name: str) -> RemotePath:
            raise AssertionError

    for name in (".metadata", "__3_0.distcp"):
        error = refused(Elsewhere(name))
        assert error.message == f"hf://someone/runs/dcp/{name} is a part of a folder of torch.distributed.checkpoint"
        assert error.hint == "Download the folder with all its files, and give the folder."


@pytest.mark.parametrize("count", ["00001", "00003"])
def test_one_process_s_part_of_a_distributed_safetensors_file_is_named(count: str, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    dcp.save(
        {"w": torch.zeros(2)},
        storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True),
        no_dist=True,
    )
    (file,) = folder.glob("*.safetensors")
    file = file.rename(folder / f"shard-00001-model-00001-of-{count}.safetensors")
    error = refused(file)
    writer = "torch.distributed.checkpoint's HuggingFaceStorageWriter"
    assert error.message == f"{file} is one process's part of what {writer} saved"
    assert error.hint == (
        "Save it with enable_consolidation=True, or join the parts: "
        "torch.distributed.checkpoint._consolidate_hf_safetensors.consolidate_safetensors_files."
    )


def test_a_folder_says_which_files_could_be_given(tmp_path: Path) -> None:
    assert refused(tmp_path).hint == "Give the checkpoint file inside it."
    (tmp_path / "notes.txt").touch()
    for name in ("b.pth", "a b.safetensors"):
        (tmp_path / name).touch()
    assert (
        refused(tmp_path).hint
        == f"Give a file inside it: {shlex.quote(f'{tmp_path}/a b.safetensors')}, {tmp_path}/b.pth."
    )
    (tmp_path / "model.safetensors.index.json").touch()
    assert refused(tmp_path).hint == f"Give a file inside it: {tmp_path}/model.safetensors.index.json."


def test_the_command_line_gives_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(tmp_path, ("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"), "m.safetensors.index.json")
    monkeypatch.setattr("sys.argv", ["ckptconv", "inspect", str(tmp_path / "m-00001-of-00002.safetensors")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3
    assert f"ckptconv convert {tmp_path}/m.safetensors.index.json DST" in capsys.readouterr().err

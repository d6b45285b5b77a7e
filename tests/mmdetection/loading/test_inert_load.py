"""Hostile and broken files, wherever a config or a module names them: refused, and nothing in them is run."""

from __future__ import annotations

import argparse
import functools
import io
import json
import pickle
from pathlib import Path
from typing import Any

import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from ckptconv.cli.spelling import spell
from ckptconv.errors import UnreadableError
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.loading.inert_load import inert_loading
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run import worker
from ckptconv.mmdetection.verify.run.files import Job
from ckptconv.mmdetection.verify.verify_ap import planned
from tests.mmdetection.check.test_run import Marker, command, detector, only, save
from tests.support import raw_files

pytestmark = pytest.mark.mmdet

LOCAL = r"(?!.*://)"  # `loader.LOCAL`; importing it would register the loader

UNSAFE = "evil.pth is not safe: unpickling it would call posix.mkdir. Nothing was run here"
ADVICE = (
    "Convert its weights into a safe file: `ckptconv.convert('evil.pth', 'evil_backbone.pth', method='torchvision')`"
)
MODES = ("torch's own", "before torch 2.6", "told by the environment")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A folder of its own, and mmengine as it is without the loader, which another test may have imported."""
    monkeypatch.chdir(tmp_path)
    schemes = mmengine.runner.CheckpointLoader._schemes
    monkeypatch.setattr(mmengine.runner.CheckpointLoader, "_schemes", {k: v for k, v in schemes.items() if k != LOCAL})
    return tmp_path


@pytest.fixture(params=MODES)
def mode(request, monkeypatch) -> str:
    """How torch loads when nothing is said: before 2.6 it unpickled."""
    if request.param == MODES[1]:
        monkeypatch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
    if request.param == MODES[2]:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    return str(request.param)


@pytest.fixture
def evil() -> str:
    return save("evil.pth", payload=Marker(), state_dict=raw_files.backbone_state(18))


def refused(path: Path) -> tuple[str, str]:
    with pytest.raises(UnreadableError) as raised:
        check(path)
    assert raised.value.exit_code == 3
    assert not Path("executed").exists()
    return raised.value.message, raised.value.hint


def test_a_hostile_file_that_the_backbone_starts_from(evil, mode):
    assert refused(detector(evil)) == (UNSAFE, ADVICE)


def test_its_advice_gives_a_file_without_it(evil):
    assert command(*spell(ADVICE).partition(": ckptconv ")[2].split()).returncode == 0
    assert check(detector("evil_backbone.pth")).good
    assert not Path("executed").exists()
    torch.load(evil, weights_only=False)  # the control: it would have been
    assert Path("executed").exists()


OTHER_PLACES = {
    "load_from": "load_from = 'evil.pth'\n",
    "resume": "resume = True\nload_from = 'evil.pth'\n",
    "a teacher": "model['teacher_ckpt'] = 'evil.pth'\n",
    "model.pretrained": "model['pretrained'] = './evil.pth'\n",
    "a neck": "model['neck']['init_cfg'] = [dict(type='Pretrained', checkpoint='evil.pth')]\n",
    "a hook": "custom_hooks = [dict(type='DistillHook', weights='evil.pth')]\n",
    "a custom key": "model['anything'] = dict(there=['evil.pth'])\n",
}


@pytest.mark.parametrize("more", OTHER_PLACES.values(), ids=OTHER_PLACES)
def test_a_hostile_file_that_is_named_elsewhere(evil, more):
    save("r18.pth", state_dict=raw_files.backbone_state(18))
    message, _ = refused(detector("r18.pth", more=more))
    assert message.removeprefix("./") == UNSAFE


def test_a_file_of_data_that_is_named_as_checkpoints_are_is_nobodys_business():
    save("r18.pth", state_dict=raw_files.backbone_state(18))
    Path("words.bin").write_bytes(bytes(range(256)))
    Path("classes.pt").write_text("box\n")
    assert check(detector("r18.pth", more="words = ['words.bin', 'classes.pt']\n")).good


def test_a_hostile_file_that_a_training_would_resume_from(evil):
    save("r18.pth", state_dict=raw_files.backbone_state(18))
    Path("work").mkdir()
    Path("work/last_checkpoint").write_text(str(Path(evil).absolute()))
    message, _ = refused(detector("r18.pth", more="resume = True\nwork_dir = 'work'\n"))
    assert message == f"{Path(evil).absolute()}{UNSAFE.removeprefix('evil.pth')}"


READS = """
import io, pickle
from pathlib import Path
import torch
from torch import load
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmdet.models import RetinaNet
from mmdet.registry import MODELS

class Reads(RetinaNet):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        {statement}
"""
STATEMENTS = (
    "torch.load('evil.pth')",
    "torch.load('evil.pth', weights_only=False)",
    "torch.load('evil.pth', 'cpu', pickle, weights_only=False)",
    "with open('evil.pth', 'rb') as file: torch.load(file, weights_only=False)",
    "torch.load(io.BytesIO(Path('evil.pth').read_bytes()), weights_only=False)",
    "torch.serialization.load('evil.pth', weights_only=False)",
    "torch.hub.load_state_dict_from_url('file:evil.pth', model_dir='.', weights_only=False)",
    "CheckpointLoader.load_checkpoint('evil.pth')",
    "load_checkpoint(self.backbone, 'evil.pth')",
)
ANY = (
    "load('evil.pth', weights_only=False)",
    "pickle.loads(Path('evil.pkl').read_bytes())",
    "torch.load('evil.pkl', weights_only=False)",
)


def reads(statement: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    from mmdet.registry import MODELS

    names: dict[str, Any] = {}
    exec(READS.format(statement=statement), names)
    monkeypatch.setitem(MODELS._module_dict, "Reads", names["Reads"])
    return detector("r18.pth", more="model['type'] = 'Reads'\n")


@pytest.mark.parametrize(
    ("statement", "swallowed"),
    [*((statement, False) for statement in (*STATEMENTS, *ANY)), (STATEMENTS[0], True), (ANY[0], True)],
)
def test_a_hostile_file_that_a_module_reads_while_it_is_built(evil, monkeypatch, statement, swallowed):
    save("r18.pth", state_dict=raw_files.backbone_state(18))
    Path("evil.pkl").write_bytes(pickle.dumps(Marker()))
    indented = f"try:\n            {statement}\n        except Exception:\n            pass" if swallowed else statement
    message, _ = refused(reads(indented, monkeypatch))
    assert "posix.mkdir" in message


def test_what_a_module_reads_is_what_torch_reads(monkeypatch):
    state = raw_files.backbone_state(18)
    save("r18.pth", state_dict=state)
    own = torch.load
    for source in ("r18.pth", Path("r18.pth"), io.BytesIO(Path("r18.pth").read_bytes())):
        with inert_loading():
            assert torch.load is not own
            found = torch.load(source, map_location="cpu")["state_dict"]
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items())
    assert torch.load is own


@pytest.mark.parametrize("content", [torch.ones(2), [torch.ones(2)], {"a": {1: torch.ones(2)}}, {"lr": 1}, 3, {}, None])
def test_contents_that_are_no_state_dict_are_read(content):
    torch.save(content, "content.pth")
    with inert_loading():
        found = torch.load("content.pth")
    assert described(found) == described(content)


def described(content: Any) -> str:
    return f"{type(content).__name__} {content}"


def test_plain_pickles_are_read(monkeypatch):
    content = {"a": np.arange(3), "b": {1, 2}, "c": torch.ones(2), "d": np.float32(1)}
    with inert_loading():
        found = pickle.loads(pickle.dumps(content))
    assert (found["a"].tolist(), found["b"], found["c"].tolist(), found["d"]) == ([0, 1, 2], {1, 2}, [1, 1], 1)


def test_processes_may_send_each_other_their_objects():
    content = argparse.Namespace(a=Path("x"))
    with inert_loading(plain=False):
        assert pickle.loads(pickle.dumps(content)) == content
        loader = torch.utils.data.DataLoader([content, content], num_workers=1, collate_fn=list)
        assert list(loader) == [[content], [content]]
    with pytest.raises(UnreadableError), inert_loading():
        pickle.loads(pickle.dumps(content))


def test_a_missing_file_is_torchs_business():
    with inert_loading(), pytest.raises(FileNotFoundError):
        torch.load("absent.pth")


@pytest.mark.parametrize("more", ["load_from = 'cut.pth'\n", "model['teacher_ckpt'] = 'cut.pth'\n"])
def test_a_broken_file_is_refused(more):
    data = Path(save("r18.pth", state_dict=raw_files.backbone_state(18))).read_bytes()
    Path("cut.pth").write_bytes(data[: len(data) // 2])
    message, _ = refused(detector("r18.pth", more=more))
    assert message.startswith("cut.pth")


def test_a_file_with_more_than_tensors_is_told_as_each_torch_takes_it(mode):
    save("train.pth", args=argparse.Namespace(lr=1), state_dict=raw_files.backbone_state(18))
    report, problems, fixes = only(found := check(detector("train.pth")))
    loader = "custom_imports = dict(imports=['ckptconv.mmdetection.loader']), which reads it and "
    convert = (
        "`ckptconv.convert('train.pth', 'train_backbone.pth', method='torchvision')`, then "
        "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='train_backbone.pth')"
    )
    if mode == MODES[0] and not hasattr(mmengine.runner.checkpoint, "_safe_torch_load"):  # onedl's tries again unsafely
        assert problems == ["torch does not load train.pth, because it holds more than tensors: argparse.Namespace"]
        assert fixes == [(convert, f"{loader}executes nothing")]
    else:
        assert (found.good, report.equal) == (True, 120)
        assert [(note.text, note.fixes) for note in report.notes] == [
            (
                "a training unpickles this file, which imports and calls what the file names: argparse.Namespace",
                (convert, f"{loader}runs nothing"),
            )
        ]


def test_a_file_that_no_torch_reads_is_told(mode):
    numbers = {name: value.numpy() for name, value in raw_files.backbone_state(18).items()}
    Path("r18.pkl").write_bytes(pickle.dumps({"state_dict": numbers}))
    assert only(check(detector("r18.pkl")))[1][0].startswith("torch does not load r18.pkl")


def trained(name: str, **more: Any) -> str:
    """A file such as mmengine saves: its message hub has a HistoryBuffer, of numpy's arrays."""
    history = HistoryBuffer([0.5], [1])
    return save(name, meta={}, state_dict={}, message_hub={"log_scalars": {"train/loss": history}}, **more)


@pytest.mark.parametrize("tier", ["eval", "full"])
def test_verify_ap_refuses_before_anything_is_planned(evil, tier):
    target = "mocov2-mask-rcnn-r50-fpn-1x"
    if tier == "eval":
        request = Request(target, "eval", checkpoint=trained("detector.pth", more=Marker()), gpus=0)
        name = "detector.pth"
    else:
        detector("r18.pth", more="load_from = 'evil.pth'\n")
        request, name = Request("detector.py", "full", expect={"box": 1}, gpus=0), "evil.pth"
    with pytest.raises(UnreadableError) as raised:
        planned(request)
    assert raised.value.message == f"{name}{UNSAFE.removeprefix('evil.pth')}"
    assert not Path("executed").exists()


def test_verify_ap_takes_a_detector_that_mmengine_saved():
    request = Request("mocov2-mask-rcnn-r50-fpn-1x", "eval", checkpoint=trained("detector.pth"), gpus=0)
    assert planned(request).request.checkpoint == "detector.pth"


@pytest.mark.parametrize("statement", [STATEMENTS[1], ANY[0]])
def test_the_processes_of_a_run_read_by_it(evil, monkeypatch, statement):
    save("r18.pth", state_dict=raw_files.backbone_state(18))
    reads(statement, monkeypatch)
    Path("run").mkdir()
    name = f"visualizer = dict(name={Path.cwd().name!r})\n"  # mmengine keeps one of each name, with its folder
    Path("run/config.py").write_text(Path("detector.py").read_text() + name)
    Job(False, 0, "none", False, detector="detector.pth").save(Path("run"))
    assert worker.main(Path("run")) == 1
    said = json.loads(Path("run/failure.json").read_text())
    assert (said["kind"], said["exit_code"]) == ("input", 3)
    if statement == ANY[0]:  # a load that was imported before
        assert said["message"] == (
            "the detector unpickles a file that names posix.mkdir, which is not plain data. Nothing was run here"
        )
    else:
        assert (said["message"], said["hint"]) == (UNSAFE, ADVICE)
    assert not Path("executed").exists()

"""Which checkpoint a stopped training goes on from: the newest that is whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from ckptconv.mmdetection.verify.run.resume import latest

pytestmark = pytest.mark.mmdet


def whole(path: Path, **without: None) -> Path:
    """A training checkpoint as mmengine saves it, with an optimizer that has begun."""
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    said = {
        "meta": {"epoch": 3, "iter": 30, "seed": 0},
        "state_dict": model.state_dict(),
        "message_hub": {"log_scalars": {}},
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [],
    }
    torch.save({k: v for k, v in said.items() if k not in without}, path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    return whole(tmp_path_factory.mktemp("saved") / "checkpoint.pth").read_bytes()


def test_nothing_is_there_to_go_on_from(tmp_path):
    assert latest(tmp_path) is None
    (tmp_path / "events.jsonl").write_text("")
    assert latest(tmp_path) is None


@pytest.mark.parametrize("kind", ["epoch", "iter"])
def test_the_newest_is_chosen_by_its_number(tmp_path, saved, kind):
    for number in (2, 9, 10):
        (tmp_path / f"{kind}_{number}.pth").write_bytes(saved)
    assert latest(tmp_path) == tmp_path / f"{kind}_10.pth"


def test_the_time_of_a_file_does_not_matter(tmp_path, saved):
    for number in (10, 9):  # 9 is written last
        (tmp_path / f"epoch_{number}.pth").write_bytes(saved)
    assert latest(tmp_path) == tmp_path / "epoch_10.pth"


def test_a_file_without_its_end_is_passed_over_wherever_it_was_cut(tmp_path, saved):
    (tmp_path / "epoch_2.pth").write_bytes(saved)
    rng = random.Random(0)
    cuts = {0, 1, 3, 4, len(saved) // 2, len(saved) - 1, len(saved) - 22, *rng.sample(range(len(saved)), 60)}
    for cut in cuts:
        (tmp_path / "epoch_3.pth").write_bytes(saved[:cut])
        assert latest(tmp_path) == tmp_path / "epoch_2.pth", cut
    (tmp_path / "epoch_3.pth").write_bytes(saved)
    assert latest(tmp_path) == tmp_path / "epoch_3.pth"


def test_all_of_them_cut_leave_nothing(tmp_path, saved):
    for number in (1, 2, 3):
        (tmp_path / f"epoch_{number}.pth").write_bytes(saved[: 100 * number])
    assert latest(tmp_path) is None


@pytest.mark.parametrize("without", ["meta", "state_dict", "optimizer"])
def test_what_is_no_training_checkpoint_is_passed_over(tmp_path, saved, without):
    (tmp_path / "epoch_2.pth").write_bytes(saved)
    whole(tmp_path / "epoch_3.pth", **{without: None})
    assert latest(tmp_path) == tmp_path / "epoch_2.pth"


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {}], ids=["list", "tensor", "empty"])
def test_other_things_of_torch_are_passed_over(tmp_path, saved, content):
    (tmp_path / "epoch_2.pth").write_bytes(saved)
    torch.save(content, tmp_path / "epoch_3.pth")
    assert latest(tmp_path) == tmp_path / "epoch_2.pth"


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a checkpoint at all\n" * 50])
def test_what_is_no_checkpoint_is_passed_over(tmp_path, saved, content):
    (tmp_path / "epoch_2.pth").write_bytes(saved)
    (tmp_path / "epoch_3.pth").write_bytes(content)
    assert latest(tmp_path) == tmp_path / "epoch_2.pth"


@pytest.mark.parametrize(
    "name", ["best_coco_bbox_mAP_epoch_3.pth", "epoch_3.pth.tmp", "epoch_x.pth", "epoch_.pth", "latest.pth", "epoch_3"]
)
def test_other_names_are_not_looked_at(tmp_path, saved, name):
    (tmp_path / "epoch_2.pth").write_bytes(saved)
    (tmp_path / name).write_bytes(saved)
    assert latest(tmp_path) == tmp_path / "epoch_2.pth"


def test_mmengines_own_note_is_not_asked(tmp_path, saved):
    (tmp_path / "epoch_2.pth").write_bytes(saved)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_3.pth"))
    assert latest(tmp_path) == tmp_path / "epoch_2.pth"

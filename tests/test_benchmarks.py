"""The benchmarks run, on inputs so small that their numbers mean nothing."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

import benchmarks
import ckptconv
from benchmarks import fetching, files, machine, planning, speed, table
from benchmarks.measure import MEASURES
from tests.support import hollow
from tests.support.cases import case
from tests.support.server import serving

NAMES = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("*.py") if path.stem != "__init__")
SCRIPTS = {"launch"}  # runs what its command line says, when it is imported
MMDETECTIONS = {"pretraining", "overhead", "vit_pretraining"}
SMALL = 4_000_000


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.mmdet] * (n in MMDETECTIONS)) for n in NAMES if n not in SCRIPTS]
)
def test_a_benchmark_is_imported(name: str) -> None:
    with warnings.catch_warnings():
        if name in MMDETECTIONS:
            warnings.simplefilter("ignore")  # MMDetection's own
        assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_a_file_that_is_mostly_dropped_is_as_torch_writes_it(tmp_path: Path) -> None:
    size = 10 * SMALL
    files.mostly_dropped(tmp_path / "SRC", size)
    assert abs((tmp_path / "SRC").stat().st_size - size) < 0.1 * size
    state = torch.load(tmp_path / "SRC", weights_only=True)["state_dict"]
    receipt = ckptconv.convert(tmp_path / "SRC", tmp_path / "DST.pth")
    assert receipt.method.name == "moco"
    kept = torch.load(tmp_path / "DST.pth", weights_only=True)["state_dict"]
    assert receipt.proved == len(kept) > 300
    assert all(torch.equal(tensor, state[f"module.encoder_q.{name}"]) for name, tensor in kept.items())
    assert sum(tensor.nbytes for tensor in kept.values()) < 0.2 * size  # of the smallest network there is


def test_a_file_that_is_kept_whole_is_as_torch_writes_it(tmp_path: Path) -> None:
    files.kept_whole(tmp_path / "SRC", SMALL)
    state = torch.load(tmp_path / "SRC", weights_only=True)["state_dict"]
    assert ckptconv.convert(tmp_path / "SRC", tmp_path / "DST.pth").proved == len(state) > 300


def test_the_inputs_of_speed_are_of_the_size_that_is_said() -> None:
    made = {c.make for c in speed.cases() if c.big}
    assert made == {files.mostly_dropped, files.kept_whole}
    assert files.SIZE == 6_000_000_000


def test_speed_is_measured_and_written_down(tmp_path: Path) -> None:
    group = speed.Group(
        ("ckptconv convert SRC DST.pth --force",),
        ("cp SRC DST.pth", "cp SRC DST.pth && sync DST.pth"),
        (speed.Goal("ratio", "wall_s", 1e9), speed.Goal("ckptconv", "peak_mib", 0)),
    )
    rows = list(
        speed.measure(
            speed.Case("small", partial(files.kept_whole, size=SMALL), SMALL, (group,), runs=1), tmp_path, quick=False
        )
    )
    assert [row["peer"] for row in rows] == list(group.peers)
    for row in rows:
        assert row["ratio"].keys() == set(MEASURES)  # type: ignore[attr-defined]
        assert [goal["met"] for goal in row["goals"]] == [True, False]  # type: ignore[attr-defined]
    made = machine.describe(tmp_path)
    text = table.speed({"rows": rows, "date": "2026-01-01", "machine": made})
    assert text.count("| small | `ckptconv convert SRC DST.pth --force`: ") == 2
    assert list(tmp_path.iterdir()) == []
    assert json.dumps(rows)


def test_a_case_for_which_there_is_no_disk_is_left_out(tmp_path: Path) -> None:
    huge = speed.Case("huge", files.kept_whole, 10**18, (speed.Group(("ckptconv inspect SRC",)),))
    (row,) = speed.measure(huge, tmp_path, quick=False)
    assert str(row["skipped"]).startswith("needs ")
    (row,) = speed.measure(huge, tmp_path, quick=True)
    assert row["skipped"] == "left out by --quick"


def test_a_command_that_fails_ends_the_benchmark(tmp_path: Path) -> None:
    wrong = speed.Case("none", None, 0, (speed.Group(("ckptconv inspect SRC",)),), runs=1)
    with pytest.raises(SystemExit, match="ckptconv inspect SRC failed:"):
        list(speed.measure(wrong, tmp_path, quick=False))


def test_planning_is_measured(tmp_path: Path) -> None:
    (row,) = planning.of_cases([case("generic_simclr_r18")])
    assert row["tensors"] == len(case("generic_simclr_r18").tensors)
    assert 0 < row["named_ms"] < 10_000
    (layout,) = planning.times(tmp_path / "SRC", ["lightly_moco_resnet18_sequential"])
    assert layout["method"] == "lightly"
    assert min(layout["open_ms"], layout["auto_ms"], layout["named_ms"]) > 0
    goals = {name: {"at_most": most, "value": row[name]} for name, most in planning.GOALS.items()}
    assert "generic_simclr_r18" in planning.table({"cases": [row], "layouts": [layout], "goals": goals})


def test_fetching_is_measured(tmp_path: Path) -> None:
    name = "lightly_moco_resnet18_sequential"
    with serving(files={"/SRC": tmp_path / "SRC"}) as server:
        row = fetching.measure("small", name, tmp_path, server, 1)
    assert row["kept_bytes"] < row["sent_bytes"] < row["bytes"]
    assert row["peer_sent_bytes"] >= row["bytes"]
    assert name in hollow.names()


@pytest.mark.mmdet
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools is older than numpy 2
def test_a_vit_is_pretrained_and_saved_as_dino_saves_it(tmp_path: Path) -> None:
    from benchmarks import vit_pretraining

    right = vit_pretraining.trained(tmp_path / "raw.pth", tmp_path / "images", images=4, steps=2)
    assert 0 < right < 1
    receipt = ckptconv.convert(tmp_path / "raw.pth", tmp_path / "vit.pth", "dino")
    state = torch.load(tmp_path / "vit.pth", weights_only=True)["state_dict"]
    network = vit_pretraining.network()
    network.load_state_dict(state, strict=True)
    assert receipt.proved == len(state) == len(network.state_dict())


@pytest.mark.mmdet
def test_cells_are_turned_with_their_image_and_lie_in_their_patches() -> None:
    from benchmarks import vit_pretraining as vit

    side, count = vit.SIDE // vit.CELL, vit.SIDE // vit.PATCH
    cells = torch.arange(side * side).view(1, side, side)
    pixels = cells.float().repeat_interleave(vit.CELL, 1).repeat_interleave(vit.CELL, 2)[:, None]
    turned, by_patch = vit._flipped(pixels, cells)
    patches = turned.view(count, vit.PATCH, count, vit.PATCH).permute(0, 2, 1, 3).flatten(0, 1)
    drawn = patches[:, vit.CELL // 2 :: vit.CELL, vit.CELL // 2 :: vit.CELL].flatten(1)
    assert torch.equal(by_patch[0].float(), drawn)


@pytest.mark.mmdet
def test_a_step_of_a_vit_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import vit_cost

    threads = torch.get_num_threads()
    monkeypatch.setattr(vit_cost, "SIZES", {"S": (32, 2, 2)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MMDetection's own
            cost = vit_cost.step_cost("timm", {"size": "S", "side": 64, "cp": True, "window": 2}, "cpu")
    finally:
        torch.set_num_threads(threads)
    assert cost["step_s"] > 0
    assert cost["memory_mib"] >= 0


def test_the_launcher_says_what_a_command_took(tmp_path: Path) -> None:
    from benchmarks.measure import Command, once

    took = once(Command("python", (sys.executable, "-c", "import time; time.sleep(0.2)"), tmp_path))
    assert took["wall_s"] >= 0.2 > took["cpu_s"]

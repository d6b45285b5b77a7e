"""Pickled modules are read by the names of their state dict, and nothing of them is run. The oracle is torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.pickled_objects import ObjectInterpreter
from ckptconv.formats.records import CallRecord, Global

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """What a state dict has to do with: buffers that do not persist, parts that are None, one part under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2)])
        self.again = self.blocks[0]
        self.nothing = None
        self.register_module("gone", None)
        self.register_parameter("empty", None)
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.register_buffer("lasting", torch.arange(3))
        self.scale = nn.Parameter(torch.ones(2))


def made() -> nn.Module:
    return Net().eval()


WRAPPED: dict[str, Any] = {
    "bare": lambda net: net,
    "data parallel": lambda net: nn.DataParallel(net),
    "in a dict": lambda net: {"model": net, "epoch": 3},
    "in a list": lambda net: {"models": [net]},
    "in a sequence": lambda net: nn.Sequential(net, nn.ReLU()),
    "traced by fx": lambda net: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU())),
}


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("how", WRAPPED)
def test_a_module_is_its_state_dict(how: str, as_zip: bool, tmp_path: Path) -> None:
    value = WRAPPED[how](made())
    torch.save(value, tmp_path / "m.pth", _use_new_zipfile_serialization=as_zip)
    module, at = value, ""
    if isinstance(value, dict):
        module, at = (value["model"], "model") if "model" in value else (value["models"][0], "models.0")
    wanted = module.state_dict()
    with open_checkpoint(tmp_path / "m.pth") as checkpoint:
        found = checkpoint.tensors(at)
        assert list(found) == list(wanted)
        for name, tensor in wanted.items():
            assert np.array_equal(checkpoint.array(found[name]), tensor.numpy()), name


def test_modules_without_end_are_refused() -> None:
    loop = CallRecord(Global("torch.nn", "Module"), ())
    loop.state = {"_parameters": {}, "_buffers": {}, "_modules": {"self": loop}}
    bushy = CallRecord(Global("torch.nn", "Module"), (), {"_parameters": {}, "_buffers": {}, "_modules": {}})
    for _ in range(40):
        bushy = CallRecord(bushy.func, (), {"_parameters": {}, "_buffers": {}, "_modules": {"a": bushy, "b": bushy}})
    for tree in (loop, bushy):
        with pytest.raises(UnreadableError, match="nests its modules too deeply"):
            ObjectInterpreter(lambda _: None)(tree)

"""TimmBackbone in a detector that is trained: gradients, several processes, mixed precision, checkpoints."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from tests.mmdetection.modules.networks import built, loss, randomise
from tests.support import forked

ROOT = Path(__file__).parents[3]
KINDS = ("vit", "dinov3", "beit", "xcit", "hiera", "swinv2", "convnext", "regnet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reaches_every_parameter(kind):
    options = {"window": 2} if kind in ("vit", "dinov3") else {}
    detector = built(kind, with_cp=True, **options).train()
    randomise(detector.backbone)  # timm fills the last norm of some blocks with zeros
    loss(detector).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    moved = [name for name, one in detector.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0]
    assert len(moved) > 0.95 * sum(one.requires_grad for one in detector.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(kind, dtype):
    if (kind, dtype) == ("swinv2", torch.float16):
        pytest.skip("timm's Swin V2 divides a padded token by its length, and on a CPU float16 rounds 1e-12 to 0")
    detector = built(kind, with_cp=True).train()
    exact = loss(detector).item()
    with torch.autocast("cpu", dtype=dtype):
        rounded = loss(detector)
    rounded.backward()
    assert rounded.item() == pytest.approx(exact, rel=0.05)
    gradients = [one.grad for one in detector.backbone.parameters() if one.requires_grad]
    assert all(one is not None and one.dtype == torch.float32 and one.isfinite().all() for one in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_no_number_of_a_step(kind):
    steps = []
    for with_cp in (False, True):
        detector = built(kind, with_cp=with_cp, drop_path_rate=0.3).train()
        torch.manual_seed(5)
        loss(detector).backward()
        steps.append({name: one.grad for name, one in detector.named_parameters()})
    for name, gradient in steps[0].items():
        assert (gradient is None and steps[1][name] is None) or torch.equal(gradient, steps[1][name]), name


@pytest.mark.parametrize("frozen", ["all", 1])
@pytest.mark.parametrize("kind", ["dinov3", "hiera"])
def test_what_is_frozen_does_not_move(kind, frozen):
    detector = built(kind, frozen=frozen, drop_path_rate=0.5).train()
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([one for one in detector.parameters() if one.requires_grad], lr=1.0)
    loss(detector).backward()
    optimizer.step()
    moved = {name for name, value in detector.backbone.state_dict().items() if not torch.equal(value, before[name])}
    numbers, _ = detector.backbone.layer_numbers()
    assert not [name for name in moved if frozen == "all" or numbers[name] <= frozen]
    assert bool(moved) == (frozen != "all")


PROCESSES = """
import os
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.mmdetection.modules.networks import batch, built

torch.set_num_threads(1)
dist.init_process_group("gloo")
for kind in sys.argv[1:]:
    detector = built(kind, with_cp=True, drop_path_rate=0.1).train()
    wrapped = DistributedDataParallel(detector)
    optimizer = torch.optim.SGD([one for one in detector.parameters() if one.requires_grad], lr=0.01)
    for _ in range(2):
        losses = wrapped(**batch(), mode="loss")
        total, _ = detector.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    sums = torch.stack([one.detach().double().sum() for one in detector.parameters()])
    both = [torch.zeros_like(sums) for _ in range(2)]
    dist.all_gather(both, sums)
    assert torch.equal(*both), kind
    os.write(1, f"trained {kind};".encode())
dist.barrier()
os._exit(0)  # at Python's end, DDP's last reference to the group may wait for its threads for ever
"""


def test_two_processes_look_for_no_unused_parameters(tmp_path):
    """DDP ends a second step with an error where a parameter that needs a gradient had none in the first."""
    kinds = ("dinov3", "xcit", "hiera")
    code = tmp_path / "train.py"
    code.write_text(PROCESSES)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(code), *kinds]
    done = forked.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in kinds:
        assert done.stdout.count(f"trained {kind};") == 2

"""What a training step costs: a ViT of `TimmBackbone` against MMPretrain's own ViT in the same detector.

Each measurement is a process of its own; the two of a row run in turn (A B, A B, …). On a CPU with one thread, a step
counts in seconds of the processor, which other programs change little. `--device cuda` measures ViT-B at 1024 pixels
on a GPU, with and without windows and checkpointing, in bfloat16. The result goes to results/vit_cost.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine

RESULT = Path(__file__).parent / "results" / "vit_cost.json"
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12)}
"""Width, depth and heads."""
ROWS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cpu": ({"size": "S", "side": 256}, {"size": "S", "side": 512}),
    "cuda": (
        {"size": "B", "side": 1024, "bf16": True},
        {"size": "B", "side": 1024, "bf16": True, "cp": True},
        {"size": "B", "side": 1024, "bf16": True, "window": 14},
        {"size": "B", "side": 1024, "bf16": True, "window": 14, "cp": True},
        {"size": "B", "side": 1024},
    ),
}
"""By device. MMPretrain's ViT has no windows: the peer of a row with windows attends to the whole image."""
_NARROW = 64
_WARM, _STEPS, _ROUNDS = 1, 3, 3
NOTES = {
    "how": "RetinaNet with a simple feature pyramid of 64 channels and heads of one convolution, so that the backbone "
    "is most of it; one image with two objects: loss, gradients and a step of AdamW. "
    "Medians; on a CPU one thread and seconds of the processor (cpu), else seconds of the clock.",
    "memory_mib": "on a CPU, how much larger the process was at its peak than before the first step, so that what is "
    "imported does not count; on a GPU, torch.cuda.max_memory_allocated",
    "ratio": "TimmBackbone's divided by that of MMPretrain's ViT: the median over rounds",
}


def step_cost(kind: str, row: Mapping[str, Any], device: str) -> dict[str, float]:
    """The median time of a step and the memory of all, in this process. ``kind``: 'timm' or 'mmpretrain'."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    model = _detector(kind, row).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    batch = model.data_preprocessor(_batch(row["side"]), True)
    clock, before = (time.process_time if device == "cpu" else time.perf_counter), _peak(device)
    seconds = []
    for _ in range(_WARM + _STEPS):
        begun = clock()
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=row.get("bf16", False)):
            loss, _ = model.parse_losses(model(**batch, mode="loss"))
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - begun)
    return {"step_s": median(seconds[_WARM:]), "memory_mib": _peak(device) - before * (device == "cpu")}


def _detector(kind: str, row: Mapping[str, Any]) -> Any:
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import ckptconv.mmdetection.modules  # noqa: F401 (registers)
    from ckptconv.mmdetection import runtime
    from tests.support import pretrain

    (pretrain.models if kind == "mmpretrain" else lambda: pretrain.module("timm"))()
    width, depth, heads = SIZES[row["size"]]
    model = runtime.resolve("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'")["model"]
    model["neck"] = {"type": "SimpleFeaturePyramid", "in_channels": width, "out_channels": _NARROW}
    model["bbox_head"] |= {"in_channels": _NARROW, "feat_channels": _NARROW, "stacked_convs": 1}
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads}
    arch = {"embed_dims": width, "num_layers": depth, "num_heads": heads, "feedforward_channels": 4 * width}
    model["backbone"] = (
        {
            "type": "TimmBackbone",
            "name": "vit_base_patch16_224",
            "arguments": sizes,
            "with_cp": row.get("cp", False),
            "window": row.get("window", 0),
        }
        if kind == "timm"
        else {
            "type": "mmpretrain.VisionTransformer",
            "arch": arch,
            "img_size": 224,
            "patch_size": 16,
            "out_type": "featmap",
        }
    )
    init_default_scope("mmdet")
    detector = MODELS.build(Config(model))
    if kind == "mmpretrain" and row.get("cp"):
        for layer in detector.backbone.layers:
            _checkpointed(layer)
    return detector


def _checkpointed(layer: Any) -> None:
    """MMPretrain's ViT has no option for it: a block is computed again in the backward pass, as timm does it."""
    from torch.utils.checkpoint import checkpoint

    forward = layer.forward
    layer.forward = lambda x: checkpoint(forward, x, use_reentrant=False)


def _batch(side: int) -> dict[str, Any]:
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    shape = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (side, side))
    sample = DetDataSample(metainfo={**shape, "scale_factor": (1, 1)})
    boxes = torch.tensor([[10.0, 10, side / 3, side / 3], [side / 2, side / 4, side - 20, side / 2]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    return {"inputs": [torch.randint(0, 255, (3, side, side), dtype=torch.uint8)], "data_samples": [sample]}


def _peak(device: str) -> float:
    if device == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated()) / (1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10)


def measure(device: str, rounds: int) -> list[dict[str, Any]]:
    """The rows of a device."""
    rows = []
    for row in ROWS[device]:
        found: dict[str, list[dict[str, float]]] = {"timm": [], "mmpretrain": []}
        for _ in range(rounds):
            for kind, costs in found.items():
                costs.append(_alone(kind, row, device))
            print(row, found["timm"][-1], found["mmpretrain"][-1], flush=True)
        ours, peers = found["timm"], found["mmpretrain"]
        rows.append(
            {
                "row": dict(row),
                "ours": {key: median(cost[key] for cost in ours) for key in ours[0]},
                "peer": {key: median(cost[key] for cost in peers) for key in peers[0]},
                "ratio": {key: median(a[key] / b[key] for a, b in zip(ours, peers, strict=True)) for key in ours[0]},
            }
        )
    return rows


def _alone(kind: str, row: Mapping[str, Any], device: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.vit_cost", "--device", device, "--one", kind, json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vit_cost", description=__doc__)
    parser.add_argument("--device", choices=sorted(ROWS), default="cpu")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "ROW"), help="one measurement, in this process")
    options = parser.parse_args()
    if options.one:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mmengine's, mmdet's and mmpretrain's own code
            print(json.dumps(step_cost(options.one[0], json.loads(options.one[1]), options.device)))
        return
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"schema": 1, "notes": NOTES}
    with tempfile.TemporaryDirectory() as folder:
        result[options.device] = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": machine.describe(Path(folder)),
            "rows": measure(options.device, options.rounds),
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

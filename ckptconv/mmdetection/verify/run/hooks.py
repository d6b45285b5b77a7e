"""What a run adds to mmengine's Runner: a log of events, seeds for a resumed run, and a record of the evaluation.

Source of the hooks' order and of the message hub's names: `mmengine/hooks/` and `mmengine/runner/loops.py`, 0.10.7.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import set_random_seed

from ckptconv.mmdetection.verify.run.events import Log
from ckptconv.mmdetection.verify.run.files import Evaluation, write_whole

_EVENTS = 2000  # of steps, at most, in a run
_AMP_PATIENCE = 20  # NaN or infinite losses in a row: a scaled loss may overflow for a few steps
_WARM = 5  # batches that are not timed


@HOOKS.register_module()
class EventLogHook(Hook):  # type: ignore[misc]  # mmengine has no annotations
    """Writes a run's events, and ends the run at a NaN or infinite loss.

    ``evaluated``: at which iteration the last evaluation ended, in this process; None before the first.
    ``raw_weights``: whether the evaluation under way is of the raw weights, and not one of the training.
    """

    priority = "LOWEST"

    def __init__(self, path: str) -> None:
        self._log = Log(Path(path)) if is_main_process() else None
        self.evaluated: int | None = None
        self.raw_weights = False
        self._bad, self._images, self._seconds, self._begun = 0, 0, 0.0, 0.0
        self._told = 0.0

    @property
    def images_per_second(self) -> float | None:
        """Of one process in the last evaluation: the detector and its post-processing, without loading."""
        return self._images / self._seconds if self._seconds else None

    def _write(self, event: str, **body: object) -> None:
        if self._log is not None:
            self._log.write(event, **body)

    def before_train(self, runner) -> None:  # type: ignore[no-untyped-def]
        self._every = max(-(-runner.max_iters // _EVENTS), 1)
        self._write("start", iteration=runner.iter, iterations=runner.max_iters, epochs=runner.max_epochs)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:  # type: ignore[no-untyped-def]
        """Raises FloatingPointError."""
        hub, iteration = runner.message_hub, runner.iter + 1
        loss = hub.get_scalar("train/loss").current()
        self._bad = 0 if math.isfinite(loss) else self._bad + 1
        if self._bad >= (_AMP_PATIENCE if "Amp" in type(runner.optim_wrapper).__name__ else 1):
            raise FloatingPointError(f"the loss is {loss} at iteration {iteration}")
        if iteration % self._every and iteration != runner.max_iters:
            return

        def mean(name: str) -> float | None:
            value = hub.get_scalar(f"train/{name}").mean(self._every)
            return float(value) if math.isfinite(value) else None

        self._write(
            "step",
            iteration=iteration,
            epoch=runner.epoch + 1,
            loss=mean("loss"),
            losses={name: mean(name) for name in outputs or {} if name.startswith("loss_")},
            lr=float(runner.optim_wrapper.param_groups[0]["lr"]),
            seconds=mean("time"),
            data_seconds=mean("data_time"),
            memory_mib=round(peak_mib(), 1),
        )

    def before_val_epoch(self, runner) -> None:  # type: ignore[no-untyped-def]
        if not self.raw_weights:
            self._images, self._seconds = 0, 0.0

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:  # type: ignore[no-untyped-def]
        self._begun = time.perf_counter()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:  # type: ignore[no-untyped-def]
        now = time.perf_counter()
        if batch_idx >= _WARM and not self.raw_weights:
            self._images += len(outputs or ())
            self._seconds += now - self._begun
        if now - self._told > 1:
            self._told = now
            self._write("evaluating", done=batch_idx + 1, of=len(runner.val_dataloader))

    def after_val_epoch(self, runner, metrics=None) -> None:  # type: ignore[no-untyped-def]
        if self.raw_weights:
            return
        self.evaluated = runner.iter
        kinds = {"bbox_mAP": "box", "segm_mAP": "mask"}
        named = {key.rpartition("/")[2]: value for key, value in (metrics or {}).items()}  # the prefix is the config's
        values = {name: named[key] for key, name in kinds.items() if key in named}
        ap = {name: 100 * value if value >= 0 else None for name, value in values.items()}  # -1: no annotation
        self._write("val", iteration=runner.iter, epoch=runner.epoch, ap=ap)


@HOOKS.register_module()
class ReseedHook(Hook):  # type: ignore[misc]
    """Seeds every epoch by its number, so that a resumed run draws the same random numbers."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_train_epoch(self, runner) -> None:  # type: ignore[no-untyped-def]
        set_random_seed((self._seed * 10_000 + runner.epoch) % 2**32)  # numpy takes no more


@METRICS.register_module()
class RecordingCocoMetric(CocoMetric):  # type: ignore[misc]
    """CocoMetric that also records which images were evaluated, and for which categories."""

    def __init__(self, record: str, **others: Any) -> None:
        super().__init__(**others)
        self._record = Path(record)
        self._detections = Path(others["outfile_prefix"]).name

    def record_in(self, folder: Path) -> None:
        """Leave the next evaluation's detections and notes in this folder, under the same names."""
        self._record = folder / self._record.name
        self.outfile_prefix = str(folder / self._detections)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        metrics: dict[str, float] = super().compute_metrics(results)
        images = [prediction["img_id"] for _, prediction in results]
        numbers = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        evaluation = Evaluation(tuple(sorted(set(images))), tuple(self.cat_ids), numbers)
        write_whole(self._record, asdict(evaluation))
        return metrics


def peak_mib() -> float:
    """The peak memory of this process: on the GPU if there is one, as in MMDetection's tables."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / (1 << 20)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)

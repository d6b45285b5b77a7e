"""One process of a run: ``python -m ckptconv.mmdetection.verify.run.worker FOLDER``, by itself, by torchrun or by srun.

It reads ``job.json`` and ``config.py`` in the run's folder, gives the config to mmengine's Runner, and writes there:
``events.jsonl`` while it runs; ``detections.bbox.json``, ``detections.segm.json`` and ``evaluation.json`` of the last
evaluation; in a folder ``raw`` the same of the raw weights, where a hook averages them; mmengine's checkpoints; and
at the end ``result.json``, or ``failure.json`` with the reason. Every checkpoint that the Runner or a module reads
goes through the inert reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ckptconv.errors import CkptconvError, ProofError
from ckptconv.mmdetection.loading.inert_load import inert_loading
from ckptconv.mmdetection.verify.run.environment import environment as _environment
from ckptconv.mmdetection.verify.run.environment import value_or_none
from ckptconv.mmdetection.verify.run.files import (
    CONFIG,
    DETECTIONS,
    EVALUATION,
    EVENTS,
    FAILURE,
    LOCK,
    RAW,
    RESULT,
    Failure,
    Job,
    RunResult,
    write_whole,
)
from ckptconv.mmdetection.verify.run.resume import latest
from ckptconv.text import some


def main(folder: Path) -> int:
    job = Job.load(folder)
    if not job.cuda:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks for GPUs
    try:
        with _running(folder), _group(job), inert_loading(plain=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = _run(folder, job)
            if result is not None:
                write_whole(folder / RESULT, asdict(result))
            _wait_for_all()
        return 0
    except ProofError as error:
        _fail(folder, "proof", error.message, error.hint)
    except CkptconvError as error:
        _fail(folder, "input", error.message, error.hint, error.exit_code)
    except FloatingPointError as error:
        _fail(folder, "diverged", str(error))
    except Exception as error:  # a training may raise anything
        import traceback

        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        _fail(folder, _kind(error), f"{type(error).__name__}: {lines[0] if lines else ''}")
    return 1


def _wait_for_all() -> None:
    """Wait until all processes are here: torchrun stops all of them if one fails, even while it exits."""
    from mmengine.dist import barrier

    barrier()


def _kind(error: Exception) -> str:
    return "memory" if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" else "error"


def _fail(folder: Path, kind: str, message: str, hint: str = "", exit_code: int | None = None) -> None:
    """The first process that fails writes why; the errors of the others only follow from it."""
    with contextlib.suppress(FileExistsError), (folder / FAILURE).open("x", encoding="utf-8") as file:
        json.dump(asdict(Failure(kind, message, hint, exit_code)), file)


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[None]:
    """A lock on the run's folder, shared by its processes: they may outlive torchrun, and the call that started it."""
    with (folder / LOCK).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(f"{os.getpid()} ")
        file.flush()
        yield


@contextlib.contextmanager
def _group(job: Job) -> Iterator[None]:
    """The process group. mmengine's own start needs a GPU, so on CPUs it is started here, and mmengine uses it."""
    if job.launcher == "none" or job.cuda:
        yield
        return
    import torch.distributed as dist

    if job.launcher == "slurm":
        for name, variable in (("RANK", "PROCID"), ("WORLD_SIZE", "NTASKS"), ("LOCAL_RANK", "LOCALID")):
            os.environ[name] = os.environ[f"SLURM_{variable}"]
        nodes = subprocess.check_output(["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]], text=True)
        os.environ.setdefault("MASTER_ADDR", nodes.split()[0])
        os.environ.setdefault("MASTER_PORT", "29500")
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _run(folder: Path, job: Job) -> RunResult | None:
    """The result, on the first process; None on all others."""
    from mmengine.config import Config
    from mmengine.dist import is_main_process
    from mmengine.runner import Runner

    import ckptconv.mmdetection.loader  # noqa: F401 (makes mmengine read checkpoints inertly)
    from ckptconv.mmdetection.verify.run import hooks

    settings = Config(
        Config.fromfile(str(folder / CONFIG)).to_dict()
    )  # without its filename, to which mmengine would write
    settings.work_dir = str(folder)
    settings.launcher = "pytorch" if not job.cuda and job.launcher != "none" else job.launcher
    settings.randomness = {"seed": job.seed, "deterministic": job.repeatable and not job.cuda}
    settings.val_evaluator.type = f"mmdet.{hooks.RecordingCocoMetric.__name__}"
    settings.val_evaluator.outfile_prefix = str(folder / DETECTIONS)
    settings.val_evaluator.record = str(folder / EVALUATION)
    settings.test_dataloader = settings.test_evaluator = settings.test_cfg = None  # val is what is measured
    settings.custom_hooks = [
        *(settings.get("custom_hooks") or []),
        *([{"type": hooks.ReseedHook.__name__, "seed": job.seed}] if job.repeatable else []),
        {"type": hooks.EventLogHook.__name__, "path": str(folder / EVENTS)},
    ]
    if not job.cuda:
        settings.merge_from_dict({"env_cfg.dist_cfg.backend": "gloo"})
        if job.launcher != "none":  # as mmengine's own wrapper, which needs a GPU
            settings.model_wrapper_cfg = {
                "type": "MMDistributedDataParallel",
                "broadcast_buffers": False,
                "find_unused_parameters": settings.get("find_unused_parameters", False),
                **(settings.get("model_wrapper_cfg") or {}),
                "device_ids": None,
            }
    if job.train:
        last = latest(folder)
        settings.resume, settings.load_from = last is not None, str(last) if last else settings.get("load_from")
    else:
        settings.resume, settings.load_from = False, job.detector
    runner = Runner.from_cfg(settings)
    event_log = next(h for h in runner.hooks if isinstance(h, hooks.EventLogHook))
    if job.train:
        runner.train()
        if event_log.evaluated != runner.iter:  # killed after the last checkpoint and before the evaluation's end
            runner.val_loop.run()
        _evaluate_raw(runner, folder / RAW)
    else:
        assert job.detector is not None
        _require_all_of(runner.model, job.detector)
        runner.val()
    if not is_main_process():
        return None
    return RunResult(
        runner.iter if job.train else 0, event_log.images_per_second, value_or_none(hooks.peak_mib), _environment()
    )


def _evaluate_raw(runner: Any, folder: Path) -> None:
    """Evaluate the raw weights, if the last evaluation was of their average.

    Only the event log is called: this evaluation is not the training's, by which hooks choose checkpoints or stop.
    """
    from mmengine.hooks import EMAHook

    from ckptconv.mmdetection.verify.run import hooks

    if not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        return
    folder.mkdir(exist_ok=True)
    (metric,) = runner.val_loop.evaluator.metrics
    metric.record_in(folder)
    all_hooks = list(runner.hooks)
    runner.hooks[:] = [hook for hook in all_hooks if isinstance(hook, hooks.EventLogHook)]
    for hook in runner.hooks:
        hook.raw_weights = True
    runner.val_loop.run()
    runner.hooks[:] = all_hooks


def _require_all_of(model: Any, detector: str) -> None:
    """Raises ProofError if the checkpoint is not exactly this detector's: mmengine would only warn and test on."""
    from mmengine.model import is_model_wrapper

    from ckptconv.mmdetection.loader import load

    model = model.module if is_model_wrapper(model) else model
    content = load(detector)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    saved = {str(name).removeprefix("module."): value for name, value in content.items()}
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in saved and not name.endswith("num_batches_tracked")]
    other = [n for n, t in wanted.items() if n in saved and tuple(getattr(saved[n], "shape", ())) != tuple(t.shape)]
    unexpected = [name for name in saved if name not in wanted]
    for names, difference in (
        (missing, f"of the detector are missing in {detector}"),
        (other, f"of the detector have another shape in {detector}"),
        (unexpected, f"of {detector} are not in the detector"),
    ):
        if names:
            raise ProofError(
                f"{len(names)} tensors {difference}: {some(names, 3)}",
                "Give the config that this detector was trained with.",
            )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

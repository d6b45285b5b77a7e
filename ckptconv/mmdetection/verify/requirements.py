"""Whether this machine can run a plan: GPUs, a place to meet, data, the detector to test. Imports no torch."""

from __future__ import annotations

import os

from ckptconv.errors import EnvironmentMissingError, UsageError
from ckptconv.mmdetection.type_names import kind
from ckptconv.mmdetection.verify.adjustments import accumulated
from ckptconv.mmdetection.verify.plan import Plan
from ckptconv.mmdetection.verify.recipes import length
from ckptconv.small_file import is_file

_COCO = "COCO 2017 is at https://cocodataset.org/#download; it goes below the data root as it is unpacked."


def require_machine(made: Plan, gpus_there: int) -> None:
    """Raises EnvironmentMissingError where this machine cannot run it, UsageError where data are missing."""
    request = made.request
    where = made.config.get("data_root") or "."
    lacks = f"{where} lacks {', '.join(made.missing)}" if made.missing else ""
    if request.tier == "full" and not made.launch.gpus:
        raise EnvironmentMissingError(
            f"--tier full needs a GPU, and there is none: it trains {length(made.config)} with {made.images} images a "
            f"step{_meant(made)}",
            "\n".join(filter(None, ("On the CPU: --tier smoke, --tier lift.", lacks and f"Also, {lacks}. {_COCO}"))),
        )
    if made.launch.apart and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            f"{request.nodes} nodes need a place to meet",
            "Set MASTER_ADDR to this machine's name and MASTER_PORT to a free port, here and on the others.",
        )
    if request.amp and not made.launch.gpus:
        raise EnvironmentMissingError("--amp needs a GPU", "Leave it out.")
    if not made.launch.gpus and any("Amp" in kind(run.config["optim_wrapper"]) for run in made.runs if run.job.train):
        raise EnvironmentMissingError(
            f"{request.target}: optim_wrapper.type is {kind(made.config['optim_wrapper'])}, which needs a GPU",
            "Set it to 'OptimWrapper'.",
        )
    if made.launch.gpus > gpus_there and made.launch.launcher != "slurm":
        raise EnvironmentMissingError(
            f"{made.launch.gpus} GPUs are asked for, and {gpus_there} are here", "Give --gpus N, or --nodes N."
        )
    if lacks:
        raise UsageError(f"the data set is not there: {lacks}", f"{_COCO}\nElsewhere: --data-root DIR")
    if request.detector is not None and not is_file(request.detector):
        raise UsageError(f"there is no detector {request.detector}", "Give a checkpoint that mmengine saved.")


def _meant(made: Plan) -> str:
    """For which machine the config means its images a step; '' if it does not say."""
    batch, counts = made.config["train_dataloader"]["batch_size"], accumulated(made.config)
    gpus, rest = divmod(made.images, batch * counts)
    if rest or not gpus:
        return ""
    each = f"{gpus} GPUs with {batch} images each" if gpus > 1 else f"1 GPU with {batch} images"
    return f", which its config means for {each}{f', {counts} times' if counts > 1 else ''}"

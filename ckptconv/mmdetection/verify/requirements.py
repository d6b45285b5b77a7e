"""Whether this machine can run a plan: GPUs, the nodes' rendezvous, data, the detector to test. Imports no torch."""

from __future__ import annotations

import os

from ckptconv.errors import EnvironmentMissingError, UsageError
from ckptconv.mmdetection.type_names import type_name
from ckptconv.mmdetection.verify.adjustments import accumulated
from ckptconv.mmdetection.verify.plan import VerificationPlan
from ckptconv.mmdetection.verify.recipes import length
from ckptconv.small_file import is_file

_COCO = "Download COCO 2017 from https://cocodataset.org/#download, and unpack it in the data root."


def require_machine(plan: VerificationPlan, gpus_here: int) -> None:
    """Raises EnvironmentMissingError where this machine cannot run the plan, UsageError where data are missing."""
    request, launch = plan.request, plan.launch
    root = plan.config.get("data_root") or "."
    files = plan.missing_files
    missing = f"{', '.join(files)} {'are' if len(files) > 1 else 'is'} missing in {root}" if files else ""
    if request.tier == "full" and not launch.gpus:
        raise EnvironmentMissingError(
            f"`tier='full'` needs a GPU, and this machine has none: it trains {length(plan.config)} with "
            f"{plan.images_per_step} images per step{_intended(plan)}",
            "\n".join(
                filter(None, ("On the CPU: `tier='smoke'`, `tier='lift'`.", missing and f"Also: {missing}. {_COCO}"))
            ),
        )
    if launch.other_nodes and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            f"{request.nodes} nodes need a rendezvous address",
            "Set MASTER_ADDR to this machine's name and MASTER_PORT to a free port, here and on the other nodes.",
        )
    if request.amp and not launch.gpus:
        raise EnvironmentMissingError("`amp` needs a GPU", "Leave it out.")
    if not launch.gpus and any("Amp" in type_name(run.config["optim_wrapper"]) for run in plan.runs if run.job.train):
        raise EnvironmentMissingError(
            f"{request.config}: optim_wrapper.type is {type_name(plan.config['optim_wrapper'])}, which needs a GPU",
            "Set it to 'OptimWrapper'.",
        )
    if launch.gpus > gpus_here and launch.launcher != "slurm":
        raise EnvironmentMissingError(
            f"the run needs {launch.gpus} GPUs, and this machine has {gpus_here}", "Give fewer `gpus`, or more `nodes`."
        )
    if missing:
        raise UsageError(
            f"the data set is incomplete: {missing}", f"{_COCO}\nData in another folder: `data_root='DIR'`"
        )
    if request.checkpoint is not None and not is_file(request.checkpoint):
        raise UsageError(f"{request.checkpoint} does not exist", "Give a checkpoint that mmengine saved.")


def _intended(plan: VerificationPlan) -> str:
    """How the config divides its images per step; '' if it does not say."""
    batch, counts = plan.config["train_dataloader"]["batch_size"], accumulated(plan.config)
    gpus, rest = divmod(plan.images_per_step, batch * counts)
    if rest or not gpus:
        return ""
    each = f"{gpus} GPUs with {batch} images each" if gpus > 1 else f"1 GPU with {batch} images"
    return f", which its config divides among {each}{f', {counts} times' if counts > 1 else ''}"

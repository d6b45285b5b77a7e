"""How to train a config: the command lines of MMDetection's own tools/train.py. Imports neither torch nor MMDetection.

How many GPUs a learning rate is for: mmengine scales it by GPUs x images a GPU over ``auto_scale_lr.base_batch_size``
(`Runner.scale_lr`, mmengine/runner/runner.py 0.10.7), and tools/train.py does so with ``--auto-scale-lr``, where the
config has both keys.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptconv.errors import shell_word
from ckptconv.mmdetection.config.detectors import value_at

_NODE = 8  # GPUs of the usual machine, for which MMDetection's own configs are written
_SCALED = " --auto-scale-lr"


@dataclass(frozen=True)
class Rate:
    """What a learning rate is for.

    ``batch_size`` images a GPU, ``counts`` batches of which make a step; ``images`` a step, 0 if that is not known.
    ``lr``: None where there is none, or there are several. ``scales``: whether --auto-scale-lr works, which
    does not count accumulated batches; ``scaled``: whether the config scales the rate by itself.
    """

    batch_size: int
    images: int = 0
    lr: float | None = None
    scales: bool = False
    scaled: bool = False
    counts: int = 1

    @property
    def gpus(self) -> int:
        """The number of GPUs; 0 if none fits or it is not known."""
        each = self.batch_size * self.counts
        return self.images // each if self.images % each == 0 else 0

    @property
    def text(self) -> str:
        rate = "its learning rate" + (f", {self.lr:g}," if self.lr is not None else "")
        if self.scaled:
            return f"{rate} is scaled to any number of GPUs"
        if not self.images:
            return f"{rate} is for a number of GPUs that it does not say: {_NODE}, as MMDetection's"
        with_images = f"{self.batch_size} image{'s' * (self.batch_size != 1)}"
        each = " each" * (self.gpus > 1) + f", {self.counts} times a step" * (self.counts > 1)
        other = "" if self.scales else "; for another number of GPUs, emit the config again"
        if not self.gpus:
            return f"{rate} is for {self.images} images a step: no number of GPUs with {with_images}{each}{other}"
        return f"{rate} is for {_gpus(self.gpus)} with {with_images}{each}{other}"


@dataclass(frozen=True)
class Command:
    """What to type on so many GPUs: ``where`` is '1 GPU', '8 GPUs' or 'Slurm'."""

    where: str
    gpus: int
    text: str


@dataclass(frozen=True)
class Training:
    """How a config is trained: ``rate`` in words, and a command for one GPU, for several, and under Slurm."""

    rate: str
    commands: tuple[Command, ...]


def rate_of(settings: Mapping[str, Any]) -> Rate | None:
    """What a resolved config says of its learning rate; None for one that does not train."""
    batch = value_at(settings, "train_dataloader.batch_size")
    if not isinstance(batch, int) or batch < 1 or not settings.get("train_cfg"):
        return None
    scale = settings.get("auto_scale_lr") or {}
    images, lr = scale.get("base_batch_size"), value_at(settings, "optim_wrapper.optimizer.lr")
    counts = value_at(settings, "optim_wrapper.accumulative_counts") or 1
    return Rate(
        batch,
        images if isinstance(images, int) else 0,
        lr if isinstance(lr, int | float) else None,
        "enable" in scale and "base_batch_size" in scale and counts == 1,
        bool(scale.get("enable")),
        counts,
    )


def training(config: str, settings: Mapping[str, Any]) -> Training | None:
    """How to train a config at this path; None for one that does not train, or without MMDetection's tools."""
    rate, script = rate_of(settings), tool()
    return Training(rate.text, commands(config, rate, script)) if rate and script else None


def commands(config: str, rate: Rate, script: Path) -> tuple[Command, ...]:
    """For one GPU, for as many as the rate is meant for or a machine has, and for as many under Slurm."""
    here = Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    run = f"{shell_word(str(shown))} {shell_word(config)}"

    def scaled(gpus: int) -> str:
        return _SCALED if rate.scales and not rate.scaled and gpus != rate.gpus else ""

    meant = rate.gpus if rate.gpus > 1 else _NODE
    several = min(meant, _NODE)
    slurm = meant if meant < _NODE or meant % _NODE == 0 else _NODE
    tasks = f"--ntasks={slurm} --ntasks-per-node={min(slurm, _NODE)} --gres=gpu:{min(slurm, _NODE)}"
    torchrun = f"{python()} -m torch.distributed.run --standalone --nproc_per_node={several}"
    return (
        Command(_gpus(1), 1, f"{python()} {run}{scaled(1)}"),
        Command(_gpus(several), several, f"{torchrun} {run} --launcher pytorch{scaled(several)}"),
        Command(
            "Slurm",
            slurm,
            f"srun {tasks} --kill-on-bad-exit=1 {python()} -u {run} --launcher slurm{scaled(slurm)}",
        ),
    )


def command(config: str, rate: Rate) -> Command | None:
    """The one for as many GPUs as the rate is meant for; None if that number is not known, or without the tools."""
    script = tool()
    known = commands(config, rate, script) if script else ()
    return next((one for one in known if one.gpus == rate.gpus), None)


def tool() -> Path | None:
    """MMDetection's tools/train.py: a wheel has it in .mim, an installation from a clone next to the package."""
    try:
        found = importlib.util.find_spec("mmdet")
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin:
        return None
    home = Path(found.origin).parent
    places = (home / ".mim" / "tools" / "train.py", home.parent / "tools" / "train.py")
    return next((place for place in places if place.is_file()), None)


def python() -> str:
    """This Python as a word of a shell: 'python' where that is the one."""
    there = shutil.which("python")
    same = there is not None and os.path.abspath(there) == os.path.abspath(sys.executable)  # noqa: PTH100 (a venv's is a link)
    return "python" if same or not sys.executable else shell_word(sys.executable)


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"

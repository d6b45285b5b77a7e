"""What is planned -> the runs: the config of each, and what its processes do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.verify import config_edits, lift
from ckptconv.mmdetection.verify.config_edits import SyntheticTraining
from ckptconv.mmdetection.verify.data.synthetic import CLASSES
from ckptconv.mmdetection.verify.packages import require_packages
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run.files import CONVERTED, RANDOM, TESTED, TRAINED, Job, Run
from ckptconv.mmdetection.verify.run.launch import Launch

Config = Mapping[str, Any]


def runs(
    request: Request,
    launch: Launch,
    folder: Path,
    config: Config,
    fingerprint: str | None,
    synthetic: SyntheticTraining | None,
    batch_size: int,
) -> Iterator[Run]:
    """The trainings or the test of a tier, in their order.

    Args:
        folder: of all runs; each has one below it, and ``data`` holds what is generated or chosen.
        config: as the tier adjusts it.
        fingerprint: of the checkpoint that the guard compares with.
        synthetic: the short training on generated images; None for the config's own.
        batch_size: images of one process.
    """
    if request.tier == "load":
        return
    cuda = launch.gpus > 0
    takes = _arguments(request, config)
    config = dict(config) if cuda else config_edits.without_sync_bn(dict(config))
    if fingerprint is not None:
        config = config_edits.with_guard(config, fingerprint)
    if request.tier == "eval":
        job = Job(False, request.seed, launch.launcher, cuda, detector=request.checkpoint)
        yield Run(TESTED, folder / TESTED, config, job, TESTED, launch.local)
        return
    seeds = request.seeds or (3 if request.tier == "lift" else 1)
    configs = _configs(request, folder / "data", config, takes, synthetic, batch_size)
    for seed in range(request.seed, request.seed + seeds):
        job = Job(True, seed, launch.launcher, cuda, repeatable=synthetic is not None)
        for group, changed in configs.items():
            name = f"seed{seed}" if group == TRAINED else f"{group}-seed{seed}"
            yield Run(name, folder / name, changed, job, group, launch.local)


def _arguments(request: Request, config: Config) -> lift.Takes:
    """What the detector's classes take, for the tiers that set arguments of theirs."""
    if request.tier not in ("smoke", "lift"):
        return lambda *_: ()
    require_packages()
    return runtime.constructor_arguments(config)


def _configs(
    request: Request,
    data: Path,
    config: dict[str, Any],
    takes: lift.Takes,
    synthetic: SyntheticTraining | None,
    batch_size: int,
) -> dict[str, Config]:
    """The configs that a tier trains, by group."""
    whole = request.tier != "lift"
    if synthetic is not None:
        config = lift.unfrozen(config_edits.shrink(config, synthetic, data, CLASSES), takes, whole)
        config["default_scope"] = config.get("default_scope") or "mmdet"  # in which its new parts are named
        config = config_edits.with_mixed_precision(config) if request.amp else config
    elif request.tier == "lift":
        config = lift.unfrozen(config, takes, whole)
        if request.images is not None:
            config = config_edits.with_annotations(config, data / "train.json", data / "val.json")
    config = config_edits.with_batch_size(config, batch_size)
    return {CONVERTED: config, RANDOM: lift.from_random(config, takes)} if request.tier == "lift" else {TRAINED: config}

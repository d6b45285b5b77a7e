"""What a comparison means: why a module does not hold its checkpoint, and the line to change. Imports no torch.

Each reason is one of the ways in which detectors are known to start from random or wrong weights without an error.
FIELD report: dinov3 #112 (re-initialised).
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptconv.arguments import call
from ckptconv.mmdetection.check import attention_heads, input_findings
from ckptconv.mmdetection.check.evidence import Finding, ModuleEvidence, few, tensors
from ckptconv.mmdetection.check.not_loaded import initialisation_failed, nothing_loaded, wrong_convert_weights
from ckptconv.mmdetection.config.backbone_args import network
from ckptconv.text import some

_STATISTICS = ("running_mean", "running_var")


def problems(e: ModuleEvidence) -> list[Finding]:
    """Why the module does not start as the file says; nothing if it does."""
    c = e.comparison
    if e.init_error and e.convert_weights is None and (c.wrong or not c.equal):
        return [initialisation_failed(e)]
    wrong = _of_weights(e)
    return [*wrong, *(() if wrong else attention_heads.problems(e)), *input_findings.problems(e)]


def _of_weights(e: ModuleEvidence) -> list[Finding]:
    c = e.comparison
    if e.convert_weights is not None and (c.wrong or not c.equal):
        return [wrong_convert_weights(e)]
    if c.same_numbers and set(c.wrong) <= {*c.same_numbers, *c.missing}:
        return [_same_numbers(e)]
    if not (c.equal or c.differing or c.size_mismatch):
        return [nothing_loaded(e)]
    if c.own_code and c.wrong:
        return [_own_code(e)]
    findings = list(_other_network(e))
    if not findings and c.missing:
        findings.append(_missing(e))
    if not findings and c.size_mismatch:
        look = call("inspect", e.checkpoint)
        findings.append(
            Finding(f"{tensors(c.size_mismatch)} with another shape in the file: {few(c.size_mismatch)}", (look,))
        )
    return [*findings, *_overwritten(e)]


def notes(e: ModuleEvidence) -> Iterator[Finding]:
    """What is worth knowing of a module that holds its checkpoint."""
    c = e.comparison
    if c.wrong or not c.equal:
        return
    if c.own_code:
        yield Finding(c.own_code)
    yield from attention_heads.notes(e)
    if c.optional_missing:
        yield Finding(f"{tensors(c.optional_missing)} not in the file and not needed: {few(c.optional_missing)}")
    if c.module_only:
        yield Finding(
            f"{tensors(c.module_only)} of the module that no checkpoint of the network has: {few(c.module_only)}"
        )
    if not e.prefix and e.file_specs and all(name.startswith("module.") for name in e.file_specs):
        yield Finding("mmengine removes DistributedDataParallel's prefix 'module.'; other loaders do not")
    if c.unexpected:
        yield Finding(
            f"{tensors(c.unexpected)} of the file not loaded, because {e.class_name} does not have them: "
            f"{few(c.unexpected)} (a head?)"
        )
    if e.prefix and not e.own_loader and not e.is_converted and e.method is not None:
        yield Finding(
            f"prefix={e.prefix!r} loads the raw file correctly. But the file does not say its method and pixel "
            "statistics, every start reads all of it, and the guard cannot tell it from another file",
            (e.convert_fix(),),
        )
    if e.norm_eval and e.pixels is not None:
        yield Finding(
            "batch norm keeps the statistics of the pretraining (norm_eval=True); MMDetection's configs for "
            "self-supervised weights train it: norm_cfg SyncBN, norm_eval=False, frozen_stages=0"
        )


def _same_numbers(e: ModuleEvidence) -> Finding:
    names = e.comparison.same_numbers
    return Finding(
        f"not proved: {e.checkpoint} has the values of {tensors(names)} of {e.class_name} under other names or in "
        f"another order: {few(names)}; check cannot tell whether these are right",
        certain=False,
    )


def _own_code(e: ModuleEvidence) -> Finding:
    c = e.comparison
    return Finding(
        f"not proved: {c.own_code}, and {tensors(c.wrong)} of {c.total} not found in it: {few(c.wrong)}", certain=False
    )


def _other_network(e: ModuleEvidence) -> Iterator[Finding]:
    """Another depth or width, or a module that lacks a part of the network."""
    c = e.comparison
    theirs, mine = c.file_backbone, c.module_backbone
    if theirs is None or mine is None:
        return
    if theirs != mine and (c.missing or c.size_mismatch or c.unexpected_backbone):
        built, wanted = ((one.arguments if (one := network(backbone)) else {}) for backbone in (mine, theirs))
        lines = ", ".join(f"{key}={value!r}" for key, value in wanted.items() if built.get(key) != value)
        yield Finding(
            f"{e.checkpoint} holds a {theirs.name}, and the config builds a {mine.name}: {len(c.missing)} tensors "
            f"missing, {len(c.size_mismatch)} with another shape, {len(c.unexpected_backbone)} unexpected",
            (f"{e.config_path}: {lines}",) if lines else (),
        )
    elif c.unexpected_backbone:
        yield Finding(
            f"{tensors(c.unexpected_backbone)} of the {theirs.name} in {e.checkpoint} not loaded, because the module "
            f"is built differently: {few(c.unexpected_backbone)}",
            (_plain_resnet(e),),
        )


def _plain_resnet(e: ModuleEvidence) -> str:
    """The line that makes a ResNet of mmdet/models/backbones/resnet.py the plain one; else a look into the file."""
    lines = [f"{key}=False" for key in ("deep_stem", "avg_down") if e.config_node.get(key)]
    if not lines and e.class_name.startswith("ResNetV"):
        lines = ["type='ResNet'"]
    return f"{e.config_path}: {', '.join(lines)}" if lines else call("inspect", e.checkpoint)


def _missing(e: ModuleEvidence) -> Finding:
    missing = e.comparison.missing
    if all(name.endswith(_STATISTICS) for name in missing):
        return Finding(
            f"{e.checkpoint} has no batch-norm statistics: {tensors(missing)} start from 0 and 1",
            ("Use a checkpoint that has running_mean and running_var: without them the features are wrong.",),
        )
    start = ", initialised with random values" if e.random else ""
    return Finding(
        f"{tensors(missing)} missing in {e.checkpoint}{start}: {few(missing)}",
        (call("inspect", e.checkpoint),),
    )


def _overwritten(e: ModuleEvidence) -> Iterator[Finding]:
    differing = e.comparison.differing
    if not differing or e.load_from:  # load_from is a finding of the detector
        return
    differ = f"{len(differing)} of {len(e.module_specs)} tensors differ from {e.checkpoint}"
    if e.train_overrides and "" in e.changed_by.values():
        classes = some(e.train_overrides, 3)
        yield Finding(
            f"loaded, then overwritten by train() of {classes}, which a training calls before its first iteration: "
            f"{differ}: {few(differing)}",
            (f"Change train() of {classes}: keep the weights as they are",),
        )
        return
    if e.changed_by:
        hooks = some(dict.fromkeys(e.changed_by.values()), 3)
        yield Finding(
            f"loaded, then overwritten by the hook {hooks}: {differ}: {few(differing)}",
            (f"custom_hooks: remove {hooks}",),
        )
        return
    infos = [e.init_info[name] for name in differing if name in e.init_info]
    by = next((info.rpartition(" in ")[2].strip() for info in infos if "user-defined" in info), "")
    if not by and (not e.init_info or any("same before and" in info for info in infos)):
        text = f"never loaded: init_weights() of {e.detector} does not call the one of this module"
        fix = f"Call super().init_weights() in init_weights() of {e.detector}"
    else:
        text = f"loaded, then overwritten by init_weights() of {by or e.detector}"
        fix = f"Change init_weights() of {by or e.detector}: keep what init_cfg loads"
    yield Finding(f"{text}: {differ}, whose names and shapes fit: {few(differing)}", (fix,))

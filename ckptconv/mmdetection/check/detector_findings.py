"""Findings about a detector as a whole: what no file explains, what is loaded over it, what a training resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptconv.arguments import call
from ckptconv.errors import CkptconvError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check import guard_record, measured_input
from ckptconv.mmdetection.check.evidence import Finding
from ckptconv.mmdetection.check.input_findings import words
from ckptconv.mmdetection.hints import convert_command, raw_method
from ckptconv.mmdetection.type_names import has_type
from ckptconv.text import fold, some

if TYPE_CHECKING:
    from ckptconv.mmdetection.check.coverage import Gap
    from ckptconv.mmdetection.check.detector_evidence import DetectorEvidence


def load_from(settings: Any) -> str:
    """The detector that a training loads after its initialisation; '' if none, or if it resumes."""
    return "" if settings.get("resume") else str(settings.get("load_from") or "")


def problems(e: DetectorEvidence, explained: bool) -> Iterator[Finding]:
    """Why the detector does not start from its checkpoints; ``explained``: a module's report has a problem already."""
    yield from _gaps(e)
    yield from _shared_heads(e)
    yield from _loaded_over(e)
    yield from _resumed(e)
    if not _is_guarded(e.settings):
        yield from _not_run(e)
    yield from _guard(e)
    if e.start.init_error is not None and not explained:
        yield Finding(f"the initialisation fails: {runtime.error_line(e.start.init_error)}")


def _not_run(e: DetectorEvidence) -> Iterator[Finding]:
    for name, why in e.start.hooks_not_run.items():
        yield Finding(
            f"not proved: the hook {name} acts before the first iteration, and check cannot run it: {why}",
            (f"custom_hooks: remove {name}",),
            certain=False,
        )
    for what, line in e.start.own_runners:
        yield Finding(
            f"not proved: {what}, which may change weights before the first iteration, and check cannot run it",
            (line,),
            certain=False,
        )


def notes(e: DetectorEvidence) -> Iterator[Finding]:
    """What is worth knowing of a detector that starts as it should."""
    for name, why in e.start.hooks_not_run.items():
        yield Finding(f"check cannot run the hook {name} ({why}); the guard runs after it and stops a wrong start")
    for what, _ in e.start.own_runners:
        yield Finding(f"{what}, which check cannot run; the guard runs after it and stops a wrong start")
    trained = e.model_input
    for part in ("val", "test"):
        if trained.unknown or not e.settings.get(f"{part}_dataloader") or not e.modules:
            continue
        got = measured_input.measured(e.start.model, e.settings, part)
        if not got.unknown and not got.like(trained):
            yield Finding(
                f"{part}_dataloader gives {words(got)}, and train_dataloader gives {words(trained)}: the AP is "
                "measured on images that the network was not trained for"
            )


def _is_guarded(settings: Any) -> bool:
    return any(has_type(hook, "CheckpointGuard") for hook in settings.get("custom_hooks") or ())


def _guard(e: DetectorEvidence) -> Iterator[Finding]:
    """What the config's guard would stop although the detector starts as the config says: it is for another file."""
    checkpoints = {module.path: module.checkpoint for module, _ in e.modules if module.loaded_by == "init_cfg"}
    for number, hook in enumerate(e.settings.get("custom_hooks") or ()):
        if not has_type(hook, "CheckpointGuard") or e.settings.get("resume"):
            continue
        modules = hook.get("modules", ("backbone",))
        absent = [module for module in modules if module not in checkpoints]
        if absent:
            yield Finding(
                f"the guard will stop the training: no init_cfg of {' and '.join(absent)} names a checkpoint",
                (
                    "custom_hooks: remove CheckpointGuard",
                    *((f"custom_hooks[{number}]: modules={[*checkpoints]!r}",) if checkpoints else ()),
                ),
            )
        for module in modules:
            if module not in checkpoints:
                continue
            fingerprint = e.local[checkpoints[module]].fingerprint
            if fingerprint and fingerprint != hook.get("fingerprint"):
                yield Finding(
                    f"the guard will stop the training: it expects the fingerprint "
                    f"{str(hook.get('fingerprint'))[:16]}, and {checkpoints[module]} has {fingerprint[:16]}",
                    (f"custom_hooks[{number}]: fingerprint={fingerprint!r}",),
                )


def _gaps(e: DetectorEvidence) -> Iterator[Finding]:
    from ckptconv.mmdetection.check.coverage import backbone_modules, gaps

    explained, proved = set[str](), set[str]()
    for number, c in e.comparisons.items():
        module, without = e.modules[number]
        proved |= set(map(module.full_name, c.equal))
        explained |= set(map(module.full_name, (*c.equal, *c.wrong, *c.same_numbers, *without)))
        if not c.equal and not c.wrong:  # nothing of the file fits, which is a finding of the module
            explained |= set(map(module.full_name, c.module_only))
    model = e.start.model
    for gap in gaps(model, explained, proved, [module.path for module, _ in e.modules], lambda: e.other_start):
        yield _gap(e, gap)
    if not e.modules and not any(True for _ in backbone_modules(model)):
        yield Finding("no part of the detector is initialised from a checkpoint", (_emit_fix(e),))


def _gap(e: DetectorEvidence, gap: Gap) -> Finding:
    node = config_node(e.settings, gap.path)
    count = f"{len(gap.names)} parameter{'s' * (len(gap.names) != 1)}"
    if not gap.random:
        return Finding(
            f"not proved: {count} of {gap.path} not in any file that was read, and every start gives them the same "
            f"values: {some(fold(gap.names), 3)}",
            (_emit_fix(e),),
            certain=False,
        )
    if gap.whole or gap.network:
        text = f"{gap.path} is not initialised from a checkpoint: it starts from random values"
        if node.get("init_cfg"):
            return Finding(
                f"{text}, because {gap.class_name} does not pass on its init_cfg",
                (f"Pass it on in {gap.class_name}: super().__init__(init_cfg=init_cfg)",),
            )
        if not node:
            return Finding(text, (f"Give {gap.class_name} an init_cfg where it is built",))
        return Finding(text, tuple(_init_cfg_fixes(e, gap)))
    return Finding(
        f"not proved: {count} of {gap.path} not in any file: {some(fold(gap.names), 3)}; check cannot tell whether a "
        "checkpoint should have them",
        certain=False,
    )


def _init_cfg_fixes(e: DetectorEvidence, gap: Gap) -> Iterator[str]:
    top = e.settings.get("init_cfg")
    path = top.get("checkpoint") if isinstance(top, Mapping) else None
    path = path or next((module.checkpoint for module, _ in e.modules if module.loaded_by != "load_from"), None)
    loaded = load_from(e.settings)
    if path is not None:
        yield f"model.{gap.path}.init_cfg=dict(type='Pretrained', checkpoint={path!r})"
    elif loaded and Path(loaded).is_file():
        try:
            with open_checkpoint(Path(loaded)) as checkpoint:
                method = raw_method(checkpoint)
        except CkptconvError:
            method = None
        command, target = convert_command(loaded, method)
        line = f"model.{gap.path}.init_cfg=dict(type='Pretrained', checkpoint={target!r})"
        yield f"{command}, then {line}; load_from=None"
    else:
        yield _emit_fix(e)


def _emit_fix(e: DetectorEvidence) -> str:
    return call("emit_config", "CKPT", base=str(e.config), out="NEW.py")


def config_node(settings: Any, path: str) -> Mapping[str, Any]:
    """What the config says of the module at a path; {} where it says nothing there."""
    node = settings.get("model")
    for step in filter(None, path.split(".")):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _shared_heads(e: DetectorEvidence) -> Iterator[Finding]:
    """Shared heads, as a C4 detector has, that could take what a file has besides the backbone's stages."""
    covered = [f"{module.path}." if module.path else "" for module, _ in e.modules]
    for number, comparison in e.comparisons.items():
        module, _ = e.modules[number]
        if not comparison.unexpected or module.path == "":
            continue
        for path, head in e.start.model.named_modules():
            if path.rpartition(".")[2] != "shared_head" or any(f"{path}.".startswith(one) for one in covered):
                continue
            names = set(head.state_dict()) & set(comparison.unexpected)
            if names:
                prefix = f", prefix={module.prefix!r}" if module.prefix else ""
                yield Finding(
                    f"{path} does not start from {module.checkpoint}, which has {len(names)} tensors for it: "
                    f"{some(fold(sorted(names)), 3)}",
                    (f"model.{path}.init_cfg=dict(type='Pretrained', checkpoint={module.checkpoint!r}{prefix})",),
                )


def _loaded_over(e: DetectorEvidence) -> Iterator[Finding]:
    loaded = load_from(e.settings)
    if not loaded:
        return
    fix = ("load_from=None",)
    numbers = [number for number, (module, _) in enumerate(e.modules) if module.loaded_by != "load_from"]
    if loaded not in e.local:
        yield Finding(f"load_from={loaded!r} is loaded after the initialisation, but the file does not exist", fix)
    elif e.start.load_error:
        yield Finding(f"load_from={loaded!r} cannot be loaded: {e.start.load_error}", fix)
    elif any(e.comparisons[number].differing for number in numbers):
        yield Finding(f"load_from={loaded!r} overwrites the backbone after its initialisation", fix)


def _resumed(e: DetectorEvidence) -> Iterator[Finding]:
    settings = e.settings
    if not settings.get("resume"):
        return
    name = settings.get("load_from") or _latest(settings, e.config)
    if not name:
        return  # there is nothing to resume yet: mmengine starts
    fix = ("resume=False; load_from=None",)
    path = Path(str(name)).expanduser()
    if not path.is_file():
        yield Finding(f"resume=True continues from {name}, but the file does not exist", fix)
        return
    record = guard_record.of_file(path)
    for module, _ in e.modules:
        if record.get(module.path) != e.local[module.checkpoint].fingerprint:
            yield Finding(
                f"not proved: resume=True continues from {name}, which does not record that its training started from "
                f"{module.checkpoint}",
                fix,
                certain=False,
            )


def _latest(settings: Any, config: Path) -> str:
    """What mmengine resumes where ``load_from`` names nothing: `find_latest_checkpoint` of its runner/checkpoint.py."""
    folder = Path(settings.get("work_dir") or Path("work_dirs", config.stem))  # as tools/train.py of MMDetection
    try:
        return (folder / "last_checkpoint").read_text(encoding="utf-8").strip()
    except OSError:
        return ""

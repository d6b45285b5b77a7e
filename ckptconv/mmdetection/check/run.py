"""Builds a config's detector, runs its real initialisation, and tells whether its modules hold their checkpoints.

No GPU and no data set are needed, and nothing in a checkpoint is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptconv.conversion.convert import PathLike
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods.registry import methods
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check import (
    attention_heads,
    detector_findings,
    detector_parts,
    downloads,
    measured_input,
    module_findings,
)
from ckptconv.mmdetection.check.detector_evidence import DetectorEvidence
from ckptconv.mmdetection.check.downloads import LocalCheckpoint
from ckptconv.mmdetection.check.evidence import ModuleEvidence
from ckptconv.mmdetection.check.verdict import CheckReport, ModuleReport
from ckptconv.mmdetection.config.training_commands import training
from ckptconv.mmdetection.hints import loader_line, non_tensors, raw_method
from ckptconv.mmdetection.loading.inert_load import checkpoint_names, inert_loading, require_readable
from ckptconv.sources.interface import Fetching

if TYPE_CHECKING:
    from ckptconv.methods.interface import Method
    from ckptconv.mmdetection.check.compare import Comparison
    from ckptconv.mmdetection.check.init_cfg import LoadedModule


def check(
    config: PathLike, fetching: Fetching | None = None, stage: Callable[[str], None] = lambda _: None
) -> CheckReport:
    """Whether the detector starts from its checkpoint, a file or an address that mmengine downloads.

    The config's ``custom_imports`` are imported, as mmengine does; what they change stays changed in this process. Its
    own hooks are called with a runner that has a detector and nothing else.
    ``stage`` is called with what begins, in words.
    Raises UsageError for a config that cannot be read or built, or whose checkpoint is missing; UnreadableError for a
    checkpoint that is broken, not safe to unpickle, or cannot be fetched; EnvironmentMissingError without MMDetection.
    """
    stage(f"reading {config}")
    settings = runtime.read_config(Path(config))
    work_dir = settings.get("work_dir") or Path("work_dirs", Path(config).stem)
    require_readable(settings, Path(work_dir))
    stage("importing MMDetection and building the detector")
    evidence = _evidence(Path(config), settings, fetching or Fetching(), stage)
    modules = tuple(_module_report(number, evidence) for number in range(len(evidence.modules)))
    problems = tuple(detector_findings.problems(evidence, any(module.problems for module in modules)))
    notes = tuple(detector_findings.notes(evidence)) if not problems else ()
    transfers = tuple(transfer for local in evidence.local.values() for transfer in local.transfers)
    detector = type(evidence.start.model).__name__
    start = detector_parts.detector_start(evidence)
    report = CheckReport(
        config=str(config),
        detector=detector,
        modules=modules,
        problems=problems,
        transfers=transfers,
        notes=notes,
        parts=start.parts,
        rates=start.rates,
        rates_unknown=start.rates_unknown,
    )
    return replace(report, training=training(str(config), settings.to_dict())) if report.good else report


def _evidence(config: Path, settings: Any, fetching: Fetching, stage: Callable[[str], None]) -> DetectorEvidence:
    """Build the detector, fetch what it starts from, and run it up to its first iteration."""
    with runtime.needs_mmdetection():
        from ckptconv.mmdetection.check import initialisation
    opened: list[str] = []
    with inert_loading() as log, initialisation.watched(opened):
        start = initialisation.Start(runtime.build(settings, str(config)), opened=opened)
        from ckptconv.mmdetection.check import init_cfg, loaded_modules

        by_init_cfg = init_cfg.modules_with_init_cfg(start.model)
        local: dict[str, LocalCheckpoint] = {}
        for module in by_init_cfg:
            if module.checkpoint not in local:
                local[module.checkpoint] = downloads.fetch(module.checkpoint, module.path, fetching)
        load_from = detector_findings.load_from(settings)
        if load_from and load_from not in local and ("://" in load_from or Path(load_from).expanduser().is_file()):
            local[load_from] = downloads.fetch(load_from, "the detector", fetching)
        stage("initialising the detector")
        with downloads.served(local.values()):
            initialisation.run_until_first_iteration(start, settings)
    stage(f"comparing {len(start.model.state_dict())} tensors with the checkpoint")
    opened += [
        name for name in checkpoint_names(settings.to_dict()) if name not in opened
    ]  # some readers open files unseen
    loaded = loaded_modules.complete(start.model, by_init_cfg, local, opened, load_from)
    model_input = measured_input.measured(start.model, settings)
    return DetectorEvidence(config, settings, start, local, tuple(loaded), model_input, log)


def _module_report(number: int, detector: DetectorEvidence) -> ModuleReport:
    from ckptconv.mmdetection.check.compare import compare

    module, without = detector.modules[number]
    local = detector.local[module.checkpoint]
    with open_checkpoint(local.path) as checkpoint:
        all_modules = [other for other, _ in detector.modules]
        comparison = compare(module, checkpoint, local.converted, all_modules, without)
        detector.comparisons[number] = comparison
        evidence = _module_evidence(module, comparison, detector, checkpoint)
        of_downloads = tuple(downloads.notes(local, checkpoint, evidence.config_path, detector.log.unpickled))
    network = comparison.module_backbone or (comparison.file_backbone if comparison.own_code else None)
    return ModuleReport(
        module=module.path,
        network=network.name if network else evidence.class_name,
        checkpoint=local.shown,
        prefix=module.prefix,
        equal=len(comparison.equal),
        total=comparison.total,
        problems=(*module_findings.problems(evidence), *downloads.problems(local)),
        notes=(*module_findings.notes(evidence), *of_downloads),
    )


def _module_evidence(
    module: LoadedModule, comparison: Comparison, detector: DetectorEvidence, checkpoint: Checkpoint
) -> ModuleEvidence:
    from ckptconv.mmdetection.check.mmdet_classes import own_loader
    from ckptconv.mmdetection.check.reading import fits_otherwise

    here, start, local = module.torch_module, detector.start, detector.local[module.checkpoint]
    converted = local.converted
    section = checkpoint.sections.get(converted.section)
    method = _method(module, local, checkpoint)
    inside = f"{module.path}." if module.path else ""
    changed = {name.removeprefix(inside): hook for hook, names in start.changed.items() for name in names}
    otherwise = fits_otherwise(module, checkpoint, converted)
    refused = type(start.init_error).__name__ == "UnpicklingError"
    return ModuleEvidence(
        config_path=_config_path(detector.settings, module),
        config_node=detector_findings.config_node(detector.settings, module.path),
        class_name=type(here).__name__,
        detector=type(start.model).__name__,
        checkpoint=local.shown,
        prefix=module.prefix,
        loaded_by=module.loaded_by,
        module_specs=module.specs,
        file_specs=section.tensors if section else {},
        other_sections=tuple(path for path in checkpoint.sections if path != converted.section),
        comparison=comparison,
        method=method,
        is_converted=converted.origin is not None,
        pixels=converted.origin.pixels if converted.origin else method.pixels if method else None,
        init_error=runtime.error_line(start.init_error) if start.init_error else "",
        refused=non_tensors(checkpoint.named) if refused else (),
        loader_fix=loader_line(checkpoint, "executes nothing"),
        own_loader=bool(own_loader(here)),
        convert_weights=getattr(here, "convert_weights", None) if otherwise else None,
        init_info={n.removeprefix(inside): info for n, info in start.init_info.items() if n.startswith(inside)},
        changed_by={name: changed[name] for name in comparison.differing if name in changed},
        train_overrides=start.train_overrides,
        load_from=detector_findings.load_from(detector.settings),
        random=bool(comparison.missing) and detector.is_random(module.full_name(name) for name in comparison.missing),
        model_input=detector.model_input,
        preprocessor_path=detector.preprocessor_path,
        style=next((str(part.style) for part in here.modules() if hasattr(part, "style")), ""),
        norm_eval=bool(getattr(here, "norm_eval", False)),
        heads_built=attention_heads.built(here),
        heads_said=attention_heads.said(converted),
        heads_from=converted.origin.heads_from if converted.origin else "",
    )


def _method(module: LoadedModule, local: LocalCheckpoint, checkpoint: Checkpoint) -> Method | None:
    """The method of a converted file, as it says; of another one, the method that explains it."""
    if local.converted.origin is not None:
        return methods().get(local.converted.origin.method)
    is_backbone = (
        module.loaded_by != "load_from" and module.path and module.prefix != "backbone."
    )  # of a detector's file
    return raw_method(checkpoint) if is_backbone else None


def _config_path(settings: Any, module: LoadedModule) -> str:
    """Where the config says what this module is: not always where the module is, as under a teacher and a student."""

    def naming(node: Any, path: str) -> Iterator[str]:
        """The paths of nodes whose init_cfg names the checkpoint."""
        if isinstance(node, Mapping):
            init_cfg = node.get("init_cfg")
            if isinstance(init_cfg, Mapping) and init_cfg.get("checkpoint") == module.checkpoint:
                yield path
            for name, child in node.items():
                yield from naming(child, f"{path}.{name}")

    wanted = f"model.{module.path}" if module.path else "model"
    paths = list(naming(settings, "model"))
    last = module.path.rpartition(".")[2]
    return wanted if wanted in paths else next((path for path in paths if path.endswith(f".{last}")), wanted)

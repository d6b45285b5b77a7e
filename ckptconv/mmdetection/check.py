"""Builds a config's detector, runs its real initialisation, and tells whether its modules hold their checkpoints.

No GPU and no data set are needed, and nothing in a checkpoint is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptconv import backbones
from ckptconv.errors import UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection import reasons, runtime
from ckptconv.mmdetection.pretrained import raw_method, section_of
from ckptconv.mmdetection.reasons import Evidence, Finding
from ckptconv.provenance import origin
from ckptconv.registry import methods

PathLike = str | Path


@dataclass(frozen=True)
class Report:
    """One module: where it is, what it is, its file, how many of its tensors are equal, and what follows."""

    module: str
    network: str
    checkpoint: str
    prefix: str
    equal: int
    total: int
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


@dataclass(frozen=True)
class Checked:
    """The verdict on a config. ``problems`` are those of the detector as a whole."""

    config: str
    detector: str
    reports: tuple[Report, ...]
    problems: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        return not self.problems and not any(report.problems for report in self.reports)


def check(config: PathLike) -> Checked:
    """Whether the detector starts from its checkpoint.

    Raises UsageError for a config that cannot be read or built, or whose checkpoint is not there; UnreadableError for a
    checkpoint that is broken; EnvironmentMissingError without MMDetection.
    """
    settings = runtime.read_config(Path(config))
    model = runtime.build(settings, str(config))
    from ckptconv.mmdetection.compare import sites

    found = sites(model)
    for site in found:
        _require_local(site.checkpoint, site.path)
    failed, recorded = runtime.initialise(model)
    reports = [_report(site, found, model, settings, failed, recorded) for site in found]
    problems = () if reports else (_no_site(settings),)
    return Checked(str(config), type(model).__name__, tuple(reports), problems)


def _require_local(checkpoint: str, module: str) -> None:
    if "://" in checkpoint:
        raise UsageError(
            f"{module} starts from {checkpoint}, which is no file here",
            "Download it and give its path: check compares with what is on the disk.",
        )
    if not Path(checkpoint).expanduser().is_file():
        raise UsageError(
            f"{module} starts from {checkpoint}, and there is no such file",
            "Relative paths are seen from the folder where the training is started: go there, or mend the path.",
        )


def _no_site(settings: Any) -> Finding:
    loaded = settings.get("load_from")
    return Finding(
        "no part of the detector is initialised from a checkpoint"
        + (f"; load_from={loaded!r} is for a whole detector" if loaded else ""),
        ("ckptconv emit-config CKPT --base CONFIG -o NEW, or backbone=dict(init_cfg=dict(type='Pretrained', …))",),
    )


def _report(
    site: Any, found: list[Any], model: Any, settings: Any, failed: BaseException | None, recorded: Mapping[str, str]
) -> Report:
    from ckptconv.mmdetection.compare import compare

    with open_checkpoint(Path(site.checkpoint).expanduser()) as checkpoint:
        result = compare(site, checkpoint)
        said, path = origin(checkpoint), section_of(checkpoint)
        method = methods().get(said.method) if said else raw_method(checkpoint)
        section = checkpoint.sections.get(path)
        unsafe = failed is not None and type(failed).__name__ == "UnpicklingError"
        evidence = Evidence(
            module=site.path,
            kind=type(site.module).__name__,
            detector=type(model).__name__,
            checkpoint=site.checkpoint,
            prefix=site.prefix,
            wanted=site.specs,
            file=section.tensors if section else {},
            elsewhere=tuple(p for p in checkpoint.sections if p != path),
            claimed=frozenset(
                other.prefix + name
                for other in found
                if other is not site and other.checkpoint == site.checkpoint
                for name in other.specs
            ),
            equal=result.equal,
            differing=result.differing,
            reshaped=result.reshaped,
            missing=result.missing,
            absent=result.absent,
            extra=result.extra,
            method=method,
            converted=said is not None,
            pixels=said.pixels if said else method.pixels if method else None,
            refused=_not_plain(checkpoint.named) if unsafe else (),
            failed=runtime.told(failed) if failed else "",
            recorded={n.removeprefix(f"{site.path}."): text for n, text in recorded.items() if n.startswith(site.path)},
            fed=settings.model.get("data_preprocessor") or {},
            style=next((str(part.style) for part in site.module.modules() if hasattr(part, "style")), ""),
            norm_eval=bool(getattr(site.module, "norm_eval", False)),
        )
    network = backbones.read(evidence.wanted)
    return Report(
        module=site.path,
        network=network.name if network else evidence.kind,
        checkpoint=site.checkpoint,
        prefix=site.prefix,
        equal=len(result.equal),
        total=result.total,
        problems=tuple(reasons.problems(evidence)),
        notes=tuple(reasons.notes(evidence)),
    )


def _not_plain(named: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in named if not name.startswith(("torch.", "torch._utils.", "collections.OrderedDict")))

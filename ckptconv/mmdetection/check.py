"""Builds a config's detector, runs its real initialisation, and tells whether its modules hold their checkpoints.

No GPU and no data set are needed, and nothing in a checkpoint is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptconv import backbones
from ckptconv.formats import open_checkpoint
from ckptconv.formats.source import Transfer
from ckptconv.mmdetection import addresses, reasons, runtime
from ckptconv.mmdetection.addresses import Held
from ckptconv.mmdetection.inert_loading import Seen, inert_loading, require_readable
from ckptconv.mmdetection.pretrained import more_than_tensors, raw_method, section_of
from ckptconv.mmdetection.reasons import Evidence, Finding
from ckptconv.mmdetection.training import Training, training
from ckptconv.pipeline import PathLike
from ckptconv.provenance import origin
from ckptconv.registry import methods
from ckptconv.sources import Fetching


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
    """The verdict on a config. ``problems`` are those of the detector as a whole, ``transfers`` what was fetched.

    ``training``: how to go on, for a verdict that is good.
    """

    config: str
    detector: str
    reports: tuple[Report, ...]
    problems: tuple[Finding, ...]
    transfers: tuple[Transfer, ...] = ()
    training: Training | None = None

    @property
    def good(self) -> bool:
        return not self.problems and not any(report.problems for report in self.reports)


def check(config: PathLike, fetching: Fetching | None = None, stage: Callable[[str], None] = lambda _: None) -> Checked:
    """Whether the detector starts from its checkpoint, a file or an address that mmengine downloads.

    The config's ``custom_imports`` are imported, as mmengine does; what they change stays changed in this process.
    ``stage`` is told what begins, in words.
    Raises UsageError for a config that cannot be read or built, or whose checkpoint is not there; UnreadableError for a
    checkpoint that is broken, not safe to unpickle, or cannot be fetched; EnvironmentMissingError without MMDetection.
    """
    stage(f"reading {config}")
    settings = runtime.read_config(Path(config))
    work_dir = settings.get("work_dir") or Path("work_dirs", Path(config).stem)
    require_readable(settings, Path(work_dir))
    stage("importing MMDetection and building the detector")
    with inert_loading() as seen:
        model = runtime.build(settings, str(config))
        from ckptconv.mmdetection.compare import sites

        found = sites(model)
        held: dict[str, Held] = {}
        for site in found:
            if site.checkpoint not in held:
                held[site.checkpoint] = addresses.hold(site.checkpoint, site.path, fetching or Fetching())
        stage("initialising the detector")
        with addresses.downloaded(held.values()):
            failed, recorded = runtime.initialise(model)
    stage(f"comparing {sum(len(site.specs) for site in found)} tensors with the checkpoint")
    reports = tuple(
        _report(site, held[site.checkpoint], found, model, settings, failed, recorded, seen) for site in found
    )
    problems = [*_without_checkpoint(model, found), *_loaded_over(settings)]
    if failed is not None and not any(report.problems for report in reports):
        problems.append(Finding(f"the initialisation fails: {runtime.told(failed)}", ("Mend the config.",)))
    transfers = tuple(transfer for one in held.values() for transfer in one.transfers)
    checked = Checked(str(config), type(model).__name__, reports, tuple(problems), transfers)
    return replace(checked, training=training(str(config), settings.to_dict())) if checked.good else checked


def _without_checkpoint(model: Any, found: list[Any]) -> Iterator[Finding]:
    """Backbones that nothing is loaded into: no site at, above or inside them."""
    mend = (
        "ckptconv emit-config CKPT --base CONFIG -o NEW.py, or init_cfg=dict(type='Pretrained', checkpoint=…) in it",
    )
    for path, _ in model.named_modules():
        steps = path.split(".")
        covered = any(
            site.path == "" or f"{path}.".startswith(f"{site.path}.") or site.path.startswith(f"{path}.")
            for site in found
        )
        if steps[-1] == "backbone" and "backbone" not in steps[:-1] and not covered:
            yield Finding(f"{path} is initialised from no checkpoint: it starts from random numbers", mend)
    if not found and not any(path.endswith("backbone") for path, _ in model.named_modules()):
        yield Finding("no part of the detector is initialised from a checkpoint", mend)


def _loaded_over(settings: Any) -> Iterator[Finding]:
    loaded = settings.get("load_from")
    if loaded and not settings.get("resume"):
        yield Finding(
            f"load_from={loaded!r} is loaded over the backbone after its initialisation", ("load_from = None",)
        )


def _report(
    site: Any,
    held: Held,
    found: list[Any],
    model: Any,
    settings: Any,
    failed: Exception | None,
    recorded: Mapping[str, str],
    seen: Seen,
) -> Report:
    from ckptconv.mmdetection.compare import compare

    with open_checkpoint(held.path) as checkpoint:
        comparison = compare(site, checkpoint, found)
        said, path = origin(checkpoint), section_of(checkpoint)
        method = methods().get(said.method) if said else raw_method(checkpoint)
        section = checkpoint.sections.get(path)
        fed = settings.model.get("data_preprocessor") or {}
        inside = f"{site.path}." if site.path else ""
        evidence = Evidence(
            at=_place(settings.model, site),
            kind=type(site.module).__name__,
            detector=type(model).__name__,
            checkpoint=held.shown,
            prefix=site.prefix,
            wanted=site.specs,
            file=section.tensors if section else {},
            elsewhere=tuple(p for p in checkpoint.sections if p != path),
            comparison=comparison,
            method=method,
            converted=said is not None,
            pixels=said.pixels if said else method.pixels if method else None,
            failed=runtime.told(failed) if failed else "",
            refused=more_than_tensors(checkpoint.named) if type(failed).__name__ == "UnpicklingError" else (),
            own_way=runtime.loads_its_own_way(site.module),
            recorded={n.removeprefix(inside): text for n, text in recorded.items() if n.startswith(inside)},
            fed=fed.get("data_preprocessor") or fed,  # of several branches, or of one
            style=next((str(part.style) for part in site.module.modules() if hasattr(part, "style")), ""),
            norm_eval=bool(getattr(site.module, "norm_eval", False)),
        )
        of_downloads = tuple(addresses.notes(held, checkpoint, evidence.at, seen.unpickled))
    network = backbones.read(evidence.wanted)
    return Report(
        module=site.path,
        network=network.name if network else evidence.kind,
        checkpoint=held.shown,
        prefix=site.prefix,
        equal=len(comparison.equal),
        total=comparison.total,
        problems=(*reasons.problems(evidence), *addresses.problems(held)),
        notes=(*reasons.notes(evidence), *of_downloads),
    )


def _place(settings: Any, site: Any) -> str:
    """Where the config says what this module is: not always where the module is, as under a teacher and a student."""

    def said(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, Mapping):
            init_cfg = node.get("init_cfg")
            if isinstance(init_cfg, Mapping) and init_cfg.get("checkpoint") == site.checkpoint:
                yield path
            for name, child in node.items():
                yield from said(child, f"{path}.{name}")

    wanted = f"model.{site.path}" if site.path else "model"
    places = list(said(settings, "model"))
    last = site.path.rpartition(".")[2]
    return wanted if wanted in places else next((p for p in places if p.endswith(f".{last}")), wanted)

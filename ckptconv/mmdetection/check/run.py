"""Builds a config's detector, runs its real initialisation, and tells whether its modules hold their checkpoints.

No GPU and no data set are needed, and nothing in a checkpoint is executed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptconv import backbones
from ckptconv.conversion.pipeline import PathLike
from ckptconv.conversion.provenance import origin
from ckptconv.formats import open_checkpoint
from ckptconv.methods.registry import methods
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check import diagnosis, downloads, normalisation, whole_detector
from ckptconv.mmdetection.check.comparison import Comparison
from ckptconv.mmdetection.check.diagnosis import Evidence, Finding
from ckptconv.mmdetection.check.downloads import Held
from ckptconv.mmdetection.config.checkpoint import section_of
from ckptconv.mmdetection.config.training_commands import Training, training
from ckptconv.mmdetection.hints import more_than_tensors, raw_method, through_the_loader
from ckptconv.mmdetection.loading.inert_load import Seen, inert_loading, named, require_readable
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching

if TYPE_CHECKING:
    from ckptconv.mmdetection.check.compare import Site
    from ckptconv.mmdetection.check.initialisation import Start


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
    """The verdict on a config. ``problems`` and ``notes`` are those of the detector as a whole.

    ``transfers`` is what was fetched. ``training``: how to go on, for a verdict that is good.
    """

    config: str
    detector: str
    reports: tuple[Report, ...]
    problems: tuple[Finding, ...]
    transfers: tuple[Transfer, ...] = ()
    training: Training | None = None
    notes: tuple[Finding, ...] = ()

    @property
    def good(self) -> bool:
        return not self.findings

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every problem, of a module or of the whole."""
        return (*(problem for report in self.reports for problem in report.problems), *self.problems)

    @property
    def proved(self) -> bool:
        """Whether it is certain how the detector starts, well or not."""
        return self.good or any(finding.certain for finding in self.findings)


@dataclass
class Look:
    """A detector before its first iteration, and what was compared: what the findings are made from."""

    config: Path
    settings: Any
    start: Start
    held: Mapping[str, Held]
    sites: tuple[tuple[Site, frozenset[str]], ...]
    fed: normalisation.Fed
    seen: Seen
    compared: dict[int, Comparison] = field(default_factory=dict)

    @property
    def fed_at(self) -> str:
        """Where the config says what the detector's preprocessor is."""
        model = self.settings.model
        if "data_preprocessor" not in model and self.settings.get("data_preprocessor") is not None:
            return "data_preprocessor"
        inner = isinstance(model.get("data_preprocessor"), Mapping) and "data_preprocessor" in model.data_preprocessor
        return "model.data_preprocessor.data_preprocessor" if inner else "model.data_preprocessor"

    @functools.cached_property
    def again(self) -> Mapping[str, Any]:
        """The detector's entries after a start from other random numbers."""
        from ckptconv.mmdetection.check.initialisation import again

        with downloads.downloaded(self.held.values()):
            return again(self.settings, str(self.config))

    def is_random(self, names: Iterator[str]) -> bool:
        """Whether any of these entries depends on the random numbers of the start."""
        import torch

        state = self.start.model.state_dict()
        return any(name in self.again and not torch.equal(self.again[name], state[name]) for name in names)


def check(config: PathLike, fetching: Fetching | None = None, stage: Callable[[str], None] = lambda _: None) -> Checked:
    """Whether the detector starts from its checkpoint, a file or an address that mmengine downloads.

    The config's ``custom_imports`` are imported, as mmengine does; what they change stays changed in this process. Its
    own hooks are called with a runner that has a detector and nothing else.
    ``stage`` is told what begins, in words.
    Raises UsageError for a config that cannot be read or built, or whose checkpoint is not there; UnreadableError for a
    checkpoint that is broken, not safe to unpickle, or cannot be fetched; EnvironmentMissingError without MMDetection.
    """
    stage(f"reading {config}")
    settings = runtime.read_config(Path(config))
    work_dir = settings.get("work_dir") or Path("work_dirs", Path(config).stem)
    require_readable(settings, Path(work_dir))
    stage("importing MMDetection and building the detector")
    with runtime.needs_mmdetection():
        from ckptconv.mmdetection.check import initialisation as starting
    opened: list[str] = []
    with inert_loading() as seen, starting.watched(opened):
        start = starting.Start(runtime.build(settings, str(config)), opened=opened)
        from ckptconv.mmdetection.check import compare, loaded_modules

        said = compare.sites(start.model)
        held: dict[str, Held] = {}
        for site in said:
            if site.checkpoint not in held:
                held[site.checkpoint] = downloads.hold(site.checkpoint, site.path, fetching or Fetching())
        loaded = whole_detector.loaded_over(settings)
        if loaded and loaded not in held and ("://" in loaded or Path(loaded).expanduser().is_file()):
            held[loaded] = downloads.hold(loaded, "the detector", fetching or Fetching())
        stage("initialising the detector")
        with downloads.downloaded(held.values()):
            starting.finish(start, settings)
    stage(f"comparing {len(start.model.state_dict())} tensors with the checkpoint")
    opened += [name for name in named(settings.to_dict()) if name not in opened]  # some readers open files unseen
    found = loaded_modules.complete(start.model, said, held, opened, loaded)
    look = Look(Path(config), settings, start, held, tuple(found), normalisation.measured(start.model, settings), seen)
    reports = tuple(_report(i, look) for i in range(len(found)))
    problems = tuple(whole_detector.problems(look, any(report.problems for report in reports)))
    notes = tuple(whole_detector.notes(look)) if not problems else ()
    transfers = tuple(transfer for one in held.values() for transfer in one.transfers)
    checked = Checked(str(config), type(start.model).__name__, reports, problems, transfers, None, notes)
    return replace(checked, training=training(str(config), settings.to_dict())) if checked.good else checked


def _report(number: int, look: Look) -> Report:
    from ckptconv.mmdetection.check.compare import compare, fits_otherwise

    (site, without), start = look.sites[number], look.start
    held = look.held[site.checkpoint]
    with open_checkpoint(held.path) as checkpoint:
        comparison = compare(site, checkpoint, [other for other, _ in look.sites], without)
        look.compared[number] = comparison
        said, path = origin(checkpoint), section_of(checkpoint)
        guessed = site.by != "load_from" and site.path and site.prefix != "backbone."  # which detectors call theirs
        method = methods().get(said.method) if said else raw_method(checkpoint) if guessed else None
        section = checkpoint.sections.get(path)
        inside = f"{site.path}." if site.path else ""
        kind = type(site.module).__name__
        changed = {n.removeprefix(inside): hook for hook, names in start.changed.items() for n in names}
        evidence = Evidence(
            at=_place(look.settings, site),
            kind=kind,
            detector=type(start.model).__name__,
            checkpoint=held.shown,
            prefix=site.prefix,
            by=site.by,
            wanted=site.specs,
            file=section.tensors if section else {},
            elsewhere=tuple(p for p in checkpoint.sections if p != path),
            comparison=comparison,
            method=method,
            converted=said is not None,
            pixels=said.pixels if said else method.pixels if method else None,
            failed=runtime.told(start.failed) if start.failed else "",
            refused=more_than_tensors(checkpoint.named) if type(start.failed).__name__ == "UnpicklingError" else (),
            loader=through_the_loader(checkpoint, "executes nothing"),
            own_way=runtime.loads_its_own_way(site.module),
            converts=getattr(site.module, "convert_weights", None) if fits_otherwise(site, checkpoint) else None,
            recorded={n.removeprefix(inside): text for n, text in start.recorded.items() if n.startswith(inside)},
            changed={name: changed[name] for name in comparison.differing if name in changed},
            trainers=start.trainers,
            loaded_over=whole_detector.loaded_over(look.settings),
            random=look.is_random(f"{inside}{name}" for name in comparison.missing) if comparison.missing else False,
            fed=look.fed,
            fed_at=look.fed_at,
            style=next((str(part.style) for part in site.module.modules() if hasattr(part, "style")), ""),
            norm_eval=bool(getattr(site.module, "norm_eval", False)),
            said=whole_detector.said(look.settings, site.path),
        )
        of_downloads = tuple(downloads.notes(held, checkpoint, evidence.at, look.seen.unpickled))
    network = backbones.read(evidence.wanted) or backbones.read(evidence.file if comparison.way else {})
    return Report(
        module=site.path,
        network=network.name if network else evidence.kind,
        checkpoint=held.shown,
        prefix=site.prefix,
        equal=len(comparison.equal),
        total=comparison.total,
        problems=(*diagnosis.problems(evidence), *downloads.problems(held)),
        notes=(*diagnosis.notes(evidence), *of_downloads),
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

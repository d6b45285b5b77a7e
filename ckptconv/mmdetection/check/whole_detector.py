"""What is to say of a detector as a whole: what nothing explains, what is loaded over it, what a training resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptconv.errors import CkptconvError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check import guard_record, normalisation
from ckptconv.mmdetection.check.diagnosis import Finding
from ckptconv.mmdetection.hints import conversion, raw_method
from ckptconv.mmdetection.type_names import named
from ckptconv.text import fold, some

if TYPE_CHECKING:
    from ckptconv.mmdetection.check.coverage import Gap
    from ckptconv.mmdetection.check.run import Look

_EMIT = "ckptconv emit-config CKPT --base {config} -o NEW.py"


def loaded_over(settings: Any) -> str:
    """The detector that a training loads after its initialisation; '' if none, or if it resumes."""
    return "" if settings.get("resume") else str(settings.get("load_from") or "")


def problems(look: Look, failing: bool) -> Iterator[Finding]:
    """Why the detector does not start from its checkpoints; ``failing`` says that a module's report has a reason."""
    yield from _gaps(look)
    yield from _rest(look)
    yield from _loaded_over(look)
    yield from _resumed(look)
    for name, why in look.start.unknown.items():
        if not _guarded(look.settings):
            yield Finding(
                f"not proved: the hook {name} acts before the first iteration and does not run here: {why}",
                (f"custom_hooks: without {name}",),
                certain=False,
            )
    for what, line in look.start.foreign:
        if not _guarded(look.settings):
            yield Finding(
                f"not proved: {what}, which may change weights before the first iteration and does not run here",
                (line,),
                certain=False,
            )
    yield from _guard(look)
    if look.start.failed is not None and not failing:
        yield Finding(f"the initialisation fails: {runtime.told(look.start.failed)}")


def notes(look: Look) -> Iterator[Finding]:
    """What is worth knowing of a detector that starts as it should."""
    for name, why in look.start.unknown.items():
        yield Finding(f"the hook {name} does not run here ({why}); the guard looks after it, and stops a wrong start")
    for what, _ in look.start.foreign:
        yield Finding(f"{what}, which does not run here; the guard looks after it, and stops a wrong start")
    trained = look.fed
    for part in ("val", "test"):
        if trained.unknown or not look.settings.get(f"{part}_dataloader") or not look.sites:
            continue
        fed = normalisation.measured(look.start.model, look.settings, part)
        if not fed.unknown and not fed.like(trained):
            yield Finding(
                f"{part}_dataloader feeds {fed.order} with mean {[*fed.mean]} and std {[*fed.std]}, and the training "
                f"{trained.order} with mean {[*trained.mean]} and std {[*trained.std]}: its AP is that of other pixels"
            )


def _guarded(settings: Any) -> bool:
    return any(named(hook, "CheckpointGuard") for hook in settings.get("custom_hooks") or ())


def _guard(look: Look) -> Iterator[Finding]:
    """What the guard of the config would stop though the detector starts as it says: the guard is for another file."""
    sites = {site.path: site for site, _ in look.sites if site.by == "init_cfg"}
    for number, hook in enumerate(look.settings.get("custom_hooks") or ()):
        if not named(hook, "CheckpointGuard") or look.settings.get("resume"):
            continue
        modules = hook.get("modules", ("backbone",))
        absent = [module for module in modules if module not in sites]
        if absent:
            yield Finding(
                f"the guard stops the training: no init_cfg of {' and '.join(absent)} names a checkpoint",
                (
                    "custom_hooks: without CheckpointGuard",
                    *((f"custom_hooks[{number}]: modules={[*sites]!r}",) if sites else ()),
                ),
            )
        for module in modules:
            if module not in sites:
                continue
            mark = guard_record.fingerprint_of(look.held[sites[module].checkpoint].path)
            if mark and mark != hook.get("fingerprint"):
                yield Finding(
                    f"the guard stops the training: it is for the file with the fingerprint "
                    f"{str(hook.get('fingerprint'))[:16]}, and {sites[module].checkpoint} has {mark[:16]}",
                    (f"custom_hooks[{number}]: fingerprint={mark!r}",),
                )


def _gaps(look: Look) -> Iterator[Finding]:
    from ckptconv.mmdetection.check.coverage import gaps, roots

    explained, proved = set[str](), set[str]()
    for number, comparison in look.compared.items():
        site, without = look.sites[number]
        inside = f"{site.path}." if site.path else ""
        proved |= {inside + name for name in comparison.equal}
        explained |= {inside + n for n in (*comparison.equal, *comparison.wrong, *comparison.scattered, *without)}
        if not comparison.equal and not comparison.wrong:  # nothing of the file fits, which is said there
            explained |= {inside + name for name in comparison.added}
    model = look.start.model
    sites = [site.path for site, _ in look.sites]
    for gap in gaps(model, explained, proved, sites, lambda: look.again):
        yield _gap(look, gap)
    if not look.sites and not any(True for _ in roots(model)):
        yield Finding("no part of the detector is initialised from a checkpoint", (_emitted(look),))


def _gap(look: Look, gap: Gap) -> Finding:
    node = said(look.settings, gap.path)
    count = f"{len(gap.names)} parameter{'s' * (len(gap.names) != 1)}"
    if not gap.random:
        return Finding(
            f"not proved: {count} of {gap.path} are in no file that was read, and every start gives them the same "
            f"values: {some(fold(gap.names), 3)}",
            (_emitted(look),),
            certain=False,
        )
    if gap.whole or gap.network:
        text = f"{gap.path} is initialised from no checkpoint: it starts from random numbers"
        if node.get("init_cfg"):
            return Finding(
                f"{text}, for {gap.kind} does not keep its init_cfg",
                (f"Let {gap.kind} hand it on: super().__init__(init_cfg=init_cfg)",),
            )
        if not node:
            return Finding(text, (f"Give {gap.kind} an init_cfg where it is built",))
        return Finding(text, tuple(_ways(look, gap)))
    return Finding(
        f"not proved: {count} of {gap.path} are in no file: {some(fold(gap.names), 3)}; whether a checkpoint should "
        "have them cannot be told",
        certain=False,
    )


def _ways(look: Look, gap: Gap) -> Iterator[str]:
    top = look.settings.get("init_cfg")
    path = top.get("checkpoint") if isinstance(top, Mapping) else None
    path = path or next((site.checkpoint for site, _ in look.sites if site.by != "load_from"), None)
    loaded = loaded_over(look.settings)
    if path is not None:
        yield f"model.{gap.path}.init_cfg=dict(type='Pretrained', checkpoint={path!r})"
    elif loaded and Path(loaded).is_file():
        try:
            with open_checkpoint(Path(loaded)) as checkpoint:
                method = raw_method(checkpoint)
        except CkptconvError:
            method = None
        command, target = conversion(loaded, method)
        line = f"model.{gap.path}.init_cfg=dict(type='Pretrained', checkpoint={target!r})"
        yield f"{command}, then {line}; load_from=None"
    else:
        yield _emitted(look)


def _emitted(look: Look) -> str:
    return _EMIT.format(config=look.config)


def said(settings: Any, path: str) -> Mapping[str, Any]:
    """What the config says of the module at a path; {} where it says nothing there."""
    node = settings.get("model")
    for step in filter(None, path.split(".")):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _rest(look: Look) -> Iterator[Finding]:
    """Modules outside of the backbone that have places for what a file has beside it, as a C4 detector's head has."""
    covered = [f"{site.path}." if site.path else "" for site, _ in look.sites]
    for number, comparison in look.compared.items():
        site, _ = look.sites[number]
        if not comparison.extra or site.path == "":
            continue
        for path, module in look.start.model.named_modules():
            if path.rpartition(".")[2] != "shared_head" or any(f"{path}.".startswith(one) for one in covered):
                continue
            names = set(module.state_dict()) & set(comparison.extra)
            if names:
                prefix = f", prefix={site.prefix!r}" if site.prefix else ""
                yield Finding(
                    f"{path} does not start from {site.checkpoint}, which has {len(names)} tensors for it: "
                    f"{some(fold(sorted(names)), 3)}",
                    (f"model.{path}.init_cfg=dict(type='Pretrained', checkpoint={site.checkpoint!r}{prefix})",),
                )


def _loaded_over(look: Look) -> Iterator[Finding]:
    loaded = loaded_over(look.settings)
    if not loaded:
        return
    mend = ("load_from=None",)
    sites = [(number, site) for number, (site, _) in enumerate(look.sites) if site.by != "load_from"]
    if loaded not in look.held:
        yield Finding(f"load_from={loaded!r} is to be loaded after the initialisation, and there is no such file", mend)
    elif look.start.loading:
        yield Finding(f"load_from={loaded!r} cannot be loaded: {look.start.loading}", mend)
    elif any(look.compared[number].differing for number, _ in sites):
        yield Finding(f"load_from={loaded!r} is loaded over the backbone after its initialisation", mend)


def _resumed(look: Look) -> Iterator[Finding]:
    settings = look.settings
    if not settings.get("resume"):
        return
    name = settings.get("load_from") or _latest(settings, look.config)
    if not name:
        return  # there is nothing to resume yet: mmengine starts
    mend = ("resume=False; load_from=None",)
    path = Path(str(name)).expanduser()
    if not path.is_file():
        yield Finding(f"resume=True goes on from {name}, and there is no such file", mend)
        return
    record = guard_record.of_file(path)
    for site, _ in look.sites:
        if record.get(site.path) != guard_record.fingerprint_of(look.held[site.checkpoint].path):
            yield Finding(
                f"not proved: resume=True goes on from {name}, and nothing in it tells that its training started from "
                f"{site.checkpoint}",
                mend,
                certain=False,
            )


def _latest(settings: Any, config: Path) -> str:
    """What mmengine resumes where ``load_from`` names nothing: `find_latest_checkpoint` of its runner/checkpoint.py."""
    folder = Path(settings.get("work_dir") or Path("work_dirs", config.stem))  # as tools/train.py of MMDetection
    try:
        return (folder / "last_checkpoint").read_text(encoding="utf-8").strip()
    except OSError:
        return ""

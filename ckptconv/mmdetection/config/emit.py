"""Checkpoint x detector x schedule -> the text of an MMDetection config, with a comment where a value matters.

Text only: nothing of MMDetection is imported, except by `runtime` for what cannot be known without it: a config
without bases (``style='flat'``), and a base of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from ckptconv._version import __version__
from ckptconv.arguments import argument
from ckptconv.backbones import Backbone
from ckptconv.conversion.convert import PathLike
from ckptconv.errors import UsageError, printable
from ckptconv.methods.interface import IMAGENET
from ckptconv.mmdetection.config import large_scale_jitter, python_source
from ckptconv.mmdetection.config.backbone_args import network
from ckptconv.mmdetection.config.checkpoint import Pretrained, pretrained
from ckptconv.mmdetection.config.checkpoint_path import named, with_checkpoint
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES, value_at
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.config.overlay import Overlay
from ckptconv.mmdetection.config.own_data import Data, examine
from ckptconv.sources.atomic import check_destination, write_atomically


@dataclass(frozen=True)
class Emitted:
    """A config's text, and what it is about; ``images`` a step, and their rate: None if the base has none.

    ``batch_size``: images a GPU, ``counts`` batches of which make a step. ``notes``: what the user should know.
    """

    text: str
    pretrained: Pretrained
    title: str
    base: str
    images: int
    batch_size: int
    counts: int
    lr: float | None
    data: Data
    notes: tuple[str, ...]


def emit_config(checkpoint: PathLike, out: PathLike | None = None, *, force: bool = False, **choices: Any) -> Emitted:
    """The MMDetection config that trains a detector on a converted checkpoint; ``choices`` are fields of `Choices`.

    It is written to ``out`` if that is given; ``force`` replaces a file that exists. Raises UsageError for choices that
    cannot be, and for a checkpoint that was not converted.
    """
    chosen = Choices(**choices)
    return emit(checkpoint, chosen) if out is None else write(checkpoint, out, chosen, force)


def write(path: PathLike, out: PathLike, choices: Choices | None = None, force: bool = False) -> Emitted:
    """Write the config for a converted checkpoint. It appears complete or not at all.

    Raises what `emit` does, and UsageError for a path that cannot be written.
    """
    out = Path(out)
    if out.suffix != ".py":
        raise UsageError(f"{out} does not end in .py: mmengine would not read it", "Give FILE.py.")
    real = check_destination(out, force, iter([Path(path)]))
    base = Path(choices.base) if choices and choices.base else None
    if base is not None and real.exists() and base.exists() and real.samefile(base):
        raise UsageError(f"{out} is the base itself", "Give the new config another name.")
    emitted = emit(path, choices, None if out.is_symlink() else real.parent)
    with write_atomically(real, force) as draft:
        draft.file.write(emitted.text.encode())
        with draft.syncing():
            pass
        draft.commit()
    return emitted


def emit(path: PathLike, choices: Choices | None = None, folder: Path | None = None) -> Emitted:
    """The config for a converted checkpoint. ``folder`` is where the config will be, None if that is not known.

    mmengine sees a relative base from there; without a folder, base and checkpoint are named by absolute paths.
    Raises UsageError, UnreadableError, or EnvironmentMissingError where MMDetection is needed and missing.
    """
    return _compose(pretrained(path), choices or Choices(), folder)


def _licence(found: Pretrained) -> str:
    """A comment with the licence of the weights, if the file says it. mmengine replaces what is in double braces."""
    if found.licence is None:
        return ""
    page = f" ({found.licence.url})" if found.licence.url else ""
    said = f"The weights' licence: {found.licence}{page}"
    return "".join(f"# {line}\n" for line in wrap(said.replace("{{", "{ {"), python_source.WIDTH - 2))


def without_checkpoint(backbone: Backbone, method: str, choices: Choices) -> str:
    """The config's text for a network whose checkpoint is not here."""
    built = network(backbone, method=method)
    assert built is not None
    found = Pretrained("CHECKPOINT", "torch zip", method, backbone, built, IMAGENET, "")
    return _compose(found, replace(choices, guard=False), None).text


def _compose(found: Pretrained, choices: Choices, folder: Path | None) -> Emitted:
    if choices.base is None:
        detector, schedule = DETECTORS[choices.detector], SCHEDULES[choices.schedule]
        base = f"mmdet::{detector.bases.get(schedule.epochs, next(iter(detector.bases.values())))}"
        title = f"{detector.title}, {schedule.title}"
    else:
        from ckptconv.mmdetection.config import base_config

        base = base_config.reference(choices.base, folder)
        detector, schedule = base_config.detector(choices.base), None
        title = f"{detector.title} of {choices.base}"
    if schedule is not None and schedule.large_scale_jitter:
        if not found.network.pyramid:
            raise UsageError(
                f"{argument('schedule', schedule.name)} is for plain transformers; {found.backbone.name} has stages",
                f"Choose another: {argument('schedule', 'ms-2x')}",
                "schedule",
            )
        detector = replace(
            detector,
            images=large_scale_jitter.IMAGES,
            batch_size=large_scale_jitter.BATCH_SIZE,
            lr=large_scale_jitter.RATE,
            optimizer="AdamW",
        )
    if detector.shared_head and not (found.network.plain or found.network.of_timm):
        raise UsageError(
            f"{found.backbone.name} cannot be the backbone of {detector.title}: its last stage is MMDetection's "
            "ResLayer, a plain ResNet's without widths and groups",
            f"Give a config that can use it: {argument('base', base_of)}"
            if (base_of := found.network.base)
            else f"Choose a detector with FPN: {argument('detector', 'mask-rcnn')}",
        )
    data = examine(choices, detector)
    overlay = Overlay(detector, found, choices, data)
    overlay.fill(schedule)
    head = (
        f"# {printable(title)}, on {found.backbone.name} of {found.method}.\n"
        f"# Made by ckptconv {__version__}; the backbone's proof: ckptconv check THIS_FILE\n"
        f"{_licence(found)}"
    )
    written = named(found.path, folder)
    tree = with_checkpoint(overlay.tree(), found.path, written)
    text = f"{head}\n_base_ = {base!r}\n\n{python_source.assignments(tree, overlay.notes)}"
    if choices.style == "flat":
        from ckptconv.mmdetection import runtime

        located = runtime.find_config(choices.base or base)
        resolved = runtime.resolve(f"_base_ = {str(located)!r}\n\n{python_source.assignments(overlay.tree())}")
        try:
            resolved = with_checkpoint(resolved, found.path, written)
            text = f"{head}\n{python_source.assignments(resolved, overlay.notes)}"
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{base} cannot be written flat: {error}", f"Inherit from it: {argument('style', 'inherit')}", "style"
            ) from None
    counts = value_at(detector.found, "optim_wrapper.accumulative_counts") or 1
    return Emitted(
        text,
        found,
        title,
        base,
        overlay.images,
        overlay.batch_size,
        counts,
        overlay.lr,
        data,
        (*data.notes, *overlay.advice),
    )

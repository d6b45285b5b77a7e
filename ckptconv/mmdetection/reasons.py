"""What a comparison means: why a module does not hold its checkpoint, and the line to change. Imports no torch.

Each reason is one of the ways in which detectors are known to start from random or wrong weights without an error:
FIELD reports are mmdetection #5284, #9521, #6943 (names), dinov3 #112 (re-initialised), moco #117 (BGR).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv import backbones
from ckptconv.errors import shell_word
from ckptconv.folding import fold, some
from ckptconv.methods.interface import Method, Pixels
from ckptconv.mmdetection.comparison import Comparison, under
from ckptconv.mmdetection.kinds import named
from ckptconv.mmdetection.networks import network
from ckptconv.mmdetection.pretrained import conversion
from ckptconv.spec import StateSpec

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Finding:
    """One sentence, and the lines of which any one mends it."""

    text: str
    mend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """All that is known of one module and its file.

    ``at``: where the config says what the module is; ``kind``: its class; ``detector``: the class of the whole.
    ``wanted``: its entries; ``file``: the file's tensors where mmengine looks for them; ``elsewhere``: other places of
    the file that hold tensors.
    ``method``: what explains the file; ``converted``: whether ckptconv wrote it; ``pixels``: what it was trained with.
    ``failed``: the error of the initialisation, and ``refused`` what torch did not load it for, if that was it.
    ``own_way``: whether its class loads checkpoints by code of its own, which may rename.
    ``recorded``: what mmengine noted of each parameter's initialisation.
    ``fed``: the settings of the detector's data preprocessor; ``style``: where its blocks have their strides.
    """

    at: str
    kind: str
    detector: str
    checkpoint: str
    prefix: str
    wanted: StateSpec
    file: StateSpec
    elsewhere: tuple[str, ...]
    comparison: Comparison
    method: Method | None
    converted: bool
    pixels: Pixels | None
    failed: str
    refused: tuple[str, ...]
    own_way: bool
    recorded: Mapping[str, str]
    fed: Mapping[str, Any]
    style: str
    norm_eval: bool


def problems(e: Evidence) -> list[Finding]:
    """Why the module does not start as the file says; nothing if it does."""
    c = e.comparison
    if e.failed and (c.wrong or not c.equal):
        return [_not_initialised(e)]
    if not (c.equal or c.differing or c.reshaped):
        return [_nothing_loaded(e), *_pixels(e), *_strides(e)]
    found = list(_other_network(e))
    if not found and c.missing:
        found.append(_missing(e))
    if not found and c.reshaped:
        found.append(Finding(f"{_count(c.reshaped)} of another shape in the file: {_few(c.reshaped)}"))
    return [*found, *_overwritten(e), *_pixels(e), *_strides(e)]


def notes(e: Evidence) -> Iterator[Finding]:
    """What is worth knowing of a module that holds its checkpoint."""
    c = e.comparison
    if c.wrong or not c.equal:
        return
    if c.absent:
        yield Finding(f"{_count(c.absent)} not in the file and not needed: {_few(c.absent)}")
    if c.added:
        yield Finding(f"{_count(c.added)} of the module's own, in no checkpoint of the network: {_few(c.added)}")
    if not e.prefix and e.file and all(name.startswith("module.") for name in e.file):
        yield Finding("mmengine takes DistributedDataParallel's 'module.' off the names; other loaders do not")
    if c.extra:
        left = f"{_count(c.extra)} of the file have no place in a {e.kind} and were left out"
        yield Finding(f"{left}: {_few(c.extra)} (a head?)")
    if e.prefix and not e.own_way and not e.converted and e.method is not None:
        command, target = conversion(e.checkpoint, e.method)
        yield Finding(
            f"prefix={e.prefix!r} reads the raw file rightly. What it lacks: the file says neither its method nor its "
            "pixels, all of it is read at each start, and no guard can tell it from another file",
            (f"{command}, then {_line(e, target)}",),
        )
    if e.norm_eval and e.pixels is not None:
        yield Finding(
            "batch norm keeps the statistics of the pretraining (norm_eval=True); MMDetection's rows for "
            "self-supervised weights train it: norm_cfg SyncBN, norm_eval=False, frozen_stages=0"
        )


def _not_initialised(e: Evidence) -> Finding:
    if e.own_way and e.prefix and not any(name.startswith(e.prefix) for name in e.file):
        command, target = conversion(e.checkpoint, e.method)
        return Finding(
            f"{e.kind} takes names that start with {e.prefix!r} and no others (with convert_weights=True its authors', "
            f"too): {e.checkpoint} has none, and the initialisation fails: {e.failed}",
            (f"{command}, then {_line(e, target)}",),
        )
    if e.prefix and e.file and not any(name.startswith(e.prefix) for name in e.file):
        return Finding(f"no name in {e.checkpoint} starts with prefix={e.prefix!r}; {_starts(e)}", tuple(_ways(e)))
    if e.refused:
        command, target = conversion(e.checkpoint, e.method)
        return Finding(
            f"torch does not load {e.checkpoint}, which holds more than tensors: {some(e.refused, 3)}",
            (
                f"{command}, then {_line(e, target)}",
                "custom_imports = dict(imports=['ckptconv.mmdetection.loader']), which reads it and executes nothing",
            ),
        )
    return Finding(f"the initialisation fails: {e.failed}", ("Mend the config.",))


def _nothing_loaded(e: Evidence) -> Finding:
    """The commonest: mmengine says so in one warning line and trains from random weights."""
    if not e.file:
        where = f"; its tensors are in {some(map(repr, e.elsewhere), 4)}" if e.elsewhere else ""
        text = f"nothing was loaded: {e.checkpoint} has none under 'state_dict' and none at the top{where}"
    else:
        text = f"nothing was loaded: none of its {len(e.wanted)} names is in {e.checkpoint}; {_starts(e)}"
    if e.own_way:
        return Finding(f"{e.kind} loads checkpoints by code of its own, so this cannot be told by names: {text}")
    return Finding(text, tuple(_ways(e)))


def _other_network(e: Evidence) -> Iterator[Finding]:
    """Another depth or width, or a module without a place for a part of the network."""
    c = e.comparison
    theirs, mine = backbones.read(under(e.file, e.prefix)), backbones.read(e.wanted)
    if theirs is None or mine is None:
        return
    if theirs != mine and (c.missing or c.reshaped or c.unplaced):
        had, has = (found.arguments if (found := network(one)) else {} for one in (mine, theirs))
        lines = ", ".join(f"{key}={value!r}" for key, value in has.items() if had.get(key) != value)
        yield Finding(
            f"{e.checkpoint} holds a {theirs.name}, and the config builds a {mine.name}: {len(c.missing)} tensors "
            f"missing, {len(c.reshaped)} of another shape, {len(c.unplaced)} without a place",
            (f"{e.at}: {lines}",) if lines else (),
        )
    elif c.unplaced:
        yield Finding(
            f"{_count(c.unplaced)} of the {theirs.name} in {e.checkpoint} have no place in the module, which is built "
            f"otherwise: {_few(c.unplaced)}",
            (f"{e.at}: leave out what changes the network (deep_stem, avg_down, …)",),
        )


def _missing(e: Evidence) -> Finding:
    missing = e.comparison.missing
    if all(name.endswith(_STATISTICS) for name in missing):
        return Finding(
            f"the batch-norm statistics are not in {e.checkpoint}: {_count(missing)} start from 0 and 1",
            ("Get a checkpoint with running_mean and running_var: without them its features are not those it learnt.",),
        )
    return Finding(
        f"{_count(missing)} not in {e.checkpoint} and start from random numbers: {_few(missing)}",
        (f"ckptconv inspect {shell_word(e.checkpoint)}",),
    )


def _overwritten(e: Evidence) -> Iterator[Finding]:
    differing = e.comparison.differing
    if not differing:
        return
    notes = [e.recorded[name] for name in differing if name in e.recorded]
    by = next((note.rpartition(" in ")[2].strip() for note in notes if "user-defined" in note), "")
    if not by and (not e.recorded or any("same before and" in note for note in notes)):
        text = f"never loaded: the initialisation of {e.detector} does not reach it"
        mend = f"Let init_weights() of {e.detector} call that of its parts: super().init_weights()"
    else:
        text = f"loaded and then overwritten by init_weights() of {by or e.detector}"
        mend = f"Let init_weights() of {by or e.detector} leave what init_cfg loads as it is"
    yield Finding(
        f"{text}: {len(differing)} of {len(e.wanted)} tensors differ from {e.checkpoint}, whose names and shapes "
        f"fit: {_few(differing)}",
        (mend,),
    )


def _pixels(e: Evidence) -> Iterator[Finding]:
    wanted = e.pixels
    if wanted is None or not named(e.fed, "DetDataPreprocessor"):
        return
    mean, std = ([float(v) for v in e.fed.get(key) or (none,) * 3] for key, none in (("mean", 0), ("std", 1)))
    order = "RGB" if e.fed.get("bgr_to_rgb") else "BGR"  # mmdet reads images as BGR
    near = len(mean) == len(std) == 3 and all(
        abs(a - b) < 0.05 for a, b in zip((*mean, *std), (*wanted.mean, *wanted.std), strict=True)
    )
    if near and order == wanted.order:
        return
    method = e.method.name if e.method else "the checkpoint"
    yield Finding(
        f"the detector feeds {order} with mean {mean} and std {std}; {method} was trained on {wanted.order} with mean "
        f"{list(wanted.mean)} and std {list(wanted.std)}",
        (f"model.data_preprocessor: {_settings(wanted)}",),
    )


def _settings(pixels: Pixels) -> str:
    return f"mean={list(pixels.mean)}, std={list(pixels.std)}, bgr_to_rgb={pixels.order == 'RGB'}"


def _strides(e: Evidence) -> Iterator[Finding]:
    if e.style == "caffe" and e.pixels is not None and any(name.endswith("conv3.weight") for name in e.wanted):
        method = e.method.name if e.method else "the checkpoint"
        yield Finding(
            f"style='caffe' has the strides in the 1x1 convolutions; {method} was trained with them in the 3x3 ones: "
            "the same names, other features",
            (f"{e.at}: style='pytorch'",),
        )


def _ways(e: Evidence) -> Iterator[str]:
    """The lines that mend names that do not fit: convert, or a prefix where that is all there is to it."""
    found = _prefixes(e)
    if "" in found:
        yield f"{_line(e, e.checkpoint)}, without a prefix"
        return
    if e.method is not None and backbones.read(e.wanted) is not None:
        command, target = conversion(e.checkpoint, e.method)
        yield f"{command}, then {_line(e, target)}"
    elif not found:
        yield f"ckptconv inspect {shell_word(e.checkpoint)}, to see what it is"
    for prefix in found[:1]:
        yield _line(e, e.checkpoint, prefix)


def _prefixes(e: Evidence) -> list[str]:
    """Prefixes under which the file has every entry that is needed; a query encoder's before its momentum copy's."""
    needed = [name for name in e.wanted if name not in e.comparison.added and not name.endswith("num_batches_tracked")]
    ends = [name[: -len(needed[0])] for name in e.file if name.endswith(needed[0])] if needed else []
    whole = [p for p in ends if all(p + name in e.file for name in needed)]
    return sorted(whole, key=lambda p: any(word in p for word in ("_k.", "momentum", "teacher", "ema", "target")))


def _starts(e: Evidence) -> str:
    starts = dict.fromkeys(name.rpartition(".layer1.")[0] or name.partition(".")[0] for name in fold(e.file))
    whole = [repr(p) for p in _prefixes(e)]
    return f"they stand there behind {' and '.join(whole)}" if whole else f"its names start with {some(starts, 4)}"


def _line(e: Evidence, checkpoint: str, prefix: str = "") -> str:
    tail = f", prefix={prefix!r}" if prefix else ""
    return f"{e.at}.init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r}{tail})"


def _count(names: Iterable[str]) -> str:
    number = len(list(names))
    return f"{number} tensor{'s' * (number != 1)}"


def _few(names: Iterable[str]) -> str:
    return some(fold(names), 3)

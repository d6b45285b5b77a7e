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
from ckptconv.methods.interface import Method, Pixels
from ckptconv.mmdetection.check.comparison import Comparison, under
from ckptconv.mmdetection.check.normalisation import Fed
from ckptconv.mmdetection.config.backbone_args import network
from ckptconv.mmdetection.hints import conversion
from ckptconv.spec import StateSpec
from ckptconv.text import fold, some

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Finding:
    """One sentence, and the lines of which any one mends it.

    ``certain``: whether the detector is proved to start otherwise; if not, it is not proved how it starts.
    """

    text: str
    mend: tuple[str, ...] = ()
    certain: bool = True


@dataclass(frozen=True)
class Evidence:
    """All that is known of one module and its file.

    ``at``: where the config says what the module is; ``kind``: its class; ``detector``: the class of the whole.
    ``wanted``: its entries; ``file``: the file's tensors where mmengine looks for them; ``elsewhere``: other places of
    the file that hold tensors.
    ``method``: what explains the file; ``converted``: whether ckptconv wrote it; ``pixels``: what it was trained with.
    ``failed``: the error of the initialisation, and ``refused`` what torch did not load it for, if that was it.
    ``loader``: the line that has our loader read it, if that can.
    ``by``: what loads it, as `compare.Site` has it. ``own_way``: whether its class loads checkpoints by code of its
    own, which may rename; ``converts``: its ``convert_weights``, if the file would fit with the other one.
    ``recorded``: what mmengine noted of each parameter's initialisation; ``changed``: hooks that changed entries, ''
    for the detector's ``train()``; ``trainers``: the user's classes that have one.
    ``loaded_over``: the config's ``load_from``. ``random``: whether what is missing starts from random numbers.
    ``fed``: what the network gets of an image; ``fed_at``: where the config says so; ``style``: where its blocks have
    their strides; ``said``: the config's node.
    """

    at: str
    kind: str
    detector: str
    checkpoint: str
    prefix: str
    by: str
    wanted: StateSpec
    file: StateSpec
    elsewhere: tuple[str, ...]
    comparison: Comparison
    method: Method | None
    converted: bool
    pixels: Pixels | None
    failed: str
    refused: tuple[str, ...]
    loader: tuple[str, ...]
    own_way: bool
    converts: bool | None
    recorded: Mapping[str, str]
    changed: Mapping[str, str]
    trainers: tuple[str, ...]
    loaded_over: str
    random: bool
    fed: Fed
    fed_at: str
    style: str
    norm_eval: bool
    said: Mapping[str, Any]


def problems(e: Evidence) -> list[Finding]:
    """Why the module does not start as the file says; nothing if it does."""
    c = e.comparison
    if e.converts is not None and (c.wrong or not c.equal):
        return [_converted_again(e), *_pixels(e)]
    if e.failed and (c.wrong or not c.equal):
        return [_not_initialised(e)]
    if c.scattered and set(c.wrong) <= {*c.scattered, *c.missing}:
        return [_scattered(e), *_pixels(e), *_strides(e)]
    if not (c.equal or c.differing or c.reshaped):
        return [_nothing_loaded(e), *_pixels(e), *_strides(e)]
    if c.way and c.wrong:
        return [_by_its_own_code(e), *_pixels(e), *_strides(e)]
    found = list(_other_network(e))
    if not found and c.missing:
        found.append(_missing(e))
    if not found and c.reshaped:
        look = f"ckptconv inspect {shell_word(e.checkpoint)}"
        found.append(Finding(f"{_count(c.reshaped)} of another shape in the file: {_few(c.reshaped)}", (look,)))
    return [*found, *_overwritten(e), *_pixels(e), *_strides(e)]


def notes(e: Evidence) -> Iterator[Finding]:
    """What is worth knowing of a module that holds its checkpoint."""
    c = e.comparison
    if c.wrong or not c.equal:
        return
    if c.way:
        yield Finding(c.way)
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
            (f"{command}, then {_line(e, target)}", *e.loader),
        )
    return Finding(f"the initialisation fails: {e.failed}", (f"ckptconv inspect {shell_word(e.checkpoint)}",))


def _converted_again(e: Evidence) -> Finding:
    """A class that renames the authors' tensors, and a file that has its names already; or the other way round."""
    whose = (
        "its names already, and convert_weights=True renames them again"
        if e.converts
        else ("its authors' names, which are renamed with convert_weights=True only")
    )
    failed = f": the initialisation fails: {e.failed}" if e.failed else ""
    return Finding(
        f"nothing was loaded: for {e.kind}, {e.checkpoint} has {whose}{failed}",
        (f"{e.at}: convert_weights={not e.converts}",),
    )


def _scattered(e: Evidence) -> Finding:
    c = e.comparison
    return Finding(
        f"not proved: {_count(c.scattered)} of {e.kind} hold numbers that {e.checkpoint} has under other names or in "
        f"another order: {_few(c.scattered)}; whether they are in their places cannot be told",
        certain=False,
    )


def _by_its_own_code(e: Evidence) -> Finding:
    c = e.comparison
    return Finding(
        f"not proved: {c.way}, and {_count(c.wrong)} of {c.total} are not found in it: {_few(c.wrong)}",
        certain=False,
    )


def _nothing_loaded(e: Evidence) -> Finding:
    """The commonest: mmengine says so in one warning line and trains from random weights."""
    if not e.file:
        where = f"; its tensors are in {some(map(repr, e.elsewhere), 4)}" if e.elsewhere else ""
        text = f"nothing was loaded: {e.checkpoint} has none under 'state_dict' and none at the top{where}"
    else:
        text = f"nothing was loaded: none of its {len(e.wanted)} names is in {e.checkpoint}; {_starts(e)}"
    if e.own_way:
        command, target = conversion(e.checkpoint, e.method)
        how = f"{command}, then {_line(e, target)}" if e.method else f"ckptconv inspect {shell_word(e.checkpoint)}"
        text = f"{e.kind} reads checkpoints by code of its own, and none of its numbers are there: {text}"
        return Finding(text, (how,))
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
            (_plainer(e),),
        )


def _plainer(e: Evidence) -> str:
    """The line that makes a ResNet of mmdet/models/backbones/resnet.py the plain one; else a look into the file."""
    said = [f"{key}=False" for key in ("deep_stem", "avg_down") if e.said.get(key)]
    if not said and e.kind.startswith("ResNetV"):
        said = ["type='ResNet'"]
    return f"{e.at}: {', '.join(said)}" if said else f"ckptconv inspect {shell_word(e.checkpoint)}"


def _missing(e: Evidence) -> Finding:
    missing = e.comparison.missing
    if all(name.endswith(_STATISTICS) for name in missing):
        return Finding(
            f"the batch-norm statistics are not in {e.checkpoint}: {_count(missing)} start from 0 and 1",
            ("Get a checkpoint with running_mean and running_var: without them its features are not those it learnt.",),
        )
    start = " and start from random numbers" if e.random else ""
    return Finding(
        f"{_count(missing)} not in {e.checkpoint}{start}: {_few(missing)}",
        (f"ckptconv inspect {shell_word(e.checkpoint)}",),
    )


def _overwritten(e: Evidence) -> Iterator[Finding]:
    differing = e.comparison.differing
    if not differing:
        return
    if e.loaded_over:
        return  # which is said of the detector
    if e.trainers and "" in e.changed.values():
        kinds = some(e.trainers, 3)
        yield Finding(
            f"loaded and then overwritten by train() of {kinds}, which a training calls before its first iteration: "
            f"{len(differing)} of {len(e.wanted)} tensors differ from {e.checkpoint}: {_few(differing)}",
            (f"Let train() of {kinds} leave the weights as they are",),
        )
        return
    if e.changed:
        hooks = some(dict.fromkeys(e.changed.values()), 3)
        yield Finding(
            f"loaded and then overwritten by the hook {hooks}: {len(differing)} of {len(e.wanted)} tensors differ from "
            f"{e.checkpoint}: {_few(differing)}",
            (f"custom_hooks: without {hooks}",),
        )
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
    if e.pixels is not None:
        found = (_fed(e, e.pixels, fed) for fed in (e.fed, *e.fed.also))
        yield from next(([one] for one in found if one), [])


def _fed(e: Evidence, wanted: Pixels, fed: Fed) -> Finding | None:
    method = e.method.name if e.method else "the checkpoint"
    right = Fed(wanted.order, wanted.mean, wanted.std)
    trained = f"{method} was trained on {_words(right)}"
    kind = "" if fed.preprocessor == "DetDataPreprocessor" else "type='DetDataPreprocessor', "
    batch = ", batch_augments=None" if fed.batch else ""
    mend = "; ".join((*dict.fromkeys(fed.without), f"{e.fed_at}: {kind}{_settings(wanted)}{batch}"))
    if fed.inside:
        mend = f"Let the code of {e.detector} and {e.kind} leave the channels as the preprocessor gives them"
    elif any(line.startswith("Give ") for line in fed.without):
        mend = next(line for line in fed.without if line.startswith("Give "))
    elif fed.unknown.startswith("the data set "):
        mend = "Let the data set take its images through its pipeline"
    if fed.unknown:
        return Finding(
            f"not proved: what the detector feeds cannot be measured ({fed.unknown}); {trained}", (mend,), certain=False
        )
    if fed.like(right):
        return None
    parts = (*fed.steps, fed.preprocessor, *(("its own code",) if fed.inside else ()))
    through = f", through {' and '.join(parts)}" if fed.steps or kind or fed.inside else ""
    return Finding(f"the detector feeds {_words(fed)}{through}; {trained}", (mend,))


def _words(fed: Fed) -> str:
    return f"{fed.order} with mean {[*fed.mean]} and std {[*fed.std]}"


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

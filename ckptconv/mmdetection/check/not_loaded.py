"""Why nothing of a file reached a module, and the lines that load it: a conversion, a prefix. Imports no torch.

FIELD reports: mmdetection #5284, #9521, #6943 (names).
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptconv.arguments import call
from ckptconv.backbones.resnet import STEP_COUNTER
from ckptconv.mmdetection.check.evidence import Finding, ModuleEvidence
from ckptconv.text import fold, some

_MOMENTUM = ("_k.", "momentum", "teacher", "ema", "target")
"""Parts of the names of a momentum copy: the other encoder is the one that was trained."""


def initialisation_failed(e: ModuleEvidence) -> Finding:
    """The initialisation of the detector ended with an error."""
    has_prefix = any(name.startswith(e.prefix) for name in e.file_specs)
    if e.own_loader and e.prefix and not has_prefix:
        return Finding(
            f"{e.class_name} loads only names that start with {e.prefix!r} (with convert_weights=True also its "
            f"authors' names); {e.checkpoint} has none of them, and the initialisation fails: {e.init_error}",
            (e.convert_fix(),),
        )
    if e.prefix and e.file_specs and not has_prefix:
        return Finding(f"no name in {e.checkpoint} starts with prefix={e.prefix!r}; {_names(e)}", tuple(_fixes(e)))
    if e.refused:
        return Finding(
            f"torch does not load {e.checkpoint}, because it holds more than tensors: {some(e.refused, 3)}",
            (e.convert_fix(), *e.loader_fix),
        )
    return Finding(f"the initialisation fails: {e.init_error}", (call("inspect", e.checkpoint),))


def wrong_convert_weights(e: ModuleEvidence) -> Finding:
    """A class that renames its authors' tensors, and a file that has its names already; or the other way round."""
    text = (
        f"{e.checkpoint} already has {e.class_name}'s names, and convert_weights=True renames them again"
        if e.convert_weights
        else f"{e.checkpoint} has the names of {e.class_name}'s authors, and only convert_weights=True renames them"
    )
    failed = f"; the initialisation fails: {e.init_error}" if e.init_error else ""
    return Finding(
        f"nothing was loaded: {text}{failed}", (f"{e.config_path}: convert_weights={not e.convert_weights}",)
    )


def nothing_loaded(e: ModuleEvidence) -> Finding:
    """The commonest: mmengine says so in one warning line and trains from random weights."""
    if not e.file_specs:
        where = f"; its tensors are under {some(map(repr, e.other_sections), 4)}" if e.other_sections else ""
        text = f"nothing was loaded: {e.checkpoint} has no tensors under 'state_dict' or at the top level{where}"
    else:
        text = f"nothing was loaded: {e.checkpoint} has none of the module's {len(e.module_specs)} names; {_names(e)}"
    if e.own_loader:
        fix = e.convert_fix() if e.method else call("inspect", e.checkpoint)
        return Finding(
            f"{e.class_name} loads checkpoints by its own code and holds no values of this one: {text}", (fix,)
        )
    return Finding(text, tuple(_fixes(e)))


def _fixes(e: ModuleEvidence) -> Iterator[str]:
    """The lines for names that do not fit: convert, or a prefix where only that is missing."""
    prefixes = _prefixes(e)
    if "" in prefixes:
        yield f"{e.init_cfg_line(e.checkpoint)}, without a prefix"
        return
    if e.method is not None and e.comparison.module_backbone is not None:
        yield e.convert_fix()
    elif not prefixes:
        yield f"{call('inspect', e.checkpoint)}, to see what it is"
    for prefix in prefixes[:1]:
        yield e.init_cfg_line(e.checkpoint, prefix)


def _prefixes(e: ModuleEvidence) -> list[str]:
    """Prefixes under which the file has every entry that is needed; a query encoder's before its momentum copy's."""
    without = e.comparison.module_only
    needed = [name for name in e.module_specs if name not in without and not name.endswith(STEP_COUNTER)]
    ends = [name[: -len(needed[0])] for name in e.file_specs if name.endswith(needed[0])] if needed else []
    whole = [prefix for prefix in ends if all(prefix + name in e.file_specs for name in needed)]
    return sorted(whole, key=lambda prefix: any(word in prefix for word in _MOMENTUM))


def _names(e: ModuleEvidence) -> str:
    """How the file's names start."""
    starts = dict.fromkeys(name.rpartition(".layer1.")[0] or name.partition(".")[0] for name in fold(e.file_specs))
    whole = [repr(prefix) for prefix in _prefixes(e)]
    if "''" in whole:
        return "its names have no prefix"
    return f"its names have the prefix {' or '.join(whole)}" if whole else f"its names start with {some(starts, 4)}"

"""What a shell offers for a half-typed word: names of the tables, of published files, and of tensors in a file.

A completion never fails and never prints: where it finds nothing, the shell offers files. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import typer

from ckptconv.backbones import TARGETS
from ckptconv.errors import CkptconvError

_MOST = 200


def _offering(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion for a word that is one of these names."""

    def complete(incomplete: str) -> list[str]:
        with contextlib.suppress(CkptconvError, OSError):
            return [name for name in names() if name.startswith(incomplete)][:_MOST]
        return []

    return complete


def _methods() -> Iterator[str]:
    from ckptconv.methods import registry

    yield registry.AUTO
    yield from _method_names()


def _method_names() -> Iterator[str]:
    from ckptconv.methods import registry

    for one in registry.methods().values():
        yield one.name
        yield from one.aliases


def _releases() -> Iterator[str]:
    from ckptconv.methods import registry

    yield from registry.releases()


def _recipes() -> Iterable[str]:
    from ckptconv.mmdetection.verify.recipes import RECIPES

    return RECIPES


def _detectors() -> Iterable[str]:
    from ckptconv.mmdetection.config.detectors import DETECTORS

    return DETECTORS


def _schedules() -> Iterable[str]:
    from ckptconv.mmdetection.config.detectors import SCHEDULES

    return SCHEDULES


def _tiers() -> Iterable[str]:
    from ckptconv.mmdetection.verify.tiers import TIERS

    return TIERS


def _or_files(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion for a word that is one of these names, or a file.

    Where no name fits, it offers nothing, and so the shell offers its files.
    """

    def complete(incomplete: str) -> list[str]:
        found = _offering(names)(incomplete) if incomplete else []
        if not found:
            return []
        with contextlib.suppress(OSError):
            found += sorted(p.name for p in Path().iterdir() if p.name.startswith(incomplete))
        return found

    return complete


def keys(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the tensors in the file that the words before it name, if that file is on this machine."""
    from ckptconv.formats import open_checkpoint

    source = context.params.get("source")
    with contextlib.suppress(CkptconvError, OSError, ValueError):
        if isinstance(source, str) and Path(source).is_file():
            with open_checkpoint(Path(source)) as checkpoint:
                names = {name: None for section in checkpoint.sections.values() for name in section.tensors}
            return [name for name in names if name.startswith(incomplete) and name.isprintable()][:_MOST]
    return []


methods = _offering(_methods)
method_names = _offering(_method_names)
targets = _offering(lambda: TARGETS)
detectors = _offering(_detectors)
schedules = _offering(_schedules)
tiers = _offering(_tiers)
sources = _or_files(_releases)
configs = _or_files(_recipes)

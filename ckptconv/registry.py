"""Look-up of methods by name, over the built-in table, other packages' entry points and the caller's own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ckptconv.errors import EnvironmentMissingError, UsageError, unknown
from ckptconv.methods import METHODS
from ckptconv.methods.interface import Method, Release

GROUP = "ckptconv.methods"
"""Entry points of this group name a Method, or an iterable of them."""


def _is_offered() -> bool:
    """Whether any installed package has our entry point group: a look at a few small files.

    `importlib.metadata` answers the same, but importing it costs more than all the planning of a conversion.
    """
    wanted = f"[{GROUP}]".encode()
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    with contextlib.suppress(OSError):
                        if wanted in Path(entry, "entry_points.txt").read_bytes():
                            return True
    return False


def _from_entry_points() -> dict[str, Method]:
    if not _is_offered():
        return {}
    from importlib.metadata import entry_points

    found: dict[str, Method] = {}
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else entry.value
        try:
            loaded = entry.load()
            methods = (loaded,) if isinstance(loaded, Method) else tuple(loaded)
        except Exception as error:  # whatever another package does wrong, its name must be said
            raise EnvironmentMissingError(
                f"the method '{entry.name}' of the package {package} cannot be loaded: {error}",
                f"Mend or remove that package: pip uninstall {package}",
            ) from error
        for method in methods:
            if not isinstance(method, Method):
                raise EnvironmentMissingError(
                    f"the entry point '{entry.name}' of the package {package} holds no ckptconv Method",
                    f"Mend or remove that package: pip uninstall {package}",
                )
            found[method.name] = method
    return found


def methods(extra: Iterable[Method] = ()) -> Mapping[str, Method]:
    """Every method by name: the caller's own, then built-in ones, then other packages'."""
    known = _own(extra)
    known.update((m.name, m) for m in METHODS)
    for name, found in _from_entry_points().items():
        known.setdefault(name, found)
    return known


def method(name: str, extra: Iterable[Method] = ()) -> Method:
    """The method of this name. Raises UsageError with the nearest names if there is none."""
    for table in (_own(extra), {m.name: m for m in METHODS}):
        if name in table:
            return table[name]
    known = methods(extra)
    if name in known:
        return known[name]
    raise unknown("method", name, ["auto", *known])


def _own(extra: Iterable[Method]) -> dict[str, Method]:
    own = {m.name: m for m in extra}
    for taken in METHODS:
        if taken.name in own:
            raise UsageError(f"the name '{taken.name}' is a built-in method's", "Give your own method another name.")
    return own


def releases(extra: Iterable[Method] = ()) -> dict[str, tuple[Method, Release]]:
    """Every file that a method's authors published, by name, with the method."""
    return {release.name: (method, release) for method in methods(extra).values() for release in method.releases}

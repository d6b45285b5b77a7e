"""Look-up of methods by name, over the built-in table, other packages' entry points and the caller's own."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from ckptconv.errors import PluginWarning, UsageError, printable, unknown
from ckptconv.fields import folded
from ckptconv.methods import METHODS
from ckptconv.methods.interface import Method, Published, Release

GROUP = "ckptconv.methods"
"""Entry points of this group name a Method, or an iterable of them."""

AUTO = "auto"
"""The name that asks for the method to be found."""

_BUILT_IN = {m.name: m for m in METHODS}


def _is_offered(path: Iterable[str]) -> bool:
    """Whether any package in these folders has our entry point group. It reads a few small files.

    `importlib.metadata` gives the same answer, but its import takes longer than planning a conversion.
    """
    wanted = f"[{GROUP}]".encode()
    for folder in path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    with contextlib.suppress(OSError):
                        if wanted in Path(entry, "entry_points.txt").read_bytes():
                            return True
    return False


@cache
def _from_entry_points(path: tuple[str, ...]) -> dict[str, Method]:
    """The methods of packages on Python's path, by name. A problem with one is a warning, given once."""
    if not _is_offered(path):
        return {}
    from importlib.metadata import entry_points

    loaded: dict[str, Method] = {}
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else entry.value
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a package may print during its import
                value = entry.load()
                methods = (value,) if isinstance(value, Method) else tuple(value)
        except (Exception, SystemExit) as error:
            _warn(f"the method '{entry.name}' of the package {package} cannot be loaded: {error}", package)
            continue
        for method in methods:
            if not isinstance(method, Method):
                _warn(f"the entry point '{entry.name}' of the package {package} is not a ckptconv Method", package)
            elif method.name in loaded or method.name in _BUILT_IN:
                _warn(f"the method '{method.name}' of the package {package} is left out: the name is taken", package)
            else:
                loaded[method.name] = method
    return loaded


def _warn(what: str, package: str) -> None:
    text = f"{printable(what)}\nRepair or remove that package: pip uninstall {package}"
    warnings.warn(text, PluginWarning, stacklevel=2)


def methods(extra: Iterable[Method] = ()) -> Mapping[str, Method]:
    """Every method by name: the caller's own, then built-in ones, then other packages'."""
    known = _own(extra)
    known.update(_BUILT_IN)
    for name, method in _from_entry_points(tuple(sys.path)).items():
        known.setdefault(name, method)
    return known


def is_auto(name: object) -> bool:
    """Whether a name, in any spelling, is `auto`."""
    return isinstance(name, str) and folded(name) == AUTO


def named(name: str, extra: Iterable[Method] = ()) -> tuple[Method, ...]:
    """The methods of a name or an alias, nearly always one.

    Case, hyphens, underscores, spaces and dots do not matter, and a method's own name comes before an alias.
    Raises UsageError with the nearest names if there is none.
    """
    for table in (_own(extra), _BUILT_IN):
        if name in table:
            return (table[name],)
    known, wanted = methods(extra), folded(name)
    own = tuple(m for m in known.values() if wanted == folded(m.name))
    matching = own or tuple(m for m in known.values() if wanted in map(folded, m.aliases))
    if not wanted or not matching:
        aliases = [alias for m in known.values() for alias in m.aliases]
        raise unknown("method", name, [AUTO, *known], aliases)
    return matching


def _own(extra: Iterable[Method]) -> dict[str, Method]:
    own = {m.name: m for m in extra}
    for name in own:
        if name in _BUILT_IN:
            raise UsageError(f"the name '{name}' is a built-in method's", "Give your own method another name.")
    return own


@cache
def _table_of_releases() -> str:
    return Path(__file__).with_name("releases.toml").read_text(encoding="utf-8")


def releases_ending(end: str, extra: Iterable[Method] = ()) -> list[Release]:
    """The releases whose addresses end so.

    The table of the built-in ones is read as text, and parsed only if it has such a line: parsing takes about 50 ms.
    """
    built_in = f'{end}"' in _table_of_releases()
    known = (m for m in methods(extra).values() if built_in or not isinstance(m.releases, Published))
    return [r for m in known for r in m.releases if r.url.endswith(end)]


def releases(extra: Iterable[Method] = ()) -> dict[str, tuple[Method, Release]]:
    """Every file that a method's authors published, by name, with the method."""
    return {release.name: (method, release) for method in methods(extra).values() for release in method.releases}

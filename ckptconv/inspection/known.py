"""What is known without a file: the methods and their published files, by name."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase

from ckptconv.conversion.convert import PathLike, options_of
from ckptconv.errors import UsageError, VerdictError, printable
from ckptconv.fields import folded
from ckptconv.methods import FAMILIES
from ckptconv.methods.interface import Method, Release
from ckptconv.methods.registry import methods, named, releases


def known_methods(rules: PathLike | None = None) -> list[Method]:
    """Every method: of a rule file, if one is given, built in, and of other packages."""
    return list(methods(options_of(None, rules).methods).values())


def known_releases(pattern: str = "", rules: PathLike | None = None) -> list[tuple[Method, Release]]:
    """Every release with its method, or those that a shell pattern fits, or a part of a name, method or network.

    Raises VerdictError, with the nearest names, if there is none.
    """
    own = options_of(None, rules).methods
    glob = bool(set(pattern) & set("*?["))
    wanted = pattern.lower() if glob else f"*{folded(pattern)}*"
    every = list(releases(own).values())

    def fits(*names: str) -> bool:
        return any(fnmatchcase(text, wanted) for text in map(str.lower if glob else folded, names))

    found = [(one, file) for one, file in every if fits(file.name, one.name, file.backbone)]
    found = found or [(one, file) for one, file in every if fits(*one.aliases)]
    if not found:
        words = {word for one, release in every for word in (release.name, one.name, *one.aliases)}
        near = get_close_matches(pattern.lower(), sorted(words), 3)
        raise VerdictError(
            f"no release fits '{printable(pattern)}'",
            f"Did you mean {' or '.join(near)}?" if near else "See all of them: ckptconv releases",
        )
    return found


def known_method(name: str, rules: PathLike | None = None) -> tuple[Method, ...]:
    """The method of this name, or those of an alias. Raises UsageError with the nearest names if there is none."""
    return named(name, options_of(None, rules).methods)


def methods_about(word: str, rules: PathLike | None = None) -> tuple[Method, ...]:
    """The method of this name or alias, or else those that have the word in a name, their title, network or family.

    Raises UsageError with the nearest names if there is none.
    """
    own = options_of(None, rules).methods
    try:
        return named(word, own)
    except UsageError:
        wanted = folded(word)
        family_of = {method.name: title for title, members in FAMILIES.items() for method in members}
        found = tuple(
            method
            for method in methods(own).values()
            if wanted
            and any(
                wanted in folded(text)
                for text in (
                    method.name,
                    *method.aliases,
                    method.title,
                    *method.networks,
                    family_of.get(method.name, ""),
                )
            )
        )
        if not found:
            raise
        return found

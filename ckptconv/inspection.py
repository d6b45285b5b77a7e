"""Questions one can ask of a file without converting it: what is inside, what becomes of a name, what is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ckptconv.arguments import call
from ckptconv.backbones import TargetName
from ckptconv.conversion.convert import MethodLike, PathLike, naming_files, options_of, wanted_method
from ckptconv.conversion.provenance import licence_of
from ckptconv.errors import UsageError, VerdictError, printable
from ckptconv.fields import folded
from ckptconv.formats import open_checkpoint
from ckptconv.methods.interface import Licence, Method, Release
from ckptconv.methods.registry import methods, named, releases
from ckptconv.planning.copies import Copy, copies
from ckptconv.planning.identify import explaining, nearest
from ckptconv.planning.networks_elsewhere import Alternative, find_alternatives
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner
from ckptconv.planning.problem_texts import text_of
from ckptconv.planning.refusals import known_unsupported
from ckptconv.sections import BELOW, section_at
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.spec import Section, TensorSpec
from ckptconv.text import fold, section_label


@dataclass(frozen=True)
class Fit:
    """How well a method explains a file: completely, or with how many problems, the first of which is shown.

    ``guess`` is False for a method that is found by name only, ``backbone`` the network that is kept, '' for none.
    ``unusual`` says that no published network of its width is so deep; '' where one is.
    """

    method: str
    layout: str
    section: str
    complete: bool
    problems: int
    first: str
    backbone: str
    guess: bool
    unusual: str


def _fit(found: Method, plan: Plan) -> Fit:
    return Fit(
        method=found.name,
        layout=plan.layout,
        section=plan.section,
        complete=plan.complete,
        problems=len(plan.problems),
        first=text_of(plan.problems[0]) if plan.problems else "",
        backbone=plan.backbone.name if plan.backbone else "",
        guess=found.guess,
        unusual=plan.backbone.unusual if plan.backbone else "",
    )


@dataclass(frozen=True)
class Inspection:
    """What a file holds: sections with tensors and other values, what its pickle names; methods, the best fit first.

    ``unreadable`` says what those of ``others`` are that stand for tensors and cannot be read. ``unsupported`` says
    which network it is if no target supports it. ``copies`` are other places with the network of the best fit;
    ``alternatives`` lead to networks in other sections and under prefixes, where nothing fits. ``licence`` is that of
    the weights: of a release, or as a file that `convert` wrote says it; None where it is not known.
    """

    path: str
    format: str
    size: int
    sections: Mapping[str, Mapping[str, TensorSpec]]
    others: Mapping[str, Mapping[str, str]]
    unreadable: Mapping[str, Mapping[str, str]]
    named: tuple[str, ...]
    metadata: Mapping[str, str]
    fits: tuple[Fit, ...]
    unsupported: str
    transfers: tuple[Transfer, ...] = ()
    copies: tuple[Copy, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    licence: Licence | None = None


def inspect(
    source: PathLike,
    *,
    options: Options | None = None,
    drop: Iterable[str] | None = None,
    strip_prefix: str | None = None,
    section: str | None = None,
    target: TargetName | None = None,
    rules: PathLike | None = None,
    channels: Sequence[int] | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    dtype: str | None = None,
    fetching: Fetching | None = None,
) -> Inspection:
    """Look into a checkpoint without loading it; the parameters are those of `convert`, for the methods that are tried.

    Raises UnreadableError for a file that is not a checkpoint.
    """
    options = options_of(
        options,
        rules,
        drop=drop,
        strip_prefix=strip_prefix,
        section=section,
        target=target,
        channels=channels,
        image_size=image_size,
        patch_size=patch_size,
        dtype=dtype,
    )
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        known = list(methods(options.methods).values())
        planner = Planner(checkpoint.sections, options)
        ranked = planner.rank([m for m in known if m.guess])
        fits = [_fit(m, p) for m, p in ranked]
        best = ranked[0][1] if fits and fits[0].complete else None
        sections = _as_explained(checkpoint.sections, [fit.section for fit in fits if fit.complete])
        return Inspection(
            path=found.label,
            format=checkpoint.format,
            size=checkpoint.size,
            sections={path: section.tensors for path, section in sections.items()},
            others={path: section.others for path, section in sections.items()},
            unreadable={
                path: {name: one.what for name, one in section.unreadable.items()} for path, section in sections.items()
            },
            named=checkpoint.named,
            metadata=checkpoint.metadata,
            fits=tuple(fits),
            unsupported=known_unsupported(checkpoint.sections),
            transfers=checkpoint.transfers,
            copies=copies(planner, best, known) if best else (),
            alternatives=() if best else find_alternatives(planner, known),
            licence=found.release.terms if found.release else licence_of(checkpoint),
        )


def _as_explained(sections: Mapping[str, Section], explained: Iterable[str]) -> Mapping[str, Section]:
    """The sections, with one for all that lie below a path where a method takes them so."""
    for path in explained:
        if path.endswith(BELOW) and (whole := section_at(sections, path)) is not None:
            root = path.removesuffix(BELOW)
            outside = {p: s for p, s in sections.items() if root and p != root and not p.startswith(f"{root}.")}
            return {**outside, path: whole}
    return sections


@dataclass(frozen=True)
class FittingMethods:
    """The methods whose rules explain a file, those that may be guessed first."""

    path: str
    format: str
    size: int
    fits: tuple[Fit, ...]
    transfers: tuple[Transfer, ...] = ()


def fitting(source: PathLike, *, rules: PathLike | None = None, fetching: Fetching | None = None) -> FittingMethods:
    """Which methods explain a file, those included that `auto` never guesses. Reads names and shapes only.

    Raises UnidentifiedError, with the nearest method and what it leaves, if none does.
    """
    options = options_of(None, rules)
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        known = list(methods(options.methods).values())
        fits = tuple(_fit(m, p) for m, p in explaining(checkpoint.sections, known, options))
        return FittingMethods(found.label, checkpoint.format, checkpoint.size, fits, checkpoint.transfers)


@dataclass(frozen=True)
class Explanation:
    """What happens to one key: its ``fate`` ('kept', 'dropped' or 'unexplained'), the rule, and why.

    The rule is about the name without ``prefix``, which wraps every name of the section.
    """

    key: str
    spec: TensorSpec | None
    method: str
    section: str
    prefix: str
    fate: str
    target: str
    rule: str
    why: str


def explain(
    source: PathLike,
    key: str,
    method: MethodLike = "auto",
    *,
    options: Options | None = None,
    drop: Iterable[str] | None = None,
    strip_prefix: str | None = None,
    section: str | None = None,
    target: TargetName | None = None,
    rules: PathLike | None = None,
    channels: Sequence[int] | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    dtype: str | None = None,
    fetching: Fetching | None = None,
) -> Explanation:
    """Which rule takes a key and where it goes, in the plan that `convert` would follow, complete or not.

    Raises UsageError, with the nearest names, for a key that the section does not hold.
    """
    options = options_of(
        options,
        rules,
        drop=drop,
        strip_prefix=strip_prefix,
        section=section,
        target=target,
        channels=channels,
        image_size=image_size,
        patch_size=patch_size,
        dtype=dtype,
    )
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        match = nearest(checkpoint.sections, wanted_method(method, options, found), options)
        where = section_at(checkpoint.sections, match.plan.section)
    assert where is not None
    about = {
        "key": key,
        "method": match.method.name,
        "section": match.plan.section,
        "prefix": match.plan.prefix,
    }
    problem = next((text_of(p) for p in match.plan.problems if p.key == key), "")
    for move in match.plan.moves:
        if key in move.sources:
            why = problem or (f"changed by {move.op}" if move.op else "only its name changes")
            if move.sources == (move.target,) and not move.op:
                why = problem or "it stays as it is"
            fate = "unexplained" if problem else "kept"
            return Explanation(
                **about, spec=where.tensors[key], fate=fate, target=move.target, rule=str(move.rule), why=why
            )
    for gone in match.plan.dropped:
        if gone.source == key:
            spec = where.tensors.get(key)
            return Explanation(
                **about, spec=spec, fate="dropped", target="", rule=str(gone.rule) if gone.rule else "", why=gone.why
            )
    if key in where.tensors or problem:
        return Explanation(**about, spec=where.tensors.get(key), fate="unexplained", target="", rule="", why=problem)
    near = get_close_matches(key, [*where.tensors, *where.others], 3)
    error = UsageError(
        f"{section_label(match.plan.section)} holds no {key}",
        f"Did you mean {' or '.join(map(printable, near))}?" if near else f"See the names: {call('inspect', 'SRC')}",
    )
    with naming_files(found):
        raise error


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


def dropped_by_reason(settled: Plan) -> dict[str, list[str]]:
    """What a plan leaves out, by reason, each with its names folded."""
    reasons: dict[str, list[str]] = {}
    for gone in settled.dropped:
        reasons.setdefault(gone.why, []).append(gone.source)
    return {why: list(fold(names)) for why, names in reasons.items()}

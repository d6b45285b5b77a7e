"""Prints methods: the table, one method in full, one as a rule file, and those that explain a file."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from ckptconv.backbones.interface import PositionResampling
from ckptconv.cli import render, render_sources
from ckptconv.errors import UsageError
from ckptconv.inspection import FittingMethods
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import Drop, Fuse, Keep, Rule, Split
from ckptconv.sections import BELOW
from ckptconv.text import fold, section_label, size

if TYPE_CHECKING:
    from ckptconv.mmdetection.verify.recipes import Recipe

_WIDTH = 80
_NEVER_GUESSED = "* never guessed by auto: ask for it with --selfsup\n"


def methods(known: Iterable[Method], as_json: bool) -> None:
    """A few lines per method, as wide as the terminal, or 80 columns without one."""
    known = list(known)
    if as_json:
        render.dump("methods", {"methods": [_data(m, ()) for m in known]})
        return
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if render.is_terminal(sys.stdout) else _WIDTH
    margin = 2 + max(len(m.name) + (not m.guess) for m in known)
    for m in known:
        name = m.name if m.guess else f"{m.name}*"
        for i, line in enumerate([*_wrapped(m.title, width - margin), *_wrapped(_summary(m), width - margin)]):
            render.row("" if i else name, line, margin - 1)
    if not all(m.guess for m in known):
        render.text(_NEVER_GUESSED)
    render.text("One in full, with its paper, rules and files: ckptconv methods NAME\n")


def named(selected: Sequence[Method], published: Iterable[Recipe], as_json: bool) -> None:
    """The methods of a name: one in full, or a list of those that share an alias."""
    published = list(published)
    rows = {m.name: [r for r in published if r.method == m.name] for m in selected}
    if as_json:
        render.dump("methods", {"methods": [_data(m, rows[m.name]) for m in selected]})
    elif len(selected) > 1:
        methods(selected, as_json)
    else:
        _method(selected[0], rows[selected[0].name])


def rule_file(selected: Sequence[Method]) -> None:
    """A method as a rule file. Raises UsageError for an alias of several."""
    from ckptconv.methods import rule_file

    if len(selected) > 1:
        names = [m.name for m in selected]
        raise UsageError(
            f"several methods have that name: {', '.join(names)}", f"Name one: ckptconv methods {names[0]} --toml"
        )
    render.text(rule_file.template(selected[0]))


def _method(m: Method, published: Iterable[Recipe]) -> None:
    """Everything in the table about one method, and its published rows."""
    render.row("method", f"{m.name}: {m.title}" + ("" if m.guess else " (never guessed by auto)"))
    if m.aliases:
        render.row("aliases", ", ".join(m.aliases))
    if m.paper:
        render.row("paper", m.paper)
    if m.repository:
        render.row("code", f"https://github.com/{m.repository}")
    render.row("networks", ", ".join(networks(m)) or "all")
    for layout in m.layouts:
        render.row("layout", f"{layout.title}, from {_sections(layout)}")
        for line in _kept(layout.rules):
            render.row("  keeps", line)
        for why, names in _dropped(layout.rules).items():
            render.row("  drops", f"{why}: {', '.join(names)}")
    if m.pixels:
        mean, std = (" ".join(f"{n:g}" for n in three) for three in (m.pixels.mean, m.pixels.std))
        render.row("pixels", f"{m.pixels.order}, mean {mean}, std {std}, on the scale 0 to 255")
    else:
        render.row("pixels", "unknown: the names do not tell how the network was trained")
    for key, resampling in (
        ("positions", m.position_resampling),
        ("", m.position_resampling_with_registers),
    ):
        if resampling is not None:
            render.row(key, f"{_resized(resampling)}{', with registers' * (not key)}")
    if m.norm is not None:
        render.row("map", f"{'after' if m.norm else 'before'} the last norm, in the detector of a plain transformer")
    for i, release in enumerate(m.releases):
        digest = f", MD5 {release.md5}" if release.md5 else ""
        digest = digest or (f", SHA-256 {release.sha256}" if release.sha256 else "")
        login = f", after a login only: {release.login}" if release.login else ""
        render.row("" if i else "files", f"{release.name}{digest}: {release.url}{login}")
    for i, (licence, files) in enumerate(_licences(m)):
        of = "" if files == len(m.releases) else f", of {render.count(files, 'file')}"
        render.row("" if i else "licence", f"{licence}{of}")
    for i, row in enumerate(published):
        compared = "" if row.digest else "; measured with another framework"
        render.row("" if i else "COCO AP", f"box {row.box:g}, mask {row.mask:g}: {row.title} ({row.source}{compared})")


def _resized(how: PositionResampling) -> str:
    """How positions are resized, in words."""
    parts = [
        f"{how.mode}, {'with' if how.antialias else 'without'} antialias",
        "corners aligned" * how.align_corners,
        f"offset {how.offset:g}" * bool(how.offset),
        "to a square that is cut" * how.square,
    ]
    return f"resized for other images: {', '.join(filter(None, parts))}"


def _licences(m: Method) -> Iterable[tuple[str, int]]:
    """The licences of the weights with their sources, and the number of files of each."""
    for licence, files in Counter(release.terms for release in m.releases).items():
        if licence is None:
            yield "not stated for the weights", files
        else:
            yield f"{licence} ({licence.url})" if licence.url else str(licence), files


def fitting(fitted: FittingMethods, as_json: bool) -> None:
    """The methods that explain a file, one per line."""
    if as_json:
        data = {
            "path": fitted.path,
            "format": fitted.format,
            "bytes": fitted.size,
            "fetched": [vars(transfer) for transfer in fitted.transfers],
            "fits": [vars(fit) for fit in fitted.fits],
        }
        render.dump("methods", data)
        return
    render.row("file", f"{fitted.path} ({fitted.format}, {size(fitted.size)})")
    render_sources.fetched(fitted.transfers)
    for i, fit in enumerate(fitted.fits):
        name = fit.method if fit.guess else f"{fit.method}*"
        render.row("" if i else "fits", f"{name}: {fit.backbone}, from {section_label(fit.section)} ({fit.layout})")
    for unusual in dict.fromkeys(fit.unusual for fit in fitted.fits if fit.unusual):
        render.row("unusual", unusual)
    if not all(fit.guess for fit in fitted.fits):
        render.text(_NEVER_GUESSED)


def networks(m: Method) -> tuple[str, ...]:
    """The network families of a method's layouts; () is all."""
    if any(not layout.families for layout in m.layouts):
        return ()
    return tuple(dict.fromkeys(family for layout in m.layouts for family in layout.families))


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def _summary(m: Method) -> str:
    rules = [rule for layout in m.layouts for rule in layout.rules]
    keeps = fold(str(s) for r in rules if not isinstance(r, Drop) for s in r.sources)
    drops = list(dict.fromkeys(r.why for r in rules if isinstance(r, Drop)))
    parts = [
        ", ".join(networks(m)),
        f"{len(m.releases)} file{'s' * (len(m.releases) != 1)}" if m.releases else "",
        f"keeps {_few(list(keeps))}",
        f"drops {_few(drops)}" if drops else "drops nothing",
    ]
    return "; ".join(filter(None, parts))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")


def _sections(layout: Layout) -> str:
    def shown(path: str) -> str:
        if not path.endswith(BELOW):
            return section_label(path)
        root = path.removesuffix(BELOW)
        return f"everything below {section_label(root)}" if root else "the whole file"

    return " or ".join(map(shown, layout.sections))


def _kept(rules: Iterable[Rule]) -> list[str]:
    """What is kept under which name, and how it is changed. Rules that differ only in numbers are one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for rule in rules:
        if not isinstance(rule, Drop):
            targets = rule.kept if isinstance(rule, Split) else (rule.target,)
            text = f"{' + '.join(map(str, rule.sources))} -> {' + '.join(map(str, targets))}"
            by = f" by {', '.join(map(str, rule.by))}" if isinstance(rule, Keep) and rule.by else ""
            groups.setdefault((next(iter(fold([text, text]))), f"{_change(rule)}{by}"), []).append(text)
    return [
        (texts[0] if len(texts) == 1 else f"{folded}, {len(texts)} rules") + (f"; {op}" if op else "")
        for (folded, op), texts in groups.items()
    ]


def _change(rule: Keep | Fuse | Split) -> str:
    """How the tensors are changed; '' if only the name is."""
    if isinstance(rule, Split):
        return f"split(axis={rule.axis})" + (f", without {rule.why}" if rule.why else "")
    return str(rule.op or "")


def _dropped(rules: Iterable[Rule]) -> Mapping[str, Sequence[str]]:
    """The dropped patterns by reason."""
    reasons: dict[str, list[str]] = {}
    for rule in rules:
        if isinstance(rule, Drop):
            reasons.setdefault(rule.why, []).append(str(rule.source))
    return reasons


def _data(m: Method, published: Iterable[Recipe]) -> dict[str, object]:
    data: dict[str, object] = {
        "name": m.name,
        "title": m.title,
        "aliases": list(m.aliases),
        "paper": m.paper,
        "repository": m.repository,
        "guess": m.guess,
        "networks": list(networks(m)),
        "pixels": vars(m.pixels) if m.pixels else None,
        "position_resampling": vars(m.position_resampling) if m.position_resampling else None,
        "position_resampling_with_registers": (
            vars(m.position_resampling_with_registers) if m.position_resampling_with_registers else None
        ),
        "norm": m.norm,
        "layouts": [
            {
                "title": layout.title,
                "sections": list(layout.sections),
                "families": list(layout.families),
                "rules": [str(r) for r in layout.rules],
                "drops": {str(r.source): r.why for r in layout.rules if isinstance(r, Drop)},
            }
            for layout in m.layouts
        ],
        "releases": [vars(r) for r in m.releases],
    }
    rows = [
        {"recipe": r.name, "title": r.title, "box": r.box, "mask": r.mask, "source": r.source, "digest": r.digest}
        for r in published
    ]
    return {**data, "published": rows} if rows else data

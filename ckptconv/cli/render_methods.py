"""Prints methods: the table, one method in full, one as a rule file, and those that explain a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckptconv.backbones.interface import PositionResampling
from ckptconv.cli import render, render_sources
from ckptconv.errors import UsageError
from ckptconv.inspection import FittingMethods
from ckptconv.methods import FAMILIES
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import Drop, Fuse, Keep, Rule, Split
from ckptconv.sections import BELOW
from ckptconv.text import fold, section_label, size

if TYPE_CHECKING:
    from ckptconv.mmdetection.verify.recipes import Recipe

_NETWORKS = 23
"""The width of the column of networks, in characters."""
_NEVER_GUESSED = "* never guessed by auto: ask for it with --selfsup\n"


def methods(known: Iterable[Method], as_json: bool) -> None:
    """A line per method under the title of its family: name, title, networks, number of files."""
    known = list(known)
    if as_json:
        render.dump("methods", {"methods": [_data(m, ()) for m in known]})
        return
    from rich.table import Column, Table

    name = max(len(m.name) + (not m.guess) for m in known)
    for title, members in _by_family(known):
        render.heading(title)
        table = Table(
            Column(width=name, no_wrap=True),
            Column(ratio=1),
            Column(width=_NETWORKS, no_wrap=True),
            Column(width=len("29 files"), justify="right", no_wrap=True),
            box=None,
            show_header=False,
            expand=True,
            padding=(0, 0, 0, 2),
        )
        rows = ((m.name if m.guess else f"{m.name}*", m.title, _in_brief(m.networks), _files(m)) for m in members)
        render.table(table, rows)
    if not all(m.guess for m in known):
        render.text(_NEVER_GUESSED)
    render.text("One in full: ckptconv methods NAME. Those about a word: ckptconv methods WORD\n")


def _in_brief(networks: Sequence[str]) -> str:
    """As many networks as a line has room for, and how many more there are."""
    if not networks:
        return "any"
    for shown in range(len(networks), 0, -1):
        more = f" +{len(networks) - shown}" if shown < len(networks) else ""
        text = f"{', '.join(networks[:shown])}{more}"
        if len(text) <= _NETWORKS:
            break
    return text


def _by_family(known: Iterable[Method]) -> Iterator[tuple[str, list[Method]]]:
    """Families with those of the methods that belong to them, and what is built into no family last."""
    rest = {m.name: m for m in known}
    for title, members in FAMILIES.items():
        if there := [rest.pop(m.name) for m in members if m.name in rest]:
            yield title, there
    if rest:
        yield "Your own, and other packages'", list(rest.values())


def _files(m: Method) -> str:
    return render.count(len(m.releases), "file") if m.releases else ""


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
    render.row("networks", ", ".join(m.networks) or "any")
    for i, (licence, files) in enumerate(_licences(m)):
        of = "" if files == len(m.releases) else f", of {render.count(files, 'file')}"
        render.row("" if i else "licence", f"{licence}{of}")
    asked = f"--selfsup {m.name} " * (not m.guess)
    render.row("convert", f"ckptconv convert {asked}SRC DST")
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
    for layout in m.layouts:
        render.row("layout", f"{layout.title}, from {_sections(layout)}")
        for line in _kept(layout.rules):
            render.row("  keeps", line)
        for why, names in _dropped(layout.rules).items():
            render.row("  drops", f"{why}: {', '.join(names)}")
    for i, release in enumerate(m.releases):
        digest = f", MD5 {release.md5}" if release.md5 else ""
        digest = digest or (f", SHA-256 {release.sha256}" if release.sha256 else "")
        login = f", after a login only: {release.login}" if release.login else ""
        render.row("" if i else "files", f"{release.name}{digest}: {release.url}{login}")
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
        "networks": list(m.networks),
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

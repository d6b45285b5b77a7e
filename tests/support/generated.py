"""The parts of the guide that are made from the package: its tables, and the API.

`python -m tests.support.generated` makes them again.
"""

from __future__ import annotations

from collections.abc import Iterable

from ckptconv.backbones import FAMILIES
from ckptconv.guide import topic
from ckptconv.methods import METHODS
from ckptconv.methods.interface import Release
from tests.support.markers import inserted
from tests.support.reference import reference


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def methods() -> str:
    """What `--selfsup` takes, whose it is, for which networks, and how many files are published."""
    rows = (
        (
            f"`{m.name}`" + ("" if m.guess else " \\*"),
            f"[{m.title}]({m.paper})" if m.paper else m.title,
            f"[{m.repository}](https://github.com/{m.repository})" if m.repository else "",
            ", ".join(m.networks) or "all",
            str(len(m.releases) or ""),
        )
        for m in METHODS
    )
    return _table(("`--selfsup`", "what", "code", "networks", "files"), rows)


def releases() -> str:
    """The files that authors published: their names as sources, networks, digests, and the weights' licence."""
    rows = (
        (
            f"[`{r.name}`]({r.login or r.url}){' (login)' * bool(r.login)}",
            f"`{m.name}`",
            r.backbone,
            _digest(r),
            _licence(r),
        )
        for m in METHODS
        for r in m.releases
    )
    return _table(("release", "method", "backbone", "published", "licence"), rows)


def _digest(release: Release) -> str:
    return f"sha256 {release.sha256[:12]}" if release.sha256 else f"md5 {release.md5[:12]}" if release.md5 else ""


def _licence(release: Release) -> str:
    terms = release.terms
    if terms is None:
        return "not known"
    return f"[{terms.name}]({terms.url}){f', {terms.restrictions}' * bool(terms.restrictions)}"


def targets() -> str:
    """Whose names each family can be written in; the usual one first."""
    rows = ((f.name, f"`{f.targets[0]}`", ", ".join(f"`{t}`" for t in f.targets[1:])) for f in FAMILIES.values())
    return _table(("network", "default", "also"), rows)


PARTS = {
    "methods": {"methods": methods, "releases": releases},
    "targets": {"targets": targets},
    "python-api": {"api": reference},
}
"""By page, what stands between which markers."""


def updated(page: str) -> str:
    """A page's text with what is made from the package as it is now."""
    text = topic(page).text()
    for name, make in PARTS[page].items():
        text = inserted(text, name, make())
    return text


def main() -> None:
    for page in PARTS:
        topic(page).path.write_text(updated(page), encoding="utf-8")


if __name__ == "__main__":
    main()

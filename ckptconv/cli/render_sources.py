"""Prints releases, their licences, fetched files, and the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ckptconv.cli import render
from ckptconv.methods.interface import Licence, Method, Release
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.sources.published import digest_of
from ckptconv.text import size

if TYPE_CHECKING:
    from ckptconv.sources.cache import CacheEntry

_MANY_FETCHED = 4 << 20


@contextlib.contextmanager
def fetching(whole: bool, cache_dir: Path | None) -> Iterator[Fetching]:
    """The options of a fetch, with a progress bar on a terminal."""
    with render.progress(_MANY_FETCHED) as show:
        yield Fetching(whole, cache_dir, partial(show, "fetching") if show else None)


def fetched(transfers: Iterable[Transfer], checksums: int | None = None) -> None:
    """How files were fetched and what was verified of them, a line each."""
    for moved in transfers:
        if not moved.requests:
            how = f"nothing: it is in the cache, from {moved.address}"
        else:
            what = (
                size(moved.fetched) if moved.fetched >= moved.size else f"{size(moved.fetched)} of {size(moved.size)}"
            )
            how = f"{what} in {render.count(moved.requests, 'request')} from {moved.address}"
        render.row("fetched", how)
        state = moved.version.partition(" ")[0]
        checked = ["size", f"{state} unchanged"] if state else ["size"]
        if checksums:
            checked.append(render.count(checksums, "checksum"))
        if moved.hash_checked:
            checked.append(f"the published {moved.published}")
        render.row("verified", ", ".join(checked))
        if moved.published and not moved.hash_checked:
            render.row(
                "", f"not the published {moved.published}, which is of the whole file: --whole fetches and checks it"
            )


def licence(known: Licence | None, published: bool = False) -> None:
    """The licence of the weights, and what it forbids. Of a file that nobody published, nothing is known and said."""
    if known is not None:
        render.row("licence", f"{known} ({known.url})" if known.url else str(known))
    elif published:
        render.row("licence", "not known: its authors state none for the weights")


def licence_data(known: Licence | None) -> dict[str, str] | None:
    return dict(vars(known)) if known else None


def releases(known: Iterable[tuple[Method, Release]], as_json: bool) -> None:
    known = list(known)
    if as_json:
        render.dump("releases", {"releases": [{**vars(release), "method": method.name} for method, release in known]})
        return
    from rich.table import Column, Table

    name = Column("release", no_wrap=True, overflow="ignore")  # never shortened: it is what a user types
    filled = Table(name, "method", "backbone", "published", "licence", box=None, pad_edge=False, header_style="bold")
    rows = ((r.name, method.name, r.backbone, _published(r), r.licence or "not known") for method, r in known)
    render.table(filled, rows)
    for line in _notes([release for _, release in known]):
        render.note(line)


def _notes(known: Sequence[Release]) -> Iterator[str]:
    """What the table has no room for: what licences forbid, and the pages with a login."""
    yield from dict.fromkeys(str(terms) for r in known if (terms := r.terms) and terms.restrictions)
    for page in dict.fromkeys(r.login for r in known if r.login):
        yield f"* after a login only: {page}"


def _published(release: Release) -> str:
    return f"{digest_of(release) or ''}{' *' * bool(release.login)}".strip()


def cache(folder: str, entries: Iterable[CacheEntry], as_json: bool) -> None:
    if as_json:
        render.dump("cache list", {"folder": folder, "files": [vars(entry) for entry in entries]})
        return
    render.row("cache", folder)
    for entry in entries:
        published = f", published {entry.published}" if entry.published else ""
        there = size(entry.size) if entry.whole else f"{size(entry.fetched)} of {size(entry.size)}: incomplete"
        render.row("file", f"{entry.address} ({there}{published})")


def cleared(folder: str, files: int, count: int, as_json: bool) -> None:
    if as_json:
        render.dump("cache clear", {"folder": folder, "files": files, "bytes": count})
        return
    render.row("cache", folder)
    render.row("removed", f"{render.count(files, 'file')}, {size(count)}")

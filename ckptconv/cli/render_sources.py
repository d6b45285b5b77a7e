"""Prints releases, fetched files, and the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ckptconv.cli import render
from ckptconv.methods.interface import Method, Release
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.text import size

if TYPE_CHECKING:
    from ckptconv.sources.cache import CacheEntry

_MANY_FETCHED = 4 << 20


@contextlib.contextmanager
def fetching(whole: bool, cache_dir: Path | None) -> Iterator[Fetching]:
    """The options of a fetch, with a progress bar on a terminal."""
    with render.progress("fetching ", _MANY_FETCHED) as show:
        yield Fetching(whole, cache_dir, show)


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


def releases(known: Iterable[tuple[Method, Release]], as_json: bool) -> None:
    if as_json:
        render.dump("releases", {"releases": [{**vars(release), "method": method.name} for method, release in known]})
        return
    from rich.table import Column, Table

    name = Column("release", no_wrap=True, overflow="ignore")  # never shortened: it is what a user types
    filled = Table(name, "method", "backbone", "published", "licence", box=None, pad_edge=False, header_style="bold")
    render.table(filled, ((r.name, method.name, r.backbone, _published(r), r.licence) for method, r in known))


def _published(release: Release) -> str:
    return f"sha256 {release.sha256}" if release.sha256 else f"md5 {release.md5}" if release.md5 else ""


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

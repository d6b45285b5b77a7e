"""Prints what a checkpoint holds: first the answer, then what it rests on."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ckptconv.arguments import argument
from ckptconv.cli import render, render_sources, tensor_tree
from ckptconv.conversion.record import ConversionRecord
from ckptconv.errors import shell_word
from ckptconv.inspection import Fit, Inspection
from ckptconv.planning.copies import Copy
from ckptconv.text import fold, section_label, size, some

_MOST_LINES = 40
_SCHEMA = 2  # the options that lead to a network name its method


def inspection(found: Inspection, full: bool, as_json: bool) -> None:
    if as_json:
        render.dump("inspect", _data(found), schema=_SCHEMA)
        return
    if found.record is not None:
        _converted(found, found.record)
    elif found.complete:
        _identified(found, found.complete)
    else:
        _unidentified(found)
    render_sources.licence(found.licence)
    _next(found)
    render.row("file", f"{found.path} ({found.format}, {size(found.size)})")
    render_sources.fetched(found.transfers)
    if found.named:
        render.row("names", f"{', '.join(found.named)} (none of them was imported or called)")
    for path, names in fold(found.sections).items():
        specs = [spec for name in names for spec in found.sections[name].values()]
        dtypes = ", ".join(dict.fromkeys(str(s.dtype) for s in specs)) or "nothing that can be read"
        head = f"{section_label(path)}" + (f" ({len(names)} alike)" if len(names) > 1 else "")
        render.row(
            "section",
            f"{head}: {render.count(len(specs), 'tensor')}, {size(sum(s.nbytes for s in specs))}, {dtypes}",
        )
        if len(names) == 1:
            _tensors(found, path, full)
    rest = [fit for fit in found.fits if not fit.complete]
    if rest and found.record is None:
        first = f"leaves {render.count(rest[0].problems, 'problem')}: {rest[0].first}"
        render.row("next best" if found.complete else "nearest", f"{rest[0].method} {first}")


def _identified(found: Inspection, complete: tuple[Fit, ...]) -> None:
    """The network and the method, and how sure that is."""
    first, names = complete[0], [fit.method for fit in complete]
    entries = render.count(first.kept + first.dropped, "entry").replace("entrys", "entries")
    if found.ambiguous:
        networks = dict.fromkeys(f"{fit.backbone}, {section_label(fit.section)}" for fit in complete)
        render.row("what", " or ".join(networks))
        kept = [f"{fit.method} keeps {fit.kept} of {section_label(fit.section)}" for fit in complete]
        render.row("sure", f"no: methods keep different tensors: {'; '.join(kept)}")
    elif len(complete) == 1:
        render.row("what", f"{first.backbone} of {first.method}: {first.title}, {first.layout}")
        render.row(
            "sure",
            f"yes: {first.method} explains all {entries} of {section_label(first.section)}, {first.kept} kept and "
            f"{first.dropped} dropped; no other method does",
        )
    else:
        render.row("what", f"{first.backbone}, from {section_label(first.section)}: {first.layout}")
        render.row(
            "sure",
            f"of the network: {some(names, 9)} explain all {entries} and keep the same tensors; which of them trained "
            "it, the names do not tell",
        )
    for unusual in dict.fromkeys(fit.unusual for fit in complete if fit.unusual):
        render.row("unusual", unusual)
    copies(found.copies)


def _unidentified(found: Inspection) -> None:
    """What the file is instead of one that a method explains."""
    networks = list(dict.fromkeys(one.network for one in found.alternatives))
    if not networks and not found.unsupported:
        render.row("what", "no known network: no method fits, in any section or under any prefix")
        render.row("", "--rules FILE.toml takes rules of your own")
        return
    render.row("what", " or ".join(networks) if networks else found.unsupported)
    for i, one in enumerate(found.alternatives):
        render.row("" if i else "where", f"a {one.network} is {one.where}" + (f": {one.obstacle}" * bool(one.obstacle)))


def _converted(found: Inspection, record: ConversionRecord) -> None:
    """What a file that `convert` wrote says of itself."""
    render.row("what", f"{record.network}, with the names of {record.target}: written by ckptconv {record.version}")
    method = f"{record.method}: {record.layout}" if record.layout else record.method
    render.row("method", f"{method}, from {section_label(record.section)}")
    source = f"{record.source} ({record.source_format}, {size(record.source_bytes)})"
    render.row("source", source + (f", the release {record.release}" if record.release else ""))
    rounded = f", rounded to {record.dtype}" if record.dtype else ""
    render.row("kept", f"{render.count(record.tensors, 'tensor')}{rounded}; {record.dropped} of the source left out")
    if found.modified:
        render.row("written", f"{found.modified}, by the time of the file")
    if found.fingerprint:
        render.row("proof", f"fingerprint {found.fingerprint[:16]}: the one that convert printed, if nothing changed")


def _next(found: Inspection) -> None:
    """The command that goes on from here."""
    if found.record is not None:
        render.row("next", f"ckptconv emit-config {shell_word(found.path)} -o detector.py")
        return
    for i, one in enumerate(found.calls):
        render.row("" if i else "convert", one)


def copies(found: Iterable[Copy]) -> None:
    """Where else the file holds the same network: which of them is wanted, only a person can say."""
    for i, one in enumerate(found):
        asked = one.alternative.arguments.items() if one.alternative else ()
        how = " ".join(argument(name, value) for name, value in asked if value)
        render.row("" if i else "copies", f"the same network is also {one.where}" + (f": {how}" if how else ""))


def _tensors(found: Inspection, path: str, full: bool) -> None:
    """The tensors of a section as a tree, or each on a line; then other values and what cannot be read."""
    specs = found.sections[path]
    if full:
        lines = [f"  {name}  {spec}" for name, spec in specs.items()]
    else:
        encoding = (sys.stdout.encoding or "ascii") if sys.stdout is not None else "ascii"
        width = None if (across := render.columns()) is None else across - 10
        lines = tensor_tree.lines(specs, width, ascii_only=not encoding.lower().startswith("utf"))
    for line in lines if full else lines[:_MOST_LINES]:
        render.row("", line)
    if not full and len(lines) > _MOST_LINES:
        render.row("", f"  … and {len(lines) - _MOST_LINES} more lines (--all)")
    unreadable = found.unreadable[path]
    for what in dict.fromkeys(unreadable.values()):
        alike = [name for name, one in unreadable.items() if one == what]
        for line, names in fold(alike).items() if not full else ((name, [name]) for name in alike):
            times = f"{len(names)} x " if len(names) > 1 else ""
            render.row("", f"  {line}  cannot be read: {times}{what}")
    for name, kind in found.others[path].items():
        if path and name not in unreadable:
            render.row("", f"  {name}  not a tensor: {kind}")


def _data(found: Inspection) -> dict[str, object]:
    return {
        "path": found.path,
        "format": found.format,
        "bytes": found.size,
        "fetched": [vars(transfer) for transfer in found.transfers],
        "names": list(found.named),
        "metadata": dict(found.metadata),
        "licence": render_sources.licence_data(found.licence),
        "sections": {
            path: {
                "tensors": {n: {"dtype": str(s.dtype), "shape": list(s.shape)} for n, s in specs.items()},
                "others": dict(found.others[path]),
                "unreadable": dict(found.unreadable[path]),
            }
            for path, specs in found.sections.items()
        },
        "fits": [vars(fit) for fit in found.fits],
        "copies": [copy_data(one) for one in found.copies],
        "alternatives": [
            {"network": one.network, "section": one.section, "prefix": one.prefix, "options": one.arguments}
            for one in found.alternatives
        ],
        "unsupported": found.unsupported,
        "ambiguous": found.ambiguous,
        "converted": vars(found.record) if found.record else None,
        "fingerprint": found.fingerprint or None,
    }


def copy_data(copy: Copy) -> dict[str, object]:
    return {
        "section": copy.section,
        "prefix": copy.prefix,
        "options": copy.alternative.arguments if copy.alternative else None,
    }

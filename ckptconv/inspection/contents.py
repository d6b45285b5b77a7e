"""What a file holds, which network it is, and which methods explain it, without converting it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from ckptconv.arguments import call
from ckptconv.backbones import TargetName
from ckptconv.conversion.convert import PathLike, Progress, naming_files, options_of
from ckptconv.conversion.converted import Converted
from ckptconv.conversion.fingerprint import fingerprint
from ckptconv.conversion.provenance import licence_of
from ckptconv.conversion.record import ConversionRecord
from ckptconv.conversion.transform import as_they_are
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint, Piece
from ckptconv.methods.interface import Licence, Method
from ckptconv.methods.registry import methods
from ckptconv.planning.copies import Copy, copies
from ckptconv.planning.identify import explaining
from ckptconv.planning.networks_elsewhere import Alternative, find_alternatives
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner
from ckptconv.planning.problem_texts import text_of
from ckptconv.planning.refusals import known_unsupported
from ckptconv.planning.same_result import disagreement
from ckptconv.sections import BELOW, section_at
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.spec import Section, TensorSpec
from ckptconv.text import fold


@dataclass(frozen=True)
class Fit:
    """How well a method explains a file: completely, or with how many problems, the first of which is shown.

    ``guess`` is False for a method that is found by name only, ``backbone`` the network that is kept, '' for none.
    ``unusual`` says that no published network of its width is so deep; '' where one is. ``kept`` and ``dropped`` are
    how many entries of the section are converted and left out, ``title`` is the method's.
    """

    method: str
    title: str
    layout: str
    section: str
    complete: bool
    problems: int
    first: str
    backbone: str
    guess: bool
    unusual: str
    kept: int
    dropped: int


def _fit(found: Method, plan: Plan) -> Fit:
    return Fit(
        method=found.name,
        title=found.title,
        layout=plan.layout,
        section=plan.section,
        complete=plan.complete,
        problems=len(plan.problems),
        first=text_of(plan.problems[0]) if plan.problems else "",
        backbone=plan.backbone.name if plan.backbone else "",
        guess=found.guess,
        unusual=plan.backbone.unusual if plan.backbone else "",
        kept=len({source for move in plan.moves for source in move.sources}),
        dropped=len(plan.dropped),
    )


@dataclass(frozen=True)
class Inspection:
    """What a file holds: sections with tensors and other values, what its pickle names; methods, the best fit first.

    ``unreadable`` says what those of ``others`` are that stand for tensors and cannot be read. ``unsupported`` says
    which network it is if no target supports it. ``copies`` are other places with the network of the best fit;
    ``alternatives`` lead to networks in other sections and under prefixes, where nothing fits. ``licence`` is that of
    the weights: of a release, or as a file that `convert` wrote says it; None where it is not known.

    ``ambiguous`` says that the complete fits keep different tensors, so that `convert` must be told the method.
    ``record`` is what a file that `convert` wrote says of itself; such a local file has a ``fingerprint``, as `convert`
    printed it, and ``modified``, the time of the file in ISO 8601. '' and None for any other file.
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
    ambiguous: bool = False
    record: ConversionRecord | None = None
    fingerprint: str = ""
    modified: str = ""

    @property
    def complete(self) -> tuple[Fit, ...]:
        """The methods that explain every entry, as `convert` may take them."""
        return tuple(fit for fit in self.fits if fit.complete)

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls of `convert` that take the network: one, or several to choose from; () where none does."""
        if self.ambiguous:
            return tuple(call("convert", self.path, "backbone.pth", method=fit.method) for fit in self.complete)
        if self.complete:
            return (call("convert", self.path, "backbone.pth"),)
        return tuple(
            call("convert", self.path, "backbone.pth", **one.arguments) for one in self.alternatives if not one.obstacle
        )


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
    num_heads: int | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
    fetching: Fetching | None = None,
) -> Inspection:
    """Look into a checkpoint without loading it; the parameters are those of `convert`, for the methods that are tried.

    Of a file that `convert` wrote, every byte is read for its fingerprint: ``progress`` is called with
    'reading', the bytes done and the bytes in all. Of any other file, names and shapes only.

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
        num_heads=num_heads,
        dtype=dtype,
    )
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        known = list(methods(options.methods).values())
        planner = Planner(checkpoint.sections, options)
        ranked = planner.rank([m for m in known if m.guess])
        fits = [_fit(m, p) for m, p in ranked]
        complete = [(m, p) for m, p in ranked if p.complete]
        best = complete[0][1] if complete else None
        sections = _as_explained(checkpoint.sections, [plan.section for _, plan in complete])
        record = ConversionRecord.read(checkpoint)
        own = record is not None and not checkpoint.transfers
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
            ambiguous=bool(complete) and disagreement(complete, options) is not None,
            record=record,
            fingerprint=_fingerprint(checkpoint, progress) if own else "",
            modified=_modified(checkpoint.path) if own and isinstance(checkpoint.path, Path) else "",
        )


def _fingerprint(checkpoint: Checkpoint, progress: Progress | None) -> str:
    """The fingerprint of the weights, as `convert` printed it when it wrote them."""
    pieces = as_they_are(Converted.read(checkpoint).section, checkpoint)
    total, done = sum(piece.spec.nbytes for piece in pieces), 0

    def counted(piece: Piece, verify: bool) -> Iterator[bytes]:
        nonlocal done
        for chunk in piece.read(verify):
            yield chunk
            done += len(chunk)
            if progress is not None:
                progress("reading", done, total)

    return fingerprint(replace(piece, read=partial(counted, piece)) for piece in pieces)


def _modified(path: Path) -> str:
    """The time of a file, to the second, in this machine's time zone."""
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(" ", "seconds")


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


def dropped_by_reason(settled: Plan) -> dict[str, list[str]]:
    """What a plan leaves out, by reason, each with its names folded."""
    reasons: dict[str, list[str]] = {}
    for gone in settled.dropped:
        reasons.setdefault(gone.why, []).append(gone.source)
    return {why: list(fold(names)) for why, names in reasons.items()}

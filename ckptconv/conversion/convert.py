"""The pipeline, six calls in a row, and the questions one can ask on the way. It knows no format, method or network.

This is the library's public face: `convert`, `plan`, `inspect`, `explain`. The command line calls nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ckptconv import fields
from ckptconv.backbones import TargetName
from ckptconv.conversion.destination import require_fitting_name, require_section
from ckptconv.conversion.fingerprint import BackgroundFingerprint
from ckptconv.conversion.prove import prove
from ckptconv.conversion.provenance import KEY, describe, licence_of
from ckptconv.conversion.receipt import Receipt
from ckptconv.conversion.statistics import TensorStatistics
from ckptconv.conversion.transform import transform
from ckptconv.errors import CkptconvError
from ckptconv.formats import Checkpoint, open_checkpoint
from ckptconv.formats.interface import Piece
from ckptconv.formats.writers import WRITERS, Writer, format_for
from ckptconv.methods import registry
from ckptconv.methods.interface import Method
from ckptconv.planning.adjust import adjust_plan
from ckptconv.planning.copies import copies
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner
from ckptconv.rules import Rule
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import Located, locate
from ckptconv.sources.published import recognised

PathLike = str | Path
MethodLike = str | Method | Iterable[Rule]
Phase = Literal["reading", "writing", "proving", "syncing"]
Progress = Callable[[Phase, int, int], None]
"""Called with what is done, the bytes done and the bytes in all. How much is synced, nobody knows: that is 0 bytes."""


def options_of(options: Options | None, rules: PathLike | None = None, **given: Any) -> Options:
    """The options of a call: those given as one object, with what is given by itself, where it is not None."""
    options = options or Options()
    if rules is not None:
        from ckptconv.methods import rule_file  # most runs need no TOML parser

        options = replace(options, methods=(rule_file.load(Path(rules)), *options.methods))
    for name, what in (("drop", "texts"), ("channels", "whole numbers")):
        if given.get(name) is not None:
            given[name] = fields.as_tuple(name, given[name], what)
    return replace(options, **{name: value for name, value in given.items() if value is not None})


def wanted_method(method: MethodLike, options: Options, found: Located) -> MethodLike:
    """A release is its own method's, unless a method or a prefix is asked for."""
    return found.method or method if registry.is_auto(method) and not options.strip_prefix else method


@contextmanager
def naming_files(found: Located, destination: PathLike | None = None, rules: PathLike | None = None) -> Iterator[None]:
    """Put the names that the caller gave into the calls of an error's hint."""
    try:
        yield
    except CkptconvError as error:
        error.name_files(found.typed, *(None if one is None else str(one) for one in (destination, rules)))
        raise


def _require_known(method: MethodLike, options: Options) -> None:
    """Refuse a name that no method has before anything is fetched."""
    if isinstance(method, str) and not registry.is_auto(method):
        registry.named(method, options.methods)


def plan(
    source: PathLike,
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
    num_heads: int | None = None,
    dtype: str | None = None,
    fetching: Fetching | None = None,
) -> Plan:
    """Where each tensor of a checkpoint would go, as `convert` would have it. Reads names and shapes only.

    The parameters are those of `convert`. Raises UnidentifiedError, IncompletePlanError, UnreadableError or UsageError
    as it would.
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
    _require_known(method, options)
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        match = choose(checkpoint.sections, wanted_method(method, options, found), options)
        return adjust_plan(match, options)


def convert(
    source: PathLike,
    destination: PathLike,
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
    num_heads: int | None = None,
    dtype: str | None = None,
    format: str | None = None,
    report: PathLike | None = None,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    fetching: Fetching | None = None,
) -> Receipt:
    """Write the backbone of a self-supervised checkpoint as MMDetection loads it.

    Args:
        source: the checkpoint: a path, an address (https://, hf://, s3://, gs://), or a release's name. A `Path` is
            always a path. The format is told by the content.
        destination: the file to write. It appears complete or not at all.
        method: 'auto', a method's name, a `Method`, or rules.
        options: the parameters of an `Options`, all at once; each may be given by its own name, too, and replaces that
            of ``options``. None leaves it as it is.
        drop: patterns of names that are not part of the network: these tensors are dropped.
        strip_prefix: the prefix that the method's rules apply under; every tensor outside it is dropped.
        section: dotted path to the mapping with the weights; the method knows where to look if None.
        target: whose names are written, such as 'mmdet' or 'torchvision'; None is the network's usual one.
        rules: a TOML file with a method of your own, known besides the built-in ones.
        channels: the channels of an image that the network keeps, numbered from 1, in this order; () keeps all of them.
            A channel that is named n times gets an n-th of its weights each time.
        image_size: pixels per side of the images that a transformer's positions are resized for; None keeps them.
        patch_size: pixels per side of its patches, to which their kernel is resized; None keeps it.
        num_heads: attention heads of each block, which most files do not show; None is what the method states, or the
            usual number for the width.
        dtype: floating tensors are rounded to this type; None keeps them bit for bit.
        format: 'torch' or 'safetensors'; None goes by the suffix of the destination.
        report: an HTML page to write about it: the network, the way and the numbers of each tensor, where it is from.
        dry_run: plan, and write nothing but the report.
        force: replace the destination and the report if they exist.
        progress: called with the phase ('writing', 'proving' or 'syncing'), the bytes done and the bytes in all.
        fetching: how a source that lies elsewhere is fetched.

    Raises:
        UnidentifiedError, IncompletePlanError: a tensor is not accounted for; nothing was written.
        UnreadableError: the source is not a checkpoint, is broken or is not safe.
        UsageError: the destination may not be written, or an argument makes no sense.
        EnvironmentMissingError: the disk is full, or a package that an address needs is missing.
        ProofError: what was read back differs; nothing was kept.
    """
    from ckptconv.conversion.report.write import check_report, write_report
    from ckptconv.sources.atomic import check_destination

    started = time.perf_counter()
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
    if format is None:
        require_fitting_name(Path(destination))
    written_format = format_for(Path(destination), format)
    writer = WRITERS[written_format]
    _require_known(method, options)
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, destination, rules), open_checkpoint(found.path) as checkpoint:
        match = choose(checkpoint.sections, wanted_method(method, options, found), options)
        adjusted = adjust_plan(match, options)
        require_section(writer, written_format, adjusted)
        inputs = [s.path for s in checkpoint.sources if isinstance(s.path, Path)]
        path = check_destination(Path(destination), force or dry_run, inputs)
        page = None if report is None else check_report(Path(report), force, inputs, path)
        release = found.release
        licence = release.terms if release else licence_of(checkpoint)
        statistics: Mapping[str, TensorStatistics] = {}
        if dry_run:
            fingerprint, size, proved, checksums = "", sum(move.spec.nbytes for move in adjusted.moves), 0, 0
        else:
            stored = checkpoint.tensors(adjusted.section)
            kept = [stored[name] for move in adjusted.moves for name in move.sources]
            checkpoint.fetch(kept)
            checksums = checkpoint.checksums(kept)
            release = release or recognised(checkpoint.sources, options.methods)
            licence = licence or (release.terms if release else None)
            description = describe(checkpoint, match, adjusted, options.dtype, checksums, release, licence)
            pieces = transform(adjusted, checkpoint)
            background = BackgroundFingerprint(pieces, statistics=page is not None)
            fingerprint, size, proved = _write(
                path, force, writer, adjusted.dialect.section, pieces, description, checkpoint, progress, background
            )
            statistics = background.statistics
        receipt = Receipt(
            source=found.label,
            source_format=checkpoint.format,
            source_size=checkpoint.size,
            plan=adjusted,
            method=match.method,
            method_named=match.named,
            also=match.also,
            destination=str(destination),
            destination_format=written_format,
            destination_size=size,
            dtype=options.dtype,
            fingerprint=fingerprint,
            proved=proved,
            written=not dry_run,
            seconds=time.perf_counter() - started,
            release=release.name if release else "",
            licence=licence,
            transfers=checkpoint.transfers,
            checksums=checksums,
            copies=copies(
                Planner(checkpoint.sections, options), match.plan, registry.methods(options.methods).values()
            ),
            dangerous=checkpoint.dangerous,
            report=str(report) if report is not None else "",
            statistics=statistics,
        )
    if page is not None:
        write_report(page, force, receipt.to_html())
    return receipt


def _write(
    path: Path,
    force: bool,
    writer: Writer,
    section: str,
    pieces: Sequence[Piece],
    description: Mapping[str, object],
    checkpoint: Checkpoint,
    progress: Progress | None,
    background: BackgroundFingerprint,
) -> tuple[str, int, int]:
    """Write, sync, read back, publish. Returns the fingerprint, the file's size and how many tensors were proved."""
    from ckptconv.sources.atomic import write_atomically

    total = sum(p.spec.nbytes for p in pieces)

    def counting(phase: Phase) -> Callable[[str, int], None]:
        done = 0

        def seen(_: str, count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(phase, done, total)

        return seen

    with background, write_atomically(path, force) as draft:
        metadata = {KEY: json.dumps(description, separators=(",", ":"))}
        section = section if writer.has_sections else ""
        writer.write(draft.file, pieces, metadata, counting("writing"), section)
        with draft.syncing():
            proved = prove(draft.path, pieces, section, counting("proving"))
            if progress is not None:
                progress("syncing", 0, total)
        fingerprint = background.fingerprint()
        checkpoint.require_unchanged()
        size = draft.path.stat().st_size
        draft.commit()
        return fingerprint, size, proved

"""The pipeline, six calls in a row, and the questions one can ask on the way. It knows no format, method or network.

This is the library's public face: `convert`, `plan`, `inspect`, `explain`. The command line calls nothing else.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptconv._version import __version__
from ckptconv.errors import UsageError
from ckptconv.folding import fold
from ckptconv.formats import Checkpoint, open_checkpoint
from ckptconv.formats.interface import Piece
from ckptconv.identify import Match, choose, nearest, rank
from ckptconv.methods.interface import Method
from ckptconv.prove import prove
from ckptconv.registry import methods
from ckptconv.remap import Options, Plan, cast_plan
from ckptconv.rules import Rule
from ckptconv.spec import TensorSpec
from ckptconv.transform import transform

FORMATS = ("torch", "safetensors")

PathLike = str | Path
MethodLike = str | Method | Iterable[Rule]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Receipt:
    """What a conversion did, or would do (``written`` False). Sizes in bytes, time in seconds.

    ``fingerprint`` is the SHA-256 over one line a tensor, in order of name: name, type, shape, SHA-256 of its bytes.
    It does not depend on the output's format. ``proved`` counts the tensors that were read back and found equal.
    """

    source: str
    source_format: str
    source_size: int
    plan: Plan
    method: Method
    method_named: bool
    also: tuple[str, ...]
    target: str
    target_format: str
    target_size: int
    dtype: str | None
    fingerprint: str
    proved: int
    written: bool
    seconds: float


def _options(
    drop: Iterable[str], strip_prefix: str, section: str | None, target: str, rules: PathLike | None
) -> Options:
    own: tuple[Method, ...] = ()
    if rules is not None:
        from ckptconv import rulefile  # most runs need no TOML parser

        own = (rulefile.load(Path(rules)),)
    return Options(tuple(drop), strip_prefix, section, target, own)


def _wanted(selfsup: MethodLike, strip_prefix: str) -> MethodLike:
    """A prefix without a method is the generic method's business."""
    return "generic" if strip_prefix and selfsup == "auto" else selfsup


def plan(
    source: PathLike,
    selfsup: MethodLike = "auto",
    *,
    drop: Iterable[str] = (),
    strip_prefix: str = "",
    section: str | None = None,
    rules: PathLike | None = None,
    target: str = "mmdet",
) -> Plan:
    """Where each tensor of a checkpoint would go. Reads names and shapes only.

    Raises UnidentifiedError, IncompletePlanError, UnreadableError or UsageError as `convert` would.
    """
    options = _options(drop, strip_prefix, section, target, rules)
    with open_checkpoint(Path(source)) as checkpoint:
        return choose(checkpoint.sections, _wanted(selfsup, strip_prefix), options).plan


def convert(
    source: PathLike,
    target: PathLike,
    selfsup: MethodLike = "auto",
    *,
    drop: Iterable[str] = (),
    strip_prefix: str = "",
    section: str | None = None,
    rules: PathLike | None = None,
    for_target: str = "mmdet",
    format: str | None = None,
    dtype: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Receipt:
    """Write the backbone of a self-supervised checkpoint as MMDetection loads it.

    Args:
        source: the checkpoint; its format is told by its content.
        target: the file to write. It appears complete or not at all.
        selfsup: 'auto', a method's name, a `Method`, or rules.
        drop: patterns of tensors whose loss is accepted.
        strip_prefix: the prefix the method's rules apply under; everything outside it is dropped.
        section: dotted path to the mapping with the weights; the method knows where to look if None.
        rules: a TOML file with a method of your own, known beside the built-in ones.
        for_target: whose names are written: 'mmdet' or 'torchvision'.
        format: 'torch' or 'safetensors'; None goes by the target's suffix.
        dtype: floating tensors are rounded to this type; None keeps them bit for bit.
        dry_run: plan, and write nothing.
        force: replace the target if it exists.
        progress: called with bytes done and bytes in all.

    Raises:
        UnidentifiedError, IncompletePlanError: a tensor is not accounted for; nothing was written.
        UnreadableError: the source is no checkpoint, is broken or is not safe.
        UsageError: the target may not be written, or an argument makes no sense.
        EnvironmentMissingError: the disk is full.
        ProofError: what was read back differs; nothing was kept.
    """
    from ckptconv.formats.target import check_target

    started = time.perf_counter()
    options = _options(drop, strip_prefix, section, for_target, rules)
    kind = format or ("safetensors" if Path(target).suffix == ".safetensors" else "torch")
    if kind not in FORMATS:
        raise UsageError(f"there is no format '{kind}'", f"Formats: {', '.join(FORMATS)}.")
    with open_checkpoint(Path(source)) as checkpoint:
        match = choose(checkpoint.sections, _wanted(selfsup, strip_prefix), options)
        settled = cast_plan(match.plan, dtype) if dtype else match.plan
        real = check_target(Path(target), force or dry_run, (s.path for s in checkpoint.sources))
        pieces = transform(settled, checkpoint)
        if dry_run:
            fingerprint, size, proved = "", sum(p.spec.nbytes for p in pieces), 0
        else:
            meta = provenance(checkpoint, match, settled, dtype)
            fingerprint, size, proved = _write(real, force, kind, pieces, meta, checkpoint, progress)
        return Receipt(
            source=str(source),
            source_format=checkpoint.format,
            source_size=checkpoint.size,
            plan=settled,
            method=match.method,
            method_named=match.named,
            also=match.also,
            target=str(target),
            target_format=kind,
            target_size=size,
            dtype=dtype,
            fingerprint=fingerprint,
            proved=proved,
            written=not dry_run,
            seconds=time.perf_counter() - started,
        )


def _write(
    target: Path,
    force: bool,
    kind: str,
    pieces: Sequence[Piece],
    meta: Mapping[str, object],
    checkpoint: Checkpoint,
    progress: Progress | None,
) -> tuple[str, int, int]:
    """Write, sync, read back, publish. Returns the fingerprint, the file's size and how many tensors were proved."""
    from ckptconv.formats import safetensors_writer, torch_writer
    from ckptconv.formats.target import drafting

    total, done = sum(p.spec.nbytes for p in pieces), 0
    with _Hasher() as hasher, drafting(target, force) as draft:

        def seen(name: str, chunk: bytes) -> None:
            nonlocal done
            hasher.update(name, chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)

        if kind == "safetensors":
            texts = {"format": "pt", "ckptconv": json.dumps(meta["ckptconv"], separators=(",", ":"))}
            safetensors_writer.write(draft.file, safetensors_writer.in_order(pieces), texts, seen)
        else:
            torch_writer.write(draft.file, pieces, meta, seen)
        draft.file.flush()
        checkpoint.require_unchanged()
        with _Background(draft.sync):
            proved = prove(draft.path, pieces, "" if kind == "safetensors" else "state_dict")
        size = draft.path.stat().st_size
        draft.commit()
        return hasher.fingerprint([(p.name, p.spec) for p in pieces]), size, proved


class _Background:
    """Runs a function beside the block it heads, and raises at the block's end what the function raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        self._thread.join()
        if self._error is not None and value is None:
            raise self._error


class _Hasher:
    """SHA-256 of each tensor, computed on another core while the bytes are on their way to the disk."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue(maxsize=16)
        self._digests: dict[str, hashlib._Hash] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            name, chunk = item
            digest = self._digests.get(name)
            if digest is None:
                digest = self._digests[name] = hashlib.sha256()
            digest.update(chunk)

    def update(self, name: str, chunk: bytes) -> None:
        self._queue.put((name, chunk))

    def fingerprint(self, specs: Iterable[tuple[str, TensorSpec]]) -> str:
        self._finish()
        empty = hashlib.sha256()
        lines = (f"{n} {s} {self._digests.get(n, empty).hexdigest()}\n" for n, s in sorted(specs, key=lambda p: p[0]))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _finish(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def __enter__(self) -> _Hasher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()


def provenance(checkpoint: Checkpoint, match: Match, settled: Plan, dtype: str | None) -> dict[str, object]:
    """What the output says of itself: plain values only, and nothing that differs from run to run."""
    assert settled.backbone is not None
    pixels = match.method.pixels
    return {
        "ckptconv": {
            "version": __version__,
            "method": match.method.name,
            "also": list(match.also),
            "layout": settled.layout,
            "section": settled.section,
            "target": settled.target,
            "source": {"name": checkpoint.path.name, "format": checkpoint.format, "bytes": checkpoint.size},
            "backbone": {"name": settled.backbone.name, **settled.backbone.settings()},
            "pixels": {"mean": list(pixels.mean), "std": list(pixels.std), "order": pixels.order} if pixels else None,
            "tensors": len(settled.moves),
            "dropped": len(settled.dropped),
            "dtype": dtype,
        }
    }


@dataclass(frozen=True)
class Fit:
    """How well a method explains a file: completely, or with how many problems, the first of which is shown."""

    method: str
    layout: str
    section: str
    complete: bool
    problems: int
    first: str


@dataclass(frozen=True)
class Inspection:
    """What a file holds: sections with tensors and other values, what its pickle names; methods, the best fit first."""

    path: str
    format: str
    size: int
    sections: Mapping[str, Mapping[str, TensorSpec]]
    others: Mapping[str, Mapping[str, str]]
    named: tuple[str, ...]
    metadata: Mapping[str, str]
    fits: tuple[Fit, ...]


def inspect(source: PathLike, *, rules: PathLike | None = None) -> Inspection:
    """Look into a checkpoint without loading it. Raises UnreadableError for a file that is none."""
    options = _options((), "", None, "mmdet", rules)
    with open_checkpoint(Path(source)) as checkpoint:
        known = [m for m in methods(options.methods).values() if m.guess]
        fits = [
            Fit(m.name, p.layout, p.section, p.complete, len(p.problems), p.problems[0].text if p.problems else "")
            for m, p in rank(checkpoint.sections, known, options)
        ]
        return Inspection(
            path=str(source),
            format=checkpoint.format,
            size=checkpoint.size,
            sections={path: section.tensors for path, section in checkpoint.sections.items()},
            others={path: section.others for path, section in checkpoint.sections.items()},
            named=checkpoint.named,
            metadata=checkpoint.metadata,
            fits=tuple(fits),
        )


@dataclass(frozen=True)
class Explanation:
    """What happens to one key: its ``fate`` ('kept', 'dropped' or 'unexplained'), the rule, and why.

    The rule speaks of the name without ``prefix``, which wraps every name of the section.
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
    selfsup: MethodLike = "auto",
    *,
    drop: Iterable[str] = (),
    strip_prefix: str = "",
    section: str | None = None,
    rules: PathLike | None = None,
    target: str = "mmdet",
) -> Explanation:
    """Which rule takes a key and where it goes, in the plan that `convert` would follow, complete or not.

    Raises UsageError, with the nearest names, for a key that the section does not hold.
    """
    from difflib import get_close_matches

    options = _options(drop, strip_prefix, section, target, rules)
    with open_checkpoint(Path(source)) as checkpoint:
        match = nearest(checkpoint.sections, _wanted(selfsup, strip_prefix), options)
        where = checkpoint.sections[match.plan.section]
    about = {
        "key": key,
        "method": match.method.name,
        "section": match.plan.section,
        "prefix": match.plan.prefix,
    }
    problem = next((p.text for p in match.plan.problems if p.key == key), "")
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
    if key in where.tensors:
        return Explanation(**about, spec=where.tensors[key], fate="unexplained", target="", rule="", why=problem)
    near = get_close_matches(key, [*where.tensors], 3)
    place = f"'{match.plan.section}'" if match.plan.section else "the top level"
    raise UsageError(
        f"{place} holds no {key}",
        f"Did you mean {' or '.join(near)}?" if near else "See the names: ckptconv inspect FILE.",
    )


def known_methods(rules: PathLike | None = None) -> list[Method]:
    """Every method: of a rule file, if one is given, built in, and of other packages."""
    return list(methods(_options((), "", None, "mmdet", rules).methods).values())


def dropped_by_reason(settled: Plan) -> dict[str, list[str]]:
    """What a plan leaves out, by reason, each with its names folded."""
    reasons: dict[str, list[str]] = {}
    for gone in settled.dropped:
        reasons.setdefault(gone.why, []).append(gone.source)
    return {why: list(fold(names)) for why, names in reasons.items()}

"""The pipeline, six calls in a row, and the questions one can ask on the way. It knows no format, method or network.

This is the library's public face: `convert`, `plan`, `inspect`, `explain`. The command line calls nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckptconv import fields
from ckptconv.arguments import argument
from ckptconv.backbones.image_size import Size
from ckptconv.backbones.interface import CANONICAL
from ckptconv.conversion.fingerprint import Witness
from ckptconv.conversion.prove import prove
from ckptconv.conversion.provenance import KEY, describe
from ckptconv.conversion.transform import transform
from ckptconv.errors import CkptconvError, UsageError
from ckptconv.formats import Checkpoint, open_checkpoint
from ckptconv.formats.interface import Piece
from ckptconv.methods import registry
from ckptconv.methods.interface import Method
from ckptconv.ops import cast
from ckptconv.planning.adjust import cast_plan, resize_plan
from ckptconv.planning.alternatives import Copy, copies
from ckptconv.planning.candidates import Planner
from ckptconv.planning.identify import choose
from ckptconv.planning.plan import Options, Plan
from ckptconv.rules import Rule
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import Located, locate
from ckptconv.spec import DTYPES

FORMATS = ("torch", "safetensors")
_NOT_WRITTEN = {
    ".onnx": "an ONNX model",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".keras": "a Keras model",
    ".npz": "a numpy archive",
    ".npy": "a numpy array",
    ".tflite": "a TensorFlow Lite model",
    ".pb": "a TensorFlow graph",
    ".msgpack": "a Flax checkpoint",
    ".gguf": "a GGUF file",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".py": "a Python file",
    ".json": "a JSON file",
    ".toml": "a TOML file",
    ".yaml": "a YAML file",
    ".yml": "a YAML file",
    ".csv": "a table",
    ".txt": "a text",
    ".zip": "a zip archive",
    ".gz": "a compressed file",
}
"""Suffixes of what is not written, and what has them."""

PathLike = str | Path
MethodLike = str | Method | Iterable[Rule]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Receipt:
    """What a conversion did, or would do (``written`` False). Sizes in bytes, time in seconds.

    ``fingerprint`` is the SHA-256 over one line a tensor, in order of name: name, type, shape, SHA-256 of its bytes.
    It does not depend on the output's format. ``proved`` counts the tensors that were read back and found equal.
    ``transfers`` are the files that were fetched, if the source lies elsewhere, ``checksums`` how many of the kept
    storages have a checksum in the file that was verified, ``release`` its name if it was asked for by that.
    ``copies`` are the other places in the file that hold the same network.
    ``dangerous`` are the names that the file would have had called where it is unpickled; none was.
    """

    source: str
    source_format: str
    source_size: int
    plan: Plan
    method: Method
    method_named: bool
    also: tuple[str, ...]
    destination: str
    destination_format: str
    destination_size: int
    dtype: str | None
    fingerprint: str
    proved: int
    written: bool
    seconds: float
    release: str = ""
    transfers: tuple[Transfer, ...] = ()
    checksums: int = 0
    copies: tuple[Copy, ...] = ()
    dangerous: tuple[str, ...] = ()


def options_of(
    drop: Iterable[str],
    strip_prefix: str,
    section: str | None,
    target: str | None,
    rules: PathLike | None,
    channels: Sequence[int] = (),
) -> Options:
    own: tuple[Method, ...] = ()
    if rules is not None:
        from ckptconv.methods import toml  # most runs need no TOML parser

        own = (toml.load(Path(rules)),)
    bands = fields.as_tuple("channels", channels, "whole numbers")
    return Options(fields.as_tuple("drop", drop), strip_prefix, section, target, own, bands)


def wanted_method(method: MethodLike, strip_prefix: str, found: Located) -> MethodLike:
    """A release is its own method's, unless a method or a prefix is asked for."""
    return found.method or method if registry.is_auto(method) and not strip_prefix else method


@contextmanager
def naming_files(found: Located, destination: PathLike | None = None, rules: PathLike | None = None) -> Iterator[None]:
    """Put the names that the caller gave into the calls of an error's hint."""
    try:
        yield
    except CkptconvError as error:
        error.name_files(found.label, *(None if one is None else str(one) for one in (destination, rules)))
        raise


def _require_known(method: MethodLike, options: Options) -> None:
    """Refuse a name that no method has before anything is fetched."""
    if isinstance(method, str) and not registry.is_auto(method):
        registry.named(method, options.methods)


def plan(
    source: PathLike,
    method: MethodLike = "auto",
    *,
    drop: Iterable[str] = (),
    strip_prefix: str = "",
    section: str | None = None,
    rules: PathLike | None = None,
    target: str | None = None,
    channels: Sequence[int] = (),
    image_size: int | None = None,
    patch_size: int | None = None,
    fetching: Fetching | None = None,
) -> Plan:
    """Where each tensor of a checkpoint would go, as `convert` would have it. Reads names and shapes only.

    Raises UnidentifiedError, IncompletePlanError, UnreadableError or UsageError as `convert` would.
    """
    options, size = options_of(drop, strip_prefix, section, target, rules, channels), Size(image_size, patch_size)
    _require_known(method, options)
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        chosen = choose(checkpoint.sections, wanted_method(method, strip_prefix, found), options).plan
    return resize_plan(chosen, size) if size.asked else chosen


def convert(
    source: PathLike,
    destination: PathLike,
    method: MethodLike = "auto",
    *,
    drop: Iterable[str] = (),
    strip_prefix: str = "",
    section: str | None = None,
    rules: PathLike | None = None,
    target: str | None = None,
    format: str | None = None,
    dtype: str | None = None,
    channels: Sequence[int] = (),
    image_size: int | None = None,
    patch_size: int | None = None,
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
        drop: patterns of tensors whose loss is accepted.
        strip_prefix: the prefix the method's rules apply under; everything outside it is dropped.
        section: dotted path to the mapping with the weights; the method knows where to look if None.
        rules: a TOML file with a method of your own, known beside the built-in ones.
        target: whose names are written, such as 'mmdet' or 'torchvision'; None is the network's usual one.
        format: 'torch' or 'safetensors'; None goes by the suffix of the destination.
        dtype: floating tensors are rounded to this type; None keeps them bit for bit.
        channels: those of an image that the network is to see, by their numbers from 1, in this order; () is all of
            them. The stem keeps their weights; a channel that is named n times gets an n-th of them each time.
        image_size: pixels a side of the images that a transformer's positions are resized for; None keeps them.
        patch_size: pixels a side of its patches, to which their kernel is resized; None keeps it.
        dry_run: plan, and write nothing.
        force: replace the destination if it exists.
        progress: called with bytes done and bytes in all.
        fetching: how a source that lies elsewhere is fetched.

    Raises:
        UnidentifiedError, IncompletePlanError: a tensor is not accounted for; nothing was written.
        UnreadableError: the source is no checkpoint, is broken or is not safe.
        UsageError: the destination may not be written, or an argument makes no sense.
        EnvironmentMissingError: the disk is full, or a package that an address needs is missing.
        ProofError: what was read back differs; nothing was kept.
    """
    from ckptconv.sources.atomic import check_destination

    started = time.perf_counter()
    options, asked = options_of(drop, strip_prefix, section, target, rules, channels), Size(image_size, patch_size)
    kind = format or ("safetensors" if Path(destination).suffix == ".safetensors" else "torch")
    if format is None:
        _require_fitting_name(Path(destination))
    if kind not in FORMATS:
        raise UsageError(f"there is no format '{kind}'", f"Formats: {', '.join(FORMATS)}.")
    if dtype:
        cast(DTYPES["float32"], dtype)  # what nobody can do is refused before anything is fetched
    _require_known(method, options)
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, destination, rules), open_checkpoint(found.path) as checkpoint:
        match = choose(checkpoint.sections, wanted_method(method, strip_prefix, found), options)
        settled = resize_plan(match.plan, asked) if asked.asked else match.plan
        settled = cast_plan(settled, dtype) if dtype else settled
        _require_sections(kind, settled)
        places = (s.path for s in checkpoint.sources if isinstance(s.path, Path))
        real = check_destination(Path(destination), force or dry_run, places)
        if dry_run:
            fingerprint, size, proved, checksums = "", sum(move.spec.nbytes for move in settled.moves), 0, 0
        else:
            stored = checkpoint.tensors(settled.section)
            kept = [stored[name] for move in settled.moves for name in move.sources]
            checkpoint.fetch(kept)
            checksums = checkpoint.checksums(kept)
            said = describe(checkpoint, match, settled, dtype, checksums)
            pieces = transform(settled, checkpoint)
            fingerprint, size, proved = _write(real, force, kind, settled, pieces, said, checkpoint, progress)
        return Receipt(
            source=found.label,
            source_format=checkpoint.format,
            source_size=checkpoint.size,
            plan=settled,
            method=match.method,
            method_named=match.named,
            also=match.also,
            destination=str(destination),
            destination_format=kind,
            destination_size=size,
            dtype=dtype,
            fingerprint=fingerprint,
            proved=proved,
            written=not dry_run,
            seconds=time.perf_counter() - started,
            release=found.release.name if found.release else "",
            transfers=checkpoint.transfers,
            checksums=checksums,
            copies=copies(
                Planner(checkpoint.sections, options), match.plan, registry.methods(options.methods).values()
            ),
            dangerous=checkpoint.dangerous,
        )


def _require_fitting_name(destination: Path) -> None:
    """Raises UsageError for a name by which other programs would take the file for what it is not."""
    kind = _NOT_WRITTEN.get(destination.suffix.lower())
    if kind is not None:
        raise UsageError(
            f"{destination} has the name of {kind}, and ckptconv writes torch and safetensors files",
            f"Give a name that ends in .pth or .safetensors, such as {destination.with_suffix('.pth')}.",
            "destination",
        )


def _require_sections(kind: str, settled: Plan) -> None:
    """Raises UsageError where the target's loader looks under a key that the format has not."""
    section = settled.dialect.section
    if kind == "safetensors" and section != CANONICAL.section:
        raise UsageError(
            f"{settled.target} reads its weights from '{section}' of a torch file, and safetensors has no such thing",
            f"Write a torch file: a name that ends in .pth, or {argument('format', 'torch')}.",
            "format",
        )


def _write(
    target: Path,
    force: bool,
    kind: str,
    settled: Plan,
    pieces: Sequence[Piece],
    said: Mapping[str, object],
    checkpoint: Checkpoint,
    progress: Progress | None,
) -> tuple[str, int, int]:
    """Write, sync, read back, publish. Returns the fingerprint, the file's size and how many tensors were proved."""
    from ckptconv.formats import safetensors_writer, torch_writer
    from ckptconv.sources.atomic import write_atomically

    total, done = sum(p.spec.nbytes for p in pieces), 0

    def seen(_: str, count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    with Witness(pieces) as witness, write_atomically(target, force) as draft:
        text = json.dumps(said, separators=(",", ":"))
        if kind == "safetensors":
            texts = {"format": "pt", KEY: text}
            safetensors_writer.write(draft.file, safetensors_writer.in_order(pieces), texts, seen)
        else:
            torch_writer.write(draft.file, pieces, {KEY: text}, seen, settled.dialect.section)
        with draft.syncing():
            proved = prove(draft.path, pieces, "" if kind == "safetensors" else settled.dialect.section)
        fingerprint = witness.fingerprint()
        checkpoint.require_unchanged()
        size = draft.path.stat().st_size
        draft.commit()
        return fingerprint, size, proved

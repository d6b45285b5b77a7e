"""Reads a folder of torch.distributed.checkpoint: `.metadata` says which file holds which part of a tensor, and where.

Sources of the layout, all of torch's `distributed/checkpoint`: `metadata.py` (what `.metadata` pickles),
`filesystem.py` (`_write_item`: each part and each other value is a file of torch.save inside a `.distcp` file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from ckptconv.errors import UnreadableError, printable, shell_word
from ckptconv.formats.concatenated import ByteRange, ConcatenatedSource, concatenated_crc
from ckptconv.formats.distributed_metadata import METADATA, MetadataRecord, fields_of, first_of, load, nested
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.records import CallRecord, Global, Malformed, parse_lengths
from ckptconv.formats.storage import Storage, StoredTensor, as_stored_tensor
from ckptconv.formats.torch_file import read_zip
from ckptconv.sections import kind_of
from ckptconv.sources.file import Source
from ckptconv.spec import DTYPES, TensorSpec, Unreadable

_MAX_FILES = 512  # they are open all at once, and many systems allow a process 1,024
_MAX_PARTS = 200_000
_MAX_VALUE_BYTES = 1 << 16
_MAX_VALUES = 8 << 20


def join_command(folder: Path) -> str:
    """How torch makes one file of a folder, as a hint."""
    target = f"{folder.resolve().name or 'whole'}.pth"
    return (
        "Join it into one file, on a machine with torch: "
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
        f"{shell_word(str(folder))} {shell_word(target)}"
    )


def read_folder(folder: Path) -> Checkpoint:
    """Open a folder that has a `.metadata`; none of its tensors is read. Closes its files if it is refused."""
    files = {METADATA: Source(folder / METADATA)}
    try:
        return _Folder(folder, files).checkpoint()
    except BaseException as error:
        for source in files.values():
            source.close()
        if isinstance(error, Malformed):
            raise UnreadableError(
                f"{folder / METADATA} is malformed: {error}",
                "The folder is damaged or malicious. Download it again from its source.",
            ) from None
        raise


class _Value:
    """A value that is not a tensor: its kind, and why its tensors cannot be read, if it holds any."""

    __slots__ = ("kind", "unreadable")

    def __init__(self, kind: str, unreadable: Unreadable | None = None) -> None:
        self.kind, self.unreadable = kind, unreadable


@dataclass(frozen=True)
class _Part:
    """A part of a tensor: the index of its first element in the tensor, its shape, and its file of torch.save."""

    first: int
    spec: TensorSpec
    byte_range: ByteRange


class _Folder:
    """The content of one folder's `.metadata`, and the files that it names. ``files`` holds all opened ones."""

    def __init__(self, folder: Path, files: dict[str, Source]) -> None:
        self._folder, self._files = folder, files
        self._metadata, named, called = load(files[METADATA])
        self._named, self._called = dict(named), dict(called)
        self._byte_ranges = self._parts_by_offset()
        self._parts: dict[str, tuple[_Part, ...]] = {}
        self._sizes: dict[str, int] = {}
        self._plain: dict[str, Storage] = {}
        self._last: tuple[str, Storage] | None = None
        self._used: set[tuple[str, tuple[int, ...] | None]] = set()
        self._inspected = self._listed = 0

    def checkpoint(self) -> Checkpoint:
        described = self._metadata.get("state_dict_metadata")
        if not isinstance(described, dict) or not all(isinstance(name, str) for name in described):
            raise Malformed("it lists no tensors by their names")
        values = {name: self._entry(name, one) for name, one in described.items()}
        self._require_disjoint()
        count = len(self._files) - 1
        return Checkpoint(
            path=self._folder,
            format=f"torch distributed, {count} file{'s' if count != 1 else ''}",
            sources=tuple(self._files.values()),
            tree=nested(values, self._metadata.get("planner_data")),
            locate=self._locate,
            nbytes_of=self._sizes.__getitem__,
            extent=lambda _: None,  # all files are here
            named=tuple(self._named),
            called=tuple(self._called),
        )

    # What .metadata holds ----------------------------------------------------------------------------------------

    def _parts_by_offset(self) -> dict[tuple[str, tuple[int, ...] | None], ByteRange]:
        """The bytes of each part, by the name of its tensor and the offsets of its first element."""
        data = self._metadata.get("storage_data")
        if not isinstance(data, dict):
            raise Malformed("it does not list what its files hold")
        byte_ranges: dict[tuple[str, tuple[int, ...] | None], ByteRange] = {}
        for index, info in data.items():
            key, at = fields_of(index, "MetadataIndex"), fields_of(info, "_StorageInfo")
            name, offsets = key.get("fqn"), key.get("offset")
            offset, length = at.get("offset"), at.get("length")
            if not isinstance(name, str) or type(offset) is not int or type(length) is not int:
                raise Malformed("a part has no name, no offset or no length")
            if at.get("transform_descriptors"):
                raise UnreadableError(
                    f"{self._folder} is compressed or encrypted by an extension of torch.distributed.checkpoint",
                    "Load it with the extension that it was saved with, and save it again without one.",
                )
            source = self._file(at.get("relative_path"))
            if offset < 0 or length < 0 or offset + length > source.size:
                raise Malformed(f"{printable(name)} is outside of {source.name}")
            part = (name, None if offsets is None else parse_lengths(offsets))
            if part in byte_ranges:
                raise Malformed(f"{printable(name)} has two locations for one part")
            byte_ranges[part] = (source, offset, length)
        return byte_ranges

    def _require_disjoint(self) -> None:
        """Refuse parts that share bytes: a few bytes could expand to any number."""
        taken: dict[Source, list[tuple[int, int]]] = {}
        for source, offset, length in self._byte_ranges.values():
            taken.setdefault(source, []).append((offset, offset + length))
        for source, ranges in taken.items():
            ranges.sort()
            if any(first[1] > second[0] for first, second in pairwise(ranges)):
                raise Malformed(f"two of its parts overlap in {source.name}")

    def _file(self, name: object) -> Source:
        if not isinstance(name, str) or name in ("", ".", "..", METADATA) or not name.isprintable():
            raise Malformed("it names a file with an invalid name")
        if "/" in name or "\\" in name:
            raise Malformed(f"it names a file outside its folder: {name}")
        if name not in self._files:
            if len(self._files) > _MAX_FILES:
                raise UnreadableError(
                    f"{self._folder} consists of more than {_MAX_FILES:,} files", join_command(self._folder)
                )
            self._files[name] = Source(self._folder / name)
        return self._files[name]

    def _entry(self, name: str, described: object) -> StoredTensor | _Value:
        if isinstance(described, MetadataRecord) and described.kind == "BytesStorageMetadata":
            return self._value(self._byte_range(name, None))
        fields = fields_of(described, "TensorStorageMetadata")
        properties, chunks = fields.get("properties"), fields.get("chunks")
        state = properties.state if isinstance(properties, MetadataRecord) else None
        dtype = state[0] if isinstance(state, tuple) and state else None
        if not isinstance(dtype, Global) or not isinstance(chunks, list):
            raise Malformed(f"{printable(name)} has no type or no parts")
        known = DTYPES.get(dtype.name) if dtype.module == "torch" else None
        if known is None:
            what = f"a tensor of type {printable(dtype.kind)}"
            return _Value("tensor", Unreadable(what, "Save it as float32 or another usual type: .float()."))
        spec = TensorSpec(parse_lengths(fields.get("size")), known)
        parts = sorted((self._part(name, spec, chunk) for chunk in chunks), key=lambda part: part.first)
        parts = [part for part in parts if part.spec.numel]
        ends = [0, *accumulate(part.spec.numel for part in parts)]
        if [part.first for part in parts] != ends[:-1] or ends[-1] != spec.numel:
            what = "a tensor whose parts are not consecutive rows"
            return _Value("tensor", Unreadable(what, join_command(self._folder)))
        self._parts[name], self._sizes[name] = tuple(parts), spec.nbytes
        return StoredTensor(spec, name, 0, spec.strides)

    def _part(self, name: str, whole: TensorSpec, chunk: object) -> _Part:
        fields = fields_of(chunk, "ChunkStorageMetadata")
        offsets, sizes = parse_lengths(fields.get("offsets")), parse_lengths(fields.get("sizes"))
        spec = TensorSpec(sizes, whole.dtype)
        if len(offsets) != len(whole.shape) or len(sizes) != len(whole.shape):
            raise Malformed(f"a part of {printable(name)} has other axes than the whole")
        self._listed += 1
        if self._listed > _MAX_PARTS:
            raise Malformed(f"it lists more than {_MAX_PARTS:,} parts")
        if not spec.numel:  # of a process that has no rows; several such parts have the same offsets
            return _Part(0, spec, (self._files[METADATA], 0, 0))
        source, offset, length = byte_range = self._byte_range(name, offsets)
        if spec.nbytes > length:
            raise Malformed(f"a part of {printable(name)} is {spec.nbytes:,} bytes in a file of {length:,}")
        if source.read(offset, min(4, length)) != b"PK\3\4":
            raise UnreadableError(
                f"{self._folder} is a folder of torch.distributed.checkpoint, but torch.save did not write its tensors",
                "It was saved as safetensors, which torch does not read from such a folder: "
                "save it again with FileSystemWriter(FOLDER).",
            )
        return _Part(first_of(whole, offsets, sizes), spec, byte_range)

    def _byte_range(self, name: str, offsets: tuple[int, ...] | None) -> ByteRange:
        byte_range = self._byte_ranges.get((name, offsets))
        if byte_range is None:
            raise Malformed(f"it does not say where {printable(name)} is")
        if (name, offsets) in self._used:
            raise Malformed(f"it lists one part of {printable(name)} twice")
        self._used.add((name, offsets))
        return byte_range

    # What the other files hold ----------------------------------------------------------------------------------

    def _value(self, byte_range: ByteRange) -> _Value:
        """A value of another kind. Short ones are inspected: they may be a tuple or an object with tensors."""
        source, offset, length = byte_range
        self._inspected += length
        if length > _MAX_VALUE_BYTES or self._inspected > _MAX_VALUES:
            what = "an object that was not inspected"
            return _Value("object", Unreadable(what, join_command(self._folder), certain=False))
        if source.read(offset, min(4, length)) != b"PK\3\4":
            return _Value("bytes")
        opened = read_zip(ConcatenatedSource([byte_range]))
        self._named |= dict.fromkeys(opened.named)
        self._called |= dict.fromkeys(opened.called)
        kind = kind_of(opened.tree)
        if not _holds_tensors(opened.tree):
            return _Value(kind)
        certain = as_stored_tensor(opened.tree) is not None
        what = f"a {kind} that holds tensors" if not certain else "a tensor that was saved as an object"
        return _Value(kind, Unreadable(what, join_command(self._folder), certain))

    def _locate(self, key: str) -> Storage:
        if key in self._plain:
            return self._plain[key]
        if self._last is None or self._last[0] != key:  # one that was joined in memory is kept until the next one
            storage = self._storage(key)
            if storage.inline is None:
                self._plain[key] = storage
                return storage
            self._last = key, storage
        return self._last[1]

    def _storage(self, key: str) -> Storage:
        """The tensor's bytes: in the files if they are there in order, else joined in memory."""
        opened = [self._opened(key, part) for part in self._parts[key]]
        byte_ranges: list[ByteRange] = []
        crc = 0
        for part, tensor in opened:
            location, own = part.location(tensor), part.checksum(tensor)
            if location is None or own is None:
                data = b"".join(part.array(tensor).tobytes() for part, tensor in opened)
                return Storage(self._sizes[key], inline=data)
            byte_ranges.append((*location, tensor.spec.nbytes))
            crc = concatenated_crc(crc, own, tensor.spec.nbytes)
        return Storage(self._sizes[key], ConcatenatedSource(byte_ranges), crc=crc) if opened else Storage(0, inline=b"")

    def _opened(self, name: str, part: _Part) -> tuple[Checkpoint, StoredTensor]:
        opened = read_zip(ConcatenatedSource([part.byte_range]))
        tensor = opened.tree
        if opened.called or not isinstance(tensor, StoredTensor) or tensor.spec != part.spec:
            raise UnreadableError(
                f"{opened.path}: the data at byte {part.byte_range[1]:,} is not {printable(name)} ({part.spec})",
                "The folder is damaged or malicious. Download it again from its source.",
            )
        opened.require_valid(name, tensor)
        return opened, tensor


def _holds_tensors(tree: object) -> bool:
    """Whether a tensor is anywhere in what a short pickle describes."""
    queue, seen = [tree], set[int]()
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if as_stored_tensor(one) is not None:
            return True
        queue += one.values() if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else []
        queue += [one.args, one.state, one.items, one.pairs] if isinstance(one, CallRecord) else []
    return False
